"""Agents that break the rules: what they did is recorded as far as it can be, and the log says what is not."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import logging
import os
import subprocess
import sys
import threading
import uuid
from decimal import Decimal
from pathlib import Path
from unittest import mock

import pytest

agl = pytest.importorskip("agentlightning", "0.3")
if agl.__version__.startswith("0.2."):
    pytest.skip("TracewireTracer is for 0.3", allow_module_level=True)

import requests
from agentlightning.store.client_server import LightningStoreClient
from opentelemetry import trace as trace_api
from sample_agents import urls

import tracewire
from tracewire.agentlightning import TracewireTracer


async def test_an_agent_that_changes_the_proxy_costs_its_own_trace_only(tracer, origin, caplog) -> None:
    direct = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
    async with tracer.trace_context("changes"):
        requests.get(f"{origin}/before")
        os.environ.update(direct)
        requests.get(f"{origin}/unseen")
    assert urls(tracer.get_last_trace()) == ["before"]
    async with tracer.trace_context("next"):
        requests.get(f"{origin}/seen")
    assert urls(tracer.get_last_trace()) == ["seen"]
    assert "was changed by the program" in caplog.text


async def test_other_variables_that_an_agent_changes_stay_changed() -> None:
    names = ("PYTHONPATH", "NODE_OPTIONS", "NO_PROXY", "SSL_CERT_FILE")
    tracer = TracewireTracer()
    with mock.patch.dict(os.environ, NO_PROXY="before.example"):
        with tracer.lifespan():
            async with tracer.trace_context("changes"):
                for name in names:
                    os.environ[name] = f"{os.environ.get(name)}:mine"
                changed = {name: os.environ[name] for name in names}
            async with tracer.trace_context("next"):
                assert {name: os.environ[name] for name in names} == changed
        assert {name: os.environ[name] for name in names} == changed
        assert "HTTP_PROXY" not in os.environ


async def test_an_agent_that_ends_by_exec_or_a_signal_keeps_the_calls_of_its_children(tracer, origin) -> None:
    code = "import os, signal, urllib.request as u; u.urlopen('{}/{}').read(); {}"
    ends = ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)", "os.execvp('true', ['true'])"]
    async with tracer.trace_context("children"):
        for number, end in enumerate(ends):
            run = [sys.executable, "-c", code.format(origin, number, end)]
            await asyncio.to_thread(subprocess.run, run, check=False)
    assert urls(tracer.get_last_trace()) == ["0", "1", "2"]


async def test_a_client_that_outlives_its_tracer_goes_on_and_is_recorded_again(origin) -> None:
    tracer = TracewireTracer()
    with tracer.lifespan(), requests.Session() as client:
        async with tracer.trace_context("first"):
            client.get(f"{origin}/first")
            # An adapter that keeps the proxy, as clients that are made once do.
            proxies = dict.fromkeys(("http", "https"), os.environ["HTTP_PROXY"])
    assert requests.get(f"{origin}/between", proxies=proxies).status_code == 200
    later = TracewireTracer()
    with later.lifespan():
        async with later.trace_context("second"):
            requests.get(f"{origin}/second", proxies=proxies)
    assert urls(later.get_last_trace()) == ["second"]


async def test_spans_that_are_never_ended_end_with_the_trace(tracer, caplog) -> None:
    left = []
    async with tracer.trace_context("unended"):
        left.append(trace_api.get_tracer("agent").start_span("left open"))
        with trace_api.get_tracer("agent").start_as_current_span("ended"):
            left.append(trace_api.get_tracer("agent").start_span("below"))
    spans = {span.name: span for span in tracer.get_last_trace()}
    assert sorted(spans) == ["below", "ended", "left open", "unended"]
    assert spans["below"].parent_id == spans["ended"].span_id
    told = [name for name, span in spans.items() if span.attributes.get("tracewire.span.unended")]
    assert sorted(told) == ["below", "left open"]
    assert "2 spans were not ended when the trace ended, and end with it: below, left open" in caplog.text


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Color(enum.Enum):
    RED = 1


VALUES = {
    "text": "a", "empty": "", "nul": "a\x00b", "surrogate": "\ud800", "long": "x" * 1_000_000, "int": 1, "huge": 2**70,
    "bool": True, "float": 0.5, "nan": float("nan"), "inf": float("-inf"), "none": None, "bytes": b"\xff", "list": [1],
    "tuple": ("a",), "mixed": [1, "a", None], "nested": [[1]], "dict": {"a": {}}, "set": {1}, "complex": 1j,
    "decimal": Decimal(1), "date": dt.date(2026, 1, 2), "uuid": uuid.uuid4(), "path": Path("/"), "enum": Color.RED,
    "object": object(), "unprintable": Unprintable(), "range": range(2), "generator": iter([1]), "function": len,
    "huges": [2**70], "exception": ValueError("x"),
}  # fmt: skip


@pytest.mark.parametrize("where", ["ours", "upstream"])
async def test_attributes_of_every_type_cost_no_span(where) -> None:
    with tracewire.serve(store="memory:") as server:
        store = LightningStoreClient(server.api_url) if where == "ours" else agl.InMemoryLightningStore()
        await store.add_resources({})
        rollout = await store.start_rollout(input="x")
        tracer = TracewireTracer()
        with tracer.lifespan(store):
            ids = {"rollout_id": rollout.rollout_id, "attempt_id": rollout.attempt.attempt_id}
            async with tracer.trace_context("attributes", **ids):
                for name, value in VALUES.items():
                    tracer.create_span(f"span {name}", {"value": value, "other": 1})
                    with tracer.operation_context(f"operation {name}", {"value": value}) as operation:
                        operation.record_attributes({"more": value})
                for key in ("", None, 5, "k" * 100_000, "\ud800"):
                    tracer.create_span("key", {key: 1})
        spans = await store.query_spans(rollout.rollout_id)
        if where == "ours":
            await store.close()
    expected = [f"{kind} {name}" for kind in ("span", "operation") for name in VALUES] + ["key"] * 5 + ["attributes"]
    assert sorted(span.name for span in spans) == sorted(expected)
    found = {span.name: span.attributes for span in spans}
    assert all(found[f"span {name}"]["other"] == 1 for name in VALUES)
    assert [found[f"span {name}"]["value"] for name in ("text", "int", "bool")] == ["a", 1, True]


async def test_a_store_that_is_away_from_the_start_fails_no_rollout(origin, caplog) -> None:
    with tracewire.serve(store="memory:") as server:
        api = server.api_url
    store = LightningStoreClient(api, retry_delays=(0.01,), health_retry_delays=(0.01,))
    tracer = TracewireTracer()
    with tracer.lifespan(store), caplog.at_level(logging.WARNING):
        async with tracer.trace_context("away", rollout_id="ro-1", attempt_id="at-1"):
            requests.get(f"{origin}/kept")
    assert urls(tracer.get_last_trace()) == ["kept"]
    assert "did not take 1 HTTP spans" in caplog.text
    await store.close()


async def test_rewards_of_many_threads_lose_nothing(tracer, origin) -> None:
    def work(number: int) -> None:
        for at in range(5):
            requests.get(f"{origin}/{number}-{at}")
            agl.emit_reward(float(at))

    async with tracer.trace_context("threads"):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
    spans = tracer.get_last_trace()
    assert sorted(urls(spans)) == sorted(f"{number}-{at}" for number in range(6) for at in range(5))
    assert len({span.span_id for span in spans}) == len(spans) == 61
