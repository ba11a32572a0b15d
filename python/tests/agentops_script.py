"""Calls a model within a trace of AgentOps, and prints how many spans of calls there are and what their triplet has."""

from __future__ import annotations

import asyncio
import os

import agentlightning as agl
from openai import OpenAI

from tracewire.agentlightning import TracewireAgentOpsTracer


async def main() -> None:
    tracer = TracewireAgentOpsTracer()
    with tracer.lifespan():
        async with tracer.trace_context("agentops"):
            client = OpenAI(base_url=f"{os.environ['ORIGIN']}/v1", api_key="x")
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
            agl.emit_reward(1.0)
        spans = tracer.get_last_trace()
    calls = [span.name for span in spans].count("openai.chat.completion")
    (triplet,) = agl.TracerTraceToTriplet().adapt(spans)
    ids = [triplet.prompt["token_ids"], triplet.response["token_ids"][:2]]
    print("TRIPLET", calls, *ids, triplet.reward)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
