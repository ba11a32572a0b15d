"""Runs Agent Lightning's Trainer with four runner processes, and prints the triplets of each rollout."""

from __future__ import annotations

import asyncio
import os
import sys
import urllib.request

import agentlightning as agl

from tracewire.agentlightning import TracewireTracer

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'


class Agent(agl.LitAgent):
    def rollout(self, task, resources, rollout) -> float:
        url = f"{os.environ['ORIGIN']}/v1/chat/completions"
        urllib.request.urlopen(urllib.request.Request(url, BODY, {"content-type": "application/json"})).read()
        return float(task)


class Algorithm(agl.Algorithm):
    def is_async(self) -> bool:
        return True

    async def run(self, train_dataset=None, val_dataset=None) -> None:
        store = self.get_store()
        await store.add_resources({})
        ids = [(await store.enqueue_rollout(input=task, mode="train")).rollout_id for task in train_dataset]
        while len(await store.wait_for_rollouts(rollout_ids=ids, timeout=0.05)) < len(ids):
            await asyncio.sleep(0.1)
        for rollout in ids:
            triplets = agl.TracerTraceToTriplet().adapt(await store.query_spans(rollout))
            print("TRIPLETS", [(one.prompt["token_ids"], one.reward) for one in triplets], flush=True)  # noqa: T201


if __name__ == "__main__":
    trainer = agl.Trainer(algorithm=Algorithm(), n_runners=4, tracer=TracewireTracer(), strategy={"type": sys.argv[1]})
    trainer.fit(Agent(), train_dataset=list(range(6)))
