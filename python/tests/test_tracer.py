"""TracewireTracer with Agent Lightning 0.3's runner, stores, emitters and adapters, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

agl = pytest.importorskip("agentlightning", "0.3")
if agl.__version__.startswith("0.2."):
    pytest.skip("TracewireTracer is for 0.3", allow_module_level=True)

import aiohttp
import httpx
import requests
from agentlightning.adapter.messages import TraceToMessages
from agentlightning.adapter.triplet import LlmProxyTraceToTriplet, TracerTraceToTriplet
from agentlightning.store.client_server import LightningStoreClient
from conftest import Origin
from sample_agents import chat, run_in_store, two_calls, urls

import tracewire
from tracewire.agentlightning import TracewireTracer


def check_stored(spans) -> None:
    assert len({span.trace_id for span in spans}) == 1, [span.name for span in spans]
    calls = [span for span in spans if span.name == "openai.chat.completion"]
    assert len(calls) == 2
    root = next(span for span in spans if span.parent_id is None)
    assert all(span.parent_id == root.span_id for span in calls)
    for adapter in (TracerTraceToTriplet(), LlmProxyTraceToTriplet()):
        triplets = adapter.adapt(spans)
        assert [one.response["token_ids"][:2] for one in triplets] == [[3, 4]] * 2, adapter
        assert [one.prompt["token_ids"] for one in triplets] == [[1, 2]] * 2
        assert [one.reward for one in triplets] == [0.5, 0.75], adapter
    messages = TraceToMessages().adapt(spans)
    assert [one["messages"][-1]["content"] for one in messages] == ["hello"] * 2


async def test_the_runner_fills_its_own_store(origin) -> None:
    tracer = TracewireTracer()
    for spans in await run_in_store(tracer, agl.InMemoryLightningStore(), two_calls(origin), ["a", "b"]):
        check_stored(spans)


async def test_the_runner_fills_our_store(origin) -> None:
    with tracewire.serve(store="memory:") as server:
        client = LightningStoreClient(server.api_url)
        tracer = TracewireTracer()
        for spans in await run_in_store(tracer, client, two_calls(origin), ["a", "b"]):
            # The end of the trace's own span is exported after its block.
            check_stored(spans)
        await client.close()


async def test_a_returned_reward_belongs_to_the_last_call(origin) -> None:
    def agent(task) -> float:
        chat(origin)
        return 1.0

    (spans,) = await run_in_store(TracewireTracer(), agl.InMemoryLightningStore(), agent)
    assert [one.reward for one in LlmProxyTraceToTriplet().adapt(spans)] == [1.0]


async def test_every_kind_of_client_is_recorded(tracer, origin) -> None:
    async with tracer.trace_context("clients"):
        requests.get(f"{origin}/requests")
        httpx.get(f"{origin}/httpx")
        async with httpx.AsyncClient() as client:
            await asyncio.gather(*(client.get(f"{origin}/async-{n}") for n in range(5)))
        async with aiohttp.ClientSession() as session, session.get(f"{origin}/aiohttp") as answer:
            await answer.read()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(requests.get, [f"{origin}/thread-{n}" for n in range(8)]))
        code = f"import urllib.request as u; u.urlopen('{origin}/child').read()"
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=True)
    expected = ["requests", "httpx", "aiohttp", "child"]
    expected += [f"async-{n}" for n in range(5)] + [f"thread-{n}" for n in range(8)]
    assert sorted(urls(tracer.get_last_trace())) == sorted(expected)


async def test_a_forked_child_is_recorded(tracer, origin) -> None:
    async with tracer.trace_context("fork"):
        child = multiprocessing.get_context("fork").Process(target=requests.get, args=(f"{origin}/forked",))
        child.start()
        await asyncio.to_thread(child.join)
    assert urls(tracer.get_last_trace()) == ["forked"]


async def test_a_client_made_in_an_earlier_trace_counts_to_the_current_one(tracer, origin) -> None:
    with requests.Session() as session:
        for name in ("first", "second"):
            async with tracer.trace_context(name):
                session.get(f"{origin}/{name}")
            assert urls(tracer.get_last_trace()) == [name]


async def test_a_client_made_before_is_missed_and_the_log_says_so(origin, caplog) -> None:
    client = httpx.Client()
    tracer = TracewireTracer()
    with tracer.lifespan(), caplog.at_level(logging.WARNING):
        async with tracer.trace_context("early"):
            client.get(f"{origin}/early")
    assert urls(tracer.get_last_trace()) == []
    assert "before init_worker()" in caplog.text


async def test_an_agent_that_raises_keeps_its_calls(tracer, origin) -> None:
    with pytest.raises(KeyError):
        async with tracer.trace_context("raises"):
            requests.get(f"{origin}/before")
            raise KeyError("mine")
    spans = tracer.get_last_trace()
    assert urls(spans) == ["before"]
    assert spans[0].status.status_code == "ERROR"
    async with tracer.trace_context("next"):
        requests.get(f"{origin}/after")
    assert urls(tracer.get_last_trace()) == ["after"]


async def test_an_agent_that_hangs_keeps_its_calls(tracer, origin) -> None:
    async def hang() -> None:
        async with tracer.trace_context("hangs"), httpx.AsyncClient() as client:
            await client.get(f"{origin}/before")
            await client.get(f"{origin}/hang", timeout=None)

    before = Origin.hanging_calls
    task = asyncio.create_task(hang())
    while Origin.hanging_calls == before:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert urls(tracer.get_last_trace()) == ["before", "hang"]


def test_before_init_worker_it_says_what_to_call() -> None:
    tracer = TracewireTracer()

    async def trace() -> None:
        async with tracer.trace_context("early"):
            pass

    for use in (lambda: asyncio.run(trace()), lambda: tracer.create_span("x")):
        with pytest.raises(tracewire.TracewireError, match=r"call init_worker\(\) first"):
            use()
    with pytest.raises(RuntimeError, match=r"init_worker\(\) first"):
        tracer.get_last_trace()


def test_after_teardown_it_says_so_and_keeps_the_last_trace(origin) -> None:
    tracer = TracewireTracer()

    async def trace() -> None:
        async with tracer.trace_context("late"):
            requests.get(f"{origin}/late")

    before = dict(os.environ)
    with tracer.lifespan():
        asyncio.run(trace())
    assert dict(os.environ) == before
    with pytest.raises(tracewire.TracewireError, match="torn down"):
        asyncio.run(trace())
    assert urls(tracer.get_last_trace()) == ["late"]


def test_init_worker_twice_is_refused(tracer) -> None:
    with pytest.raises(tracewire.TracewireError, match="called twice"):
        tracer.init_worker(1)


async def test_nested_and_in_two_threads_it_is_refused(tracer) -> None:
    async def open_another() -> None:
        async with tracer.trace_context("inner"):
            pass

    async with tracer.trace_context("outer"):
        with pytest.raises(ValueError, match="one at a time"):
            await open_another()
        errors = []

        def thread() -> None:
            try:
                asyncio.run(open_another())
            except ValueError as error:
                errors.append(error)

        other = threading.Thread(target=thread)
        other.start()
        await asyncio.to_thread(other.join)
        assert "one at a time" in str(errors[0])


def in_a_forked_process(tracer, origin, answers) -> None:
    async def trace(name: str) -> None:
        async with tracer.trace_context(name):
            requests.get(f"{origin}/{name}")

    try:
        asyncio.run(trace("uninitialized"))
    except tracewire.TracewireError as error:
        answers.put(str(error))
    tracer.init_worker(1)
    asyncio.run(trace("initialized"))
    answers.put(urls(tracer.get_last_trace()))
    tracer.teardown_worker(1)


def test_a_forked_worker_needs_init_worker(tracer, origin) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=in_a_forked_process, args=(tracer, origin, answers))
    child.start()
    assert "in every process" in answers.get(timeout=60)
    assert answers.get(timeout=60) == ["initialized"]
    child.join()


def one_worker(number: int, origin: str, api: str, ended) -> None:
    async def run() -> None:
        client = LightningStoreClient(api)
        await run_in_store(TracewireTracer(), client, two_calls(origin), [f"task-{number}"])
        await client.close()
        ended.put(number)

    asyncio.run(run())


def test_four_workers_at_once(origin) -> None:
    with tracewire.serve(store="memory:") as server:
        context = multiprocessing.get_context("spawn")
        ended = context.Queue()
        workers = [context.Process(target=one_worker, args=(n, origin, server.api_url, ended)) for n in range(4)]
        for worker in workers:
            worker.start()
        # A worker may get the rollout of another, which may be running it when this one has ended.
        assert sorted(ended.get(timeout=100) for _ in workers) == [0, 1, 2, 3]
        for worker in workers:
            worker.join()
        rollouts = {one["rollout_id"] for one in tracewire.trajectories(server=server.api_url)}
        assert len(rollouts) == 4
        for rollout in rollouts:
            names = [span["name"] for span in server.trace(rollout)]
            assert names.count("openai.chat.completion") == 2, names


def test_the_trainer_with_four_runners(origin) -> None:
    script = Path(__file__).with_name("trainer_script.py")
    environment = {**os.environ, "ORIGIN": origin}
    done = subprocess.run(
        [sys.executable, script, "cs"], env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    told = sorted(line for line in done.stdout.splitlines() if line.startswith("TRIPLETS"))
    assert told == [f"TRIPLETS [([1, 2], {reward}.0)]" for reward in range(6)], done.stdout + done.stderr


async def test_operations_and_attributes_of_every_kind(tracer, origin) -> None:
    async with tracer.trace_context("operations"):
        with agl.operation(question="why?") as operation:
            requests.get(f"{origin}/inside")
            operation.set_output({"answer": ["a", 1, 2.5, True, None]})
        agl.emit_message("hello")
        agl.emit_object({"nested": [{"deep": None}]})
        agl.emit_exception(ValueError("bad"))
    names = [span.name for span in tracer.get_last_trace()]
    assert [name.split(".")[-1] for name in names[1:] if name.startswith("agentlightning")] == [
        "operation", "message", "object", "exception",
    ]  # fmt: skip


async def test_langchain_spans_join_the_tree(tracer) -> None:
    runnables = pytest.importorskip("langchain_core.runnables")
    async with tracer.trace_context("langchain"):
        chain = runnables.RunnableLambda(lambda x: x + 1) | runnables.RunnableLambda(lambda x: x * 2)
        assert chain.invoke(1, config={"callbacks": [tracer.get_langchain_handler()]}) == 4
    spans = {span.name: span for span in tracer.get_last_trace()}
    sequence = spans["langchain.chain.RunnableSequence"]
    assert sequence.parent_id == spans["langchain"].span_id
    assert [one.parent_id for one in tracer.get_last_trace()].count(sequence.span_id) == 2


def test_a_killed_worker_leaves_no_proxy(origin) -> None:
    code = (
        "import os, signal; from tracewire.agentlightning import TracewireTracer; tracer = TracewireTracer();"
        "tracer.init_worker(0); print(tracer._recorder._server.api_url, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    api = done.stdout.strip()
    assert api.startswith("http://"), done.stderr
    with pytest.raises(tracewire.TracewireError):
        for _ in range(1000):
            tracewire.trajectories(server=api)
    gc.collect()
