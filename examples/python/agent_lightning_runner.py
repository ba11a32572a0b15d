"""Runs an agent with Agent Lightning's runner and store, and records every HTTP call of it.

    python examples/python/agent_lightning_runner.py

Needs Agent Lightning 0.3. The one line that differs from its own documentation is `tracer=TracewireTracer()`.
"""

import asyncio
import threading
import urllib.request
from http.server import HTTPServer, SimpleHTTPRequestHandler
from typing import Any

from agentlightning import InMemoryLightningStore, LitAgent, LitAgentRunner, emit_reward

from tracewire.agentlightning import TracewireTracer

server = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()


class Agent(LitAgent[str]):
    """Makes one call, and is content."""

    def rollout(self, task: str, resources: Any, rollout: Any) -> None:  # noqa: ARG002
        """Do the task."""
        urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/?task={task}").read()
        emit_reward(1.0)


async def main() -> None:
    """Run two tasks, and print their spans."""
    store = InMemoryLightningStore()
    await store.add_resources({})
    rollouts = [await store.enqueue_rollout(input=task) for task in ("a", "b")]
    runner = LitAgentRunner(tracer=TracewireTracer(), max_rollouts=len(rollouts), poll_interval=0.1)
    with runner.run_context(agent=Agent(), store=store):
        await runner.iter()
    for rollout in rollouts:
        for span in await store.query_spans(rollout.rollout_id):
            print(rollout.input, span.sequence_id, span.name, span.attributes.get("url.full", ""))


asyncio.run(main())
server.shutdown()
