"""Agents that call a model, and the runner that runs them; for Agent Lightning 0.3."""

from __future__ import annotations

import agentlightning as agl
import requests


def chat(origin: str) -> dict:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    return requests.post(f"{origin}/v1/chat/completions", json=body).json()


def urls(spans) -> list[str]:
    return [span.attributes["url.full"].split("/", 3)[3] for span in spans if "url.full" in span.attributes]


class Agent(agl.LitAgent):
    def __init__(self, work) -> None:
        super().__init__()
        self.work = work

    def rollout(self, task, resources, rollout):
        return self.work(task)


async def run_in_store(tracer, store, agent, inputs=("task",)):
    await store.add_resources({})
    runner = agl.LitAgentRunner(tracer=tracer, max_rollouts=len(inputs), poll_interval=0.01)
    rollouts = [await store.enqueue_rollout(input=one, mode="train") for one in inputs]
    with runner.run_context(agent=Agent(agent), store=store):
        await runner.iter()
    return [await store.query_spans(rollout.rollout_id) for rollout in rollouts]


def two_calls(origin):
    def agent(task):
        chat(origin)
        agl.emit_reward(0.5)
        chat(origin)
        agl.emit_reward(0.75)

    return agent
