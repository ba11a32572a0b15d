"""HttpTracer with the constructor of Agent Lightning 0.2, under 0.2 and 0.3."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("agentlightning")

import aiohttp
import requests

import tracewire
from tracewire.agentlightning import HttpTracer


@pytest.fixture(params=[True, False], ids=["child", "in-process"])
def tracer(request):
    tracer = HttpTracer(include_headers=True, include_body=True, subprocess_mode=request.param, subprocess_timeout=30)
    yield tracer
    tracer._recorder.close()


def names(tracer) -> list[str]:
    return [span.name for span in tracer.get_last_trace()]


def test_a_function_is_recorded(tracer, origin) -> None:
    def work(path: str) -> dict:
        requests.get(f"{origin}/{path}")
        return requests.post(f"{origin}/post", json={"a": 1}).json()

    assert tracer.trace_run(work, "get") == {"json": {"a": 1}}
    assert names(tracer) == [f"HTTP GET {origin}/get", f"HTTP POST {origin}/post"]
    posted = tracer.get_last_trace()[1]
    assert posted.attributes["http.status_code"] == 200
    assert posted.attributes["http.target"] == "/post"
    assert posted.attributes["http.request.body"] == '{"a": 1}'
    assert "http.request.header.user-agent" in posted.attributes


async def test_a_coroutine_is_recorded(tracer, origin) -> None:
    async def work() -> int:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{origin}/async") as answer:
                await answer.read()
            # On the same connection, to which aiohttp does not repeat the credentials. Its response is not read.
            async with session.get(f"{origin}/again") as answer:
                return answer.status

    assert await tracer.trace_run_async(work) == 200
    assert names(tracer) == [f"HTTP GET {origin}/async", f"HTTP GET {origin}/again"]


def test_an_exception_is_raised_and_the_calls_are_kept(tracer, origin) -> None:
    def work() -> None:
        requests.get(f"{origin}/before")
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        tracer.trace_run(work)
    assert names(tracer) == [f"HTTP GET {origin}/before"]


def test_without_headers_and_bodies_there_are_none(origin) -> None:
    tracer = HttpTracer(subprocess_mode=False)
    tracer.trace_run(requests.get, f"{origin}/plain")
    (span,) = tracer.get_last_trace()
    assert not [name for name in span.attributes if "header" in name or "body" in name]


def test_its_own_requests_are_left_out_unless_wanted(origin) -> None:
    own = {"x-agentlightning-client": "true"}
    tracer = HttpTracer(subprocess_mode=False)
    tracer.trace_run(requests.get, f"{origin}/own", headers=own)
    assert names(tracer) == []
    tracer = HttpTracer(subprocess_mode=False, include_agentlightning_requests=True)
    tracer.trace_run(requests.get, f"{origin}/own", headers=own)
    assert names(tracer) == [f"HTTP GET {origin}/own"]


def test_a_child_that_hangs_is_stopped_with_all_that_it_started(origin, tmp_path) -> None:
    def work() -> None:
        requests.get(f"{origin}/before")
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (tmp_path / "pid").write_text(str(child.pid))
        time.sleep(600)

    tracer = HttpTracer(subprocess_timeout=2)
    with pytest.raises(TimeoutError, match="subprocess_timeout"):
        tracer.trace_run(work)
    assert names(tracer) == [f"HTTP GET {origin}/before"]
    with (
        open(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
        if os.path.exists(f"/proc/{(tmp_path / 'pid').read_text()}")
        else open(os.devnull) as stat
    ):
        assert stat.read().split()[2:3] in ([], ["Z"])


def test_a_child_that_is_killed_is_named(origin) -> None:
    tracer = HttpTracer()
    with pytest.raises(ChildProcessError, match="SIGKILL"):
        tracer.trace_run(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_a_result_that_cannot_be_sent_says_what_to_do() -> None:
    tracer = HttpTracer()
    with pytest.raises(tracewire.TracewireError, match="subprocess_mode=False"):
        tracer.trace_run(lambda: lambda: 1)


def test_a_nested_trace_is_refused(origin) -> None:
    tracer = HttpTracer(subprocess_mode=False)
    with pytest.raises(tracewire.TracewireError, match="open already"):
        tracer.trace_run(lambda: tracer.trace_run(requests.get, origin))
    tracer.trace_run(requests.get, f"{origin}/later")
    assert names(tracer) == [f"HTTP GET {origin}/later"]
