"""Calls a model while an instrumentation of the OpenAI SDK records, too; prints what became of the calls."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib import import_module

import agentlightning as agl
from agentlightning.adapter.messages import TraceToMessages
from agentlightning.adapter.triplet import LlmProxyTraceToTriplet, TracerTraceToTriplet
from agentlightning.store.client_server import LightningStoreClient
from openai import OpenAI

import tracewire
from tracewire.agentlightning import OneSpanPerCall, TracewireAgentOpsTracer, TracewireTracer

INSTRUMENTATIONS = {
    "openinference": "openinference.instrumentation.openai",
    "openllmetry": "opentelemetry.instrumentation.openai",
}


class Agent(agl.LitAgent):
    def rollout(self, task, resources, rollout):
        client = OpenAI(base_url=f"{os.environ['ORIGIN']}/v1", api_key="x")
        for reward in (0.5, 1.0):
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": task}])
            agl.emit_reward(reward)


async def run_in(store) -> list:
    await store.add_resources({})
    tracer = TracewireAgentOpsTracer() if "agentops" in sys.argv else TracewireTracer()
    runner = agl.LitAgentRunner(tracer=tracer, max_rollouts=1, poll_interval=0.01)
    rollout = await store.enqueue_rollout(input="hi", mode="train")
    with runner.run_context(agent=Agent(), store=store):
        await runner.iter()
    return list(await store.query_spans(rollout.rollout_id))


async def main() -> None:
    for name in sys.argv[1:]:
        if name in INSTRUMENTATIONS:
            import_module(INSTRUMENTATIONS[name]).OpenAIInstrumentor().instrument()
    with tracewire.serve(store="memory:") as server:
        client = LightningStoreClient(server.api_url)
        spans = await run_in(client)
        await client.close()
        rows = server.trajectories()
    known = {span.span_id for span in spans}
    told = {
        "traces": len({span.trace_id for span in spans}),
        "orphans": [span.name for span in spans if span.parent_id is not None and span.parent_id not in known],
        "spans": sorted([span.name, list(span.attributes.get("response_token_ids", ()))[:2]] for span in spans),
        "triplets": [
            [[one.prompt["token_ids"], one.response["token_ids"][:2], one.reward] for one in adapter.adapt(spans)]
            for adapter in (TracerTraceToTriplet(), LlmProxyTraceToTriplet())
        ],
        "messages": [one["messages"] for one in OneSpanPerCall(TraceToMessages()).adapt(spans)],
        "rows": [row["token_ids"][:4] for row in rows],
    }
    print("TOLD", json.dumps(told))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
