"""What must not be lost, and what is lost loudly: stores that fail, calls in flight, agents that are cancelled."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

agl = pytest.importorskip("agentlightning", "0.3")
if agl.__version__.startswith("0.2."):
    pytest.skip("TracewireTracer is for 0.3", allow_module_level=True)

import requests
from conftest import Origin
from sample_agents import run_in_store, two_calls, urls

from tracewire import TracewireError
from tracewire.agentlightning import HttpTracer, TracewireTracer, _http, _tracer


async def test_a_store_that_is_away_does_not_fail_the_rollout(origin, caplog) -> None:
    class Away(agl.InMemoryLightningStore):
        async def get_many_span_sequence_ids(self, rollout_attempt_ids):
            raise ConnectionError("away")

    tracer = TracewireTracer()
    with tracer.lifespan(Away()):
        async with tracer.trace_context("away", rollout_id="ro-1", attempt_id="at-1"):
            requests.get(f"{origin}/kept")
    assert urls(tracer.get_last_trace()) == ["kept"]
    assert "did not take 1 HTTP spans" in caplog.text


async def test_a_store_that_fails_once_gets_each_span_once_at_the_end(origin) -> None:
    class Unsteady(agl.InMemoryLightningStore):
        fails = 2

        async def add_many_spans(self, spans):
            if self.fails:
                self.fails -= 1
                await super().add_many_spans(spans[:1])
                raise ConnectionError("away")
            return await super().add_many_spans(spans)

    (spans,) = await run_in_store(TracewireTracer(), Unsteady(), two_calls(origin))
    calls = [span for span in spans if span.name == "openai.chat.completion"]
    assert len(calls) == len({span.span_id for span in calls}) == 2
    assert len({span.sequence_id for span in calls}) == 2


def in_a_thread(call, url: str) -> threading.Thread:
    thread = threading.Thread(target=call, args=(url,))
    thread.start()
    return thread


async def test_a_call_that_ends_just_after_the_block_is_kept(tracer, origin) -> None:
    before = Origin.slow_calls
    async with tracer.trace_context("slow"):
        thread = in_a_thread(requests.get, f"{origin}/slow")
        while Origin.slow_calls == before:
            await asyncio.sleep(0.01)
    assert urls(tracer.get_last_trace()) == ["slow"]
    thread.join()


async def test_a_call_in_flight_at_the_end_is_told_and_is_in_no_other_trace(tracer, origin, caplog) -> None:
    before = Origin.hanging_calls
    async with tracer.trace_context("first"):
        thread = in_a_thread(requests.get, f"{origin}/hang-until-released")
        while Origin.hanging_calls == before:
            await asyncio.sleep(0.01)
    assert urls(tracer.get_last_trace()) == []
    assert "1 HTTP calls were still in flight when the trace ended" in caplog.text
    async with tracer.trace_context("second"):
        Origin.released.set()
        await asyncio.to_thread(thread.join)
        requests.get(f"{origin}/second")
    assert urls(tracer.get_last_trace()) == ["second"]
    assert "1 HTTP spans of calls that began before this trace are in no trace" in caplog.text


async def test_an_agent_that_is_cancelled_again_and_again_keeps_its_calls(tracer, origin) -> None:
    begun = asyncio.Event()

    async def agent() -> None:
        async with tracer.trace_context("cancelled"):
            await asyncio.to_thread(requests.get, f"{origin}/kept")
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(agent())
    await begun.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0.001)
    assert task.cancelled()
    assert urls(tracer.get_last_trace()) == ["kept"]


def end_proxy(tracer) -> None:
    """End the program as the kernel does when memory runs out; its supervisor lives on."""
    server = tracer._recorder._server
    supervisor = server._process.pid
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    while server.is_running():
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_proxy_that_was_killed_is_replaced(origin, caplog) -> None:
    tracer = TracewireTracer()
    with tracer.lifespan():
        end_proxy(tracer)
        async with tracer.trace_context("replaced"):
            requests.get(f"{origin}/replaced")
        assert urls(tracer.get_last_trace()) == ["replaced"]
        with pytest.raises(TracewireError):
            async with tracer.trace_context("ends"):
                end_proxy(tracer)
                agl.emit_reward(1.0)
    assert "could not be read from the proxy" in caplog.text
    with tracer.lifespan():
        async with tracer.trace_context("after"):
            requests.get(f"{origin}/after")
        end_proxy(tracer)
    with tracer.lifespan():
        async with tracer.trace_context("parked"):
            requests.get(f"{origin}/parked")
    assert urls(tracer.get_last_trace()) == ["parked"]


class Stuck(agl.InMemoryLightningStore):
    """Answers when it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.taken = []
        self.calls = 0

    async def add_many_spans(self, spans):
        self.calls += 1
        while not self.released.is_set():
            await asyncio.sleep(0.01)
        self.taken += [span.span_id for span in spans]
        return await super().add_many_spans(spans)

    async def add_otel_span(self, *args, **options):
        if threading.current_thread() is threading.main_thread():
            await asyncio.sleep(60)
        return await super().add_otel_span(*args, **options)


async def test_the_end_awaits_a_delivery_that_is_under_way(origin, monkeypatch) -> None:
    monkeypatch.setattr(_tracer, "STORE_TIMEOUT_S", 0.2)
    store = Stuck()
    tracer = TracewireTracer()
    with tracer.lifespan(store):
        rollout = await store.start_rollout({})
        ids = {"rollout_id": rollout.rollout_id, "attempt_id": rollout.attempt.attempt_id}
        async with tracer.trace_context("slow", **ids):
            requests.get(f"{origin}/kept")
            agl.emit_reward(1.0)
            assert store.calls == 1
            assert tracer._delivery.count_unstored() == 1
            monkeypatch.setattr(_tracer, "STORE_TIMEOUT_S", 30)
            threading.Timer(0.3, store.released.set).start()
        assert len(store.taken) == 1
        assert tracer._delivery.count_unstored() == 0


async def test_a_store_that_never_answers_ends_no_later_than_the_limit(origin, monkeypatch, caplog) -> None:
    monkeypatch.setattr(_tracer, "STORE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(_http, "STORE_TIMEOUT_S", 0.2)
    store = Stuck()
    rollout = await store.start_rollout({})
    ids = {"rollout_id": rollout.rollout_id, "attempt_id": rollout.attempt.attempt_id}
    for tracer in (TracewireTracer(), HttpTracer()):
        with tracer.lifespan(store):
            async with tracer.trace_context("never", **ids):
                requests.get(f"{origin}/kept")
        assert urls(tracer.get_last_trace()) in (["kept"], [])
    assert "has not taken 1 HTTP spans within" in caplog.text
    assert "did not take 1 HTTP spans" in caplog.text
    store.released.set()


async def test_a_trace_that_is_cancelled_at_its_start_leaves_the_tracer_usable(origin) -> None:
    tracer = HttpTracer()

    async def trace() -> None:
        async with tracer.trace_context("http"):
            requests.get(f"{origin}/next")

    with tracer.lifespan():
        task = asyncio.create_task(trace())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await trace()
    assert len(tracer.get_last_trace()) == 1


async def test_a_reward_under_steady_calls_waits_a_second_at_most(tracer, origin, monkeypatch, caplog) -> None:
    recorder = tracer._recorder
    metrics = recorder._metrics
    async with tracer.trace_context("steady"):
        requests.get(f"{origin}/kept")
        with monkeypatch.context() as patch:
            patch.setattr(recorder, "_metrics", lambda: {**metrics(), "tracewire_exchanges_unstored": 1.0})
            start = time.monotonic()
            agl.emit_reward(1.0)
            assert time.monotonic() - start < 5
    assert urls(tracer.get_last_trace()) == ["kept"]
    assert "are not stored after" not in caplog.text


async def test_a_reward_is_not_held_by_the_end_of_the_trace(tracer, origin) -> None:
    before = Origin.hanging_calls
    Origin.released.clear()
    recorder = tracer._recorder
    async with tracer.trace_context("held"):
        thread = in_a_thread(requests.get, f"{origin}/hang-until-released")
        while Origin.hanging_calls == before:
            await asyncio.sleep(0.01)
        ending = asyncio.create_task(asyncio.to_thread(recorder.new_spans, at_end=True))
        await asyncio.sleep(0.2)
        recorder.new_spans()
        assert not ending.done()
        Origin.released.set()
        assert len(await ending) == 1
    thread.join()
