"""HttpTracer, with the constructor of Agent Lightning 0.2's: records HTTP calls only, of any language.

Works with Agent Lightning 0.2 and 0.3. In 0.2 `get_last_trace` returns ReadableSpans, in 0.3 Spans. With
`subprocess_mode` the function of `trace_run` runs in a forked child, so its result must be picklable. Emitters return
their spans, but these are not stored: use TracewireTracer for them.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import pickle
import signal
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agentlightning.tracer.base import Tracer
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from tracewire._errors import TracewireError
from tracewire.agentlightning._delivery import STORE_TIMEOUT_S, to_its_end
from tracewire.agentlightning._recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
    from multiprocessing.connection import Connection

logger = logging.getLogger(__name__)

_IS_0_2 = version("agentlightning").startswith("0.2.")
_Base: Any = Tracer
if not _IS_0_2:
    _Base = import_module("agentlightning.tracer.dummy").DummyTracer  # what emitters need


class HttpTracer(_Base):  # type: ignore[misc] # Agent Lightning is not typed for mypy
    """Records the HTTP calls of a function or a block."""

    def __init__(
        self,
        include_headers: bool = False,  # noqa: FBT001, FBT002 - the constructor of 0.2
        include_body: bool = False,  # noqa: FBT001, FBT002
        include_agentlightning_requests: bool = False,  # noqa: FBT001, FBT002
        subprocess_mode: bool = True,  # noqa: FBT001, FBT002
        subprocess_timeout: float = 3600.0,
    ) -> None:
        super().__init__()
        self.include_headers = include_headers
        self.include_body = include_body
        self.include_agentlightning_requests = include_agentlightning_requests
        self.subprocess_mode = subprocess_mode
        self.subprocess_timeout = subprocess_timeout
        self._recorder: Recorder | None = None
        self._store: Any = None
        self._spans: list[ReadableSpan] = []
        self._ids = ("rollout-dummy", "attempt-dummy")
        self._is_open = False

    def init_worker(self, worker_id: int, store: Any = None) -> None:
        """Start the proxy. A trace starts it, too, if nothing has."""
        if _IS_0_2:
            super().init_worker(worker_id)
        else:
            super().init_worker(worker_id, store)
        self._store = store
        self._start()

    def teardown_worker(self, worker_id: int) -> None:
        """Give the proxy back, which runs on for its clients. The last trace stays readable."""
        super().teardown_worker(worker_id)
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    @asynccontextmanager
    async def trace_context(
        self,
        name: str | None = None,  # noqa: ARG002 - of the contract
        *,
        store: Any = None,
        rollout_id: str | None = None,
        attempt_id: str | None = None,
    ) -> AsyncGenerator[HttpTracer, None]:
        """Record the calls of this process and its children until the end of the block, and add them to the store."""
        try:
            recorder = await to_its_end(asyncio.to_thread(self._begin))
        except asyncio.CancelledError:  # the thread has opened the trace
            self._is_open = False
            raise
        self._enter(recorder, rollout_id, attempt_id)
        try:
            yield self
        finally:
            self._leave(recorder)
            try:
                await to_its_end(self._finish(recorder, store or self._store, rollout_id, attempt_id))
            finally:
                self._is_open = False

    async def _finish(self, recorder: Recorder, store: Any, rollout_id: str | None, attempt_id: str | None) -> None:
        self._spans = await asyncio.to_thread(self._read, recorder)
        if store is None or rollout_id is None or attempt_id is None:
            return
        for stored, span in enumerate(self._spans):
            try:
                await asyncio.wait_for(store.add_otel_span(rollout_id, attempt_id, span), STORE_TIMEOUT_S)
            except Exception:  # a store that is away or does not answer must not fail the rollout
                missing = len(self._spans) - stored
                logger.exception("The store did not take %d HTTP spans. get_last_trace() has them", missing)
                return

    @contextmanager
    def _trace_context_sync(
        self, *, rollout_id: str | None = None, attempt_id: str | None = None, **_: Any
    ) -> Iterator[HttpTracer]:
        recorder = self._begin()
        self._enter(recorder, rollout_id, attempt_id)
        try:
            yield self
        finally:
            self._leave(recorder)
            try:
                self._spans = self._read(recorder)
            finally:
                self._is_open = False

    def _enter(self, recorder: Recorder, rollout_id: str | None, attempt_id: str | None) -> None:
        self._ids = (rollout_id or "rollout-dummy", attempt_id or "attempt-dummy")
        try:
            recorder.apply_environment()
            _set_active(self)
        except BaseException:  # another tracer is active
            recorder.restore_environment()
            self._is_open = False
            raise

    def _leave(self, recorder: Recorder) -> None:
        _set_active(None)
        recorder.restore_environment()

    def get_last_trace(self) -> list[Any]:
        """Return the spans of the last trace; none before the first."""
        if _IS_0_2:
            return list(self._spans)
        from agentlightning.types import Span  # noqa: PLC0415 - 0.2 has it elsewhere

        rollout, attempt = self._ids
        return [Span.from_opentelemetry(span, rollout, attempt, at) for at, span in enumerate(self._spans, 1)]

    def trace_run(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function, in a child process with `subprocess_mode`, and record its calls."""
        if self.subprocess_mode:
            return self._run_in_child(lambda: func(*args, **kwargs))
        return super().trace_run(func, *args, **kwargs)

    async def trace_run_async(self, func: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """Run a coroutine function as `trace_run` does."""
        if self.subprocess_mode:

            async def run() -> Any:
                return await func(*args, **kwargs)

            return await asyncio.to_thread(self._run_in_child, lambda: asyncio.run(run()))
        return await super().trace_run_async(func, *args, **kwargs)

    def _start(self) -> Recorder:
        if self._recorder is None:
            self._recorder = Recorder.obtain(
                include_headers=self.include_headers,
                include_bodies=self.include_body,
                own_traffic=self.include_agentlightning_requests,
            )
        self._recorder.check_process()
        self._recorder = self._recorder.renewed()
        return self._recorder

    def _begin(self) -> Recorder:
        if self._is_open:
            raise TracewireError("a trace of this tracer is open already: end it first, or use another tracer")
        self._is_open = True
        try:
            recorder = self._start()
            recorder.discard()
        except BaseException:
            self._is_open = False
            raise
        return recorder

    def _run_in_child(self, work: Callable[[], Any]) -> Any:
        recorder = self._begin()
        context = multiprocessing.get_context("fork")  # closures run in the child, too
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(recorder, work, theirs))
        try:
            child.start()
            theirs.close()
            outcome = _outcome(ours, child, self.subprocess_timeout)
        finally:
            _stop(child)
            ours.close()
            try:
                self._spans = self._read(recorder)
            finally:
                self._is_open = False
        succeeded, value = outcome
        if succeeded:
            return value
        raise value

    def _read(self, recorder: Recorder) -> list[ReadableSpan]:
        exchanges = [one for one in recorder.new_exchanges(at_end=True)
                     if one["attributes"].get("http.request.method", "CONNECT") != "CONNECT"]  # fmt: skip
        return [self._convert(one) for one in exchanges]

    def _convert(self, exchange: dict[str, Any]) -> ReadableSpan:
        """Make a span with the names of 0.2's tracer."""
        found = exchange["attributes"]
        url, method = str(found.get("url.full", "")), str(found["http.request.method"])
        start, end = exchange["start_time"], exchange["end_time"]
        attributes: dict[str, Any] = {
            "http.method": method,
            "http.url": url,
            "http.target": urlsplit(url).path,
            "http.host": urlsplit(url).netloc,
            "http.duration_ms": (end - start) * 1000,
        }
        code = found.get("http.response.status_code")
        if code:
            attributes["http.status_code"] = code
        for name, value in found.items():
            if name.startswith(("http.request.header.", "http.response.header.")):
                attributes[name] = ", ".join(value)
        for side in ("request", "response"):
            content = found.get(f"http.{side}.body.content")
            if self.include_body and content is not None:
                attributes[f"http.{side}.body"] = content
        for name in ("gen_ai.response.id", "prompt_token_ids", "response_token_ids"):
            if name in found:
                attributes[name] = found[name]
        failed = exchange["status"]["status_code"] == "ERROR" or not code
        trace_id, span_id = int(exchange["trace_id"], 16), int(exchange["span_id"], 16)
        return ReadableSpan(
            name=f"HTTP {method} {url}",
            context=SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)),
            kind=SpanKind.CLIENT,
            status=Status(StatusCode.ERROR if failed else StatusCode.OK),
            start_time=int(start * 1e9),
            end_time=int(end * 1e9),
            attributes=attributes,
        )


def _child(recorder: Recorder, work: Callable[[], Any], theirs: Connection) -> None:
    """Run in the child process. A group of its own, so that stopping it stops what it started."""
    os.setpgid(0, 0)
    recorder.apply_environment()
    outcome: tuple[bool, Any]
    try:
        outcome = (True, work())
    except BaseException as error:  # noqa: BLE001 - raised again in the parent
        outcome = (False, error)
    try:
        pickle.loads(pickle.dumps(outcome))  # noqa: S301 - our own
    except Exception as error:  # noqa: BLE001 - pickle raises what classes raise
        what = "result" if outcome[0] else f"exception {outcome[1]!r}"
        cure = "return plain data, or use subprocess_mode=False"
        outcome = (False, TracewireError(f"the {what} of the traced function cannot be pickled ({error}): {cure}"))
    theirs.send(outcome)
    theirs.close()


def _outcome(ours: Connection, child: Any, timeout: float) -> tuple[bool, Any]:
    if not ours.poll(timeout):
        return False, TimeoutError(
            f"Subprocess execution timed out after {timeout} seconds: raise subprocess_timeout, or find out what hangs"
        )
    try:
        outcome: tuple[bool, Any] = ours.recv()
    except EOFError:
        child.join(5)
        code = child.exitcode
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        return False, ChildProcessError(f"the traced function ended its process ({how}) before it returned")
    return outcome


def _stop(child: Any) -> None:
    if child.pid is not None:
        child.join(0.2)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.join()


def _set_active(tracer: HttpTracer | None) -> None:
    """Tell 0.3's emitters which tracer is active; 0.2 has no such thing."""
    if _IS_0_2:
        return
    from agentlightning.tracer.base import clear_active_tracer, set_active_tracer  # noqa: PLC0415 - not in 0.2

    if tracer is None:
        clear_active_tracer()
    else:
        set_active_tracer(tracer)
