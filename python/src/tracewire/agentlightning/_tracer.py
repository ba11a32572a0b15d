"""Tracers for Agent Lightning 0.3: its own in-process tracers, with every HTTP call of the agent added by the proxy.

The spans of emitters, operations and OpenTelemetry instrumentations go where Agent Lightning's tracer sends them. The
spans of calls go to the same store, before each reward and at the end of the trace, below the span of the trace. One
trace per process is open at a time, as there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import opentelemetry.trace as trace_api
from agentlightning.tracer.agentops import AgentOpsTracer
from agentlightning.tracer.base import get_active_tracer
from agentlightning.tracer.otel import LightningSpanProcessor, OtelTracer
from agentlightning.types import Span
from agentlightning.utils.otlp import LightningStoreOTLPExporter
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tracewire._errors import TracewireError
from tracewire.agentlightning._delivery import STORE_TIMEOUT_S, Delivery, to_its_end
from tracewire.agentlightning._langchain import langchain_handler
from tracewire.agentlightning._recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from agentlightning.store.base import LightningStore
    from agentlightning.types import Attributes, SpanCoreFields, TraceStatus
    from opentelemetry.sdk.trace import ReadableSpan

logger = logging.getLogger(__name__)

_REWARD = "agentlightning.reward"
_RESPONSE_ID = "gen_ai.response.id"
_TOKEN_IDS = ("prompt_token_ids", "response_token_ids", "logprobs.content")
# Spans beyond these are not seen if they are not ended.
_MAX_OPEN = 65_536
# A slower export holds the agent once, and no further time in its trace.
_MAX_EXPORT_S = 1.0


class _RecordsHttp:
    """What both tracers add to the one that they extend. Holds nothing that cannot be pickled before init_worker."""

    _store: LightningStore | None
    _tracer_provider: Any
    _lightning_span_processor: LightningSpanProcessor | None

    def __init__(
        self,
        *args: Any,
        include_headers: bool = False,
        include_body: bool = False,
        include_agentlightning_requests: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.include_headers = include_headers
        self.include_body = include_body
        self.include_agentlightning_requests = include_agentlightning_requests
        self._recorder: Recorder | None = None
        self._trace: _Trace | None = None
        self._delivery = Delivery()
        self._ids = _TokenIds()

    def init_worker(self, worker_id: int, store: LightningStore | None = None) -> None:
        """Start the worker's proxy, and lead this process through it until teardown_worker."""
        if self._recorder is not None:
            if self._recorder.is_of_this_process():
                raise TracewireError("init_worker() was called twice: call teardown_worker() first")
            self._recorder.restore_environment()  # a forked child has its parent's
            self._ids.detach()
            self._initialized = False
        self._recorder = Recorder.obtain(
            include_headers=self.include_headers,
            include_bodies=self.include_body,
            own_traffic=self.include_agentlightning_requests,
        )
        try:
            super().init_worker(worker_id, store)  # type: ignore[misc] # of the tracer that is extended
        except BaseException:
            self._recorder.close()
            self._recorder = None
            raise
        self._ids.attach(self)
        self._recorder.apply_environment()

    def teardown_worker(self, worker_id: int) -> None:
        """Give the process its environment back. The proxy runs on, for its clients. The last trace stays readable."""
        super().teardown_worker(worker_id)  # type: ignore[misc] # of the tracer that is extended
        self._ids.detach()
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    @asynccontextmanager
    async def trace_context(
        self,
        name: str | None = None,
        *,
        store: LightningStore | None = None,
        rollout_id: str | None = None,
        attempt_id: str | None = None,
    ) -> AsyncGenerator[trace_api.Tracer, None]:
        """Record everything until the end of the block under a rollout and an attempt, or for get_last_trace only."""
        recorder = self._require_recorder()
        if get_active_tracer() is not None:
            raise ValueError(
                "An active tracer is already set: a trace is open in this process, and Agent Lightning allows one at a "
                "time. End that trace first, or trace in another process"
            )
        self._recorder = recorder = await to_its_end(asyncio.to_thread(recorder.renewed))
        recorder.apply_environment()  # an earlier agent may have changed it
        for processor in self._exporting():
            # Agent Lightning leaves that of an earlier trace on. The store of that trace may be gone.
            processor.span_exporter.disable_store_otlp()
        await to_its_end(asyncio.to_thread(recorder.discard))
        context = super().trace_context(name, store=store, rollout_id=rollout_id, attempt_id=attempt_id)  # type: ignore[misc]
        try:
            async with context as tracer:
                self._delivery = Delivery()
                self._ids.forget_open_spans()
                with tracer.start_as_current_span(name or rollout_id or "trace") as root:
                    self._trace = _Trace(store or self._store, rollout_id, attempt_id, root.get_span_context())
                    try:
                        yield tracer
                    finally:
                        try:
                            self._ids.end_open_spans(root)
                            await to_its_end(self._finish(self._trace))
                        finally:
                            self._trace = None
        finally:
            await to_its_end(asyncio.to_thread(self._flush))
        if not self._delivery.spans:
            logger.warning(
                "No HTTP call was recorded in the trace %s. If the agent made one, its client was probably made before "
                "init_worker(), or ignores proxy variables: make it in the rollout. `tracewire doctor` tries clients",
                name or rollout_id,
            )

    def create_span(
        self,
        name: str,
        attributes: Attributes | None = None,
        timestamp: float | None = None,
        status: TraceStatus | None = None,
    ) -> SpanCoreFields:
        """Record a span. The calls before a reward are stored before it: adapters match them by their order."""
        self._require_recorder()
        if self._trace is not None and any(str(key).startswith(_REWARD) for key in attributes or {}):
            self._store_now(self._trace)
        return super().create_span(name, attributes, timestamp, status)  # type: ignore[misc]

    def get_last_trace(self) -> list[Span]:
        """Return the spans of the last trace, in the order of their starts."""
        spans: list[Span] = [*super().get_last_trace(), *self._delivery.spans]  # type: ignore[misc]
        return sorted(spans, key=lambda span: span.start_time or 0.0)

    def call_of(self, response_id: str) -> Span | None:
        """Return the HTTP call with this response, if it was recorded in the open trace; it is stored then."""
        if self._trace is None:
            return None
        self._store_now(self._trace)
        calls = [span for span in self._delivery.spans if span.attributes.get(_RESPONSE_ID) == response_id]
        return calls[0] if calls else None

    def _require_recorder(self) -> Recorder:
        if self._recorder is None:
            raise TracewireError(
                f"{type(self).__name__} is not initialized, or was torn down: call init_worker() first, "
                "or use `with tracer.lifespan(store):`"
            )
        self._recorder.check_process()
        return self._recorder

    def _store_now(self, trace: _Trace) -> None:
        self._export_earlier(trace)
        try:
            self._collect(trace)
        except Exception:  # a proxy that is away must not fail the agent
            logger.exception("The HTTP calls so far could not be read from the proxy")
        if not self._deliver(trace):
            logger.warning(
                "The store has not taken the HTTP spans within %.0f s: it may get them later than the reward",
                STORE_TIMEOUT_S,
            )

    def _deliver(self, trace: _Trace) -> bool:
        """Give the store what it lacks. Return False if it does not answer in time; the delivery goes on then."""
        processor, store = self._lightning_span_processor, trace.store_if_named()
        if store is None or processor is None or not self._delivery.count_unstored():
            return True
        try:
            # The loop that Agent Lightning's own processor waits on: the caller may be inside another.
            processor._await_in_loop(self._delivery.store(store), timeout=STORE_TIMEOUT_S)  # noqa: SLF001
        except (TimeoutError, FutureTimeoutError):  # two classes before Python 3.11
            return False
        return True

    async def _finish(self, trace: _Trace) -> None:
        try:
            await asyncio.to_thread(self._collect, trace, at_end=True)
        finally:
            if not await asyncio.to_thread(self._deliver, trace):
                logger.error(
                    "The store has not taken %d HTTP spans within %.0f s, and may never. get_last_trace() has them",
                    self._delivery.count_unstored(),
                    STORE_TIMEOUT_S,
                )

    def _flush(self) -> None:
        """Export what waits for the store. Agent Lightning would export it later, as of the next rollout."""
        for processor in self._exporting():
            if processor.force_flush() is False:
                logger.error("The store did not take all spans of the trace: %r", processor.span_exporter)

    def _export_earlier(self, trace: _Trace) -> None:
        """Export what ended before the calls that are stored now: adapters match rewards by the order in the store."""
        if not trace.exports_in_order:
            return
        begun = time.monotonic()
        done = [processor.force_flush() is not False for processor in self._exporting()]
        if not all(done) or time.monotonic() - begun > _MAX_EXPORT_S:
            trace.exports_in_order = False  # a store that is slow or away must not hold the agent at each call
            logger.warning("The store takes spans too slowly: those of this trace may come after later calls")

    def _exporting(self) -> list[Any]:
        """Return the processors that export to the store over OTLP."""
        processors = self._tracer_provider._active_span_processor._span_processors  # noqa: SLF001
        return [
            one for one in processors if isinstance(getattr(one, "span_exporter", None), LightningStoreOTLPExporter)
        ]

    def _collect(self, trace: _Trace, *, at_end: bool = False) -> None:
        """Read what the proxy has recorded since the last time."""
        found = self._require_recorder().new_spans(at_end=at_end)
        if not self.include_agentlightning_requests and trace.store is not None:
            endpoint = _endpoint(trace.store)
            found = [span for span in found if not _is_request_to(span, endpoint)]
        known = {span["span_id"] for span in found} | {span.span_id for span in self._delivery.spans}
        spans = [trace.adopt(span, known) for span in found]
        self._delivery.add(spans, is_stored=trace.store_if_named() is not None)


class _TokenIds(SpanProcessor):  # type: ignore[misc] # OpenTelemetry is not seen by mypy
    """Gives the token ids of a recorded call to the span that an instrumentation made of the same call.

    Adapters count a call once, and take the first of its spans. This processor comes before those that store the span.
    """

    def __init__(self) -> None:
        self._tracer: _RecordsHttp | None = None
        self._processors: Any = None
        self._open: dict[int, Any] = {}
        self._is_full = False

    def attach(self, tracer: _RecordsHttp) -> None:
        """Join the processors of the tracer's provider, in front."""
        self._tracer = tracer
        self._processors = tracer._tracer_provider._active_span_processor  # noqa: SLF001
        self._processors._span_processors = (self, *self._processors._span_processors)  # noqa: SLF001

    def detach(self) -> None:
        """Leave them."""
        if self._processors is not None:
            others = tuple(one for one in self._processors._span_processors if one is not self)  # noqa: SLF001
            self._processors._span_processors = others  # noqa: SLF001
        self._tracer = self._processors = None
        self._open.clear()

    def on_start(self, span: Any, parent_context: Any = None) -> None:  # noqa: ARG002 - of OpenTelemetry
        """Note the span, to see whether it is ended."""
        if len(self._open) < _MAX_OPEN:
            self._open[span.context.span_id] = span
        elif not self._is_full:
            self._is_full = True
            logger.warning("%d spans are open: later ones are not seen if they are not ended", _MAX_OPEN)

    def forget_open_spans(self) -> None:
        """Begin a trace: spans of others are not its own."""
        self._open.clear()
        self._is_full = False

    def end_open_spans(self, root: Any) -> None:
        """End what the agent has not ended of the trace: OpenTelemetry exports only spans that are ended."""
        trace_id = root.get_span_context().trace_id
        started = getattr(root, "start_time", 0)  # that of a root that is not sampled is unknown
        unended = [
            span
            for span in list(self._open.values())
            if span is not root and span.context.trace_id == trace_id and span.start_time >= started
        ]
        for span in unended:
            span.set_attribute("tracewire.span.unended", True)  # noqa: FBT003 - of OpenTelemetry
            span.end()
        if unended:
            names = ", ".join(sorted({span.name for span in unended})[:10])
            logger.warning("%d spans were not ended when the trace ended, and end with it: %s", len(unended), names)

    def on_end(self, span: ReadableSpan) -> None:
        """Add the ids. Whatever fails here must not fail the agent."""
        self._open.pop(span.context.span_id, None)
        attributes = span._attributes  # noqa: SLF001 - still the mutable ones, which later processors read
        known = getattr(attributes, "_dict", attributes)  # a plain dict is quicker; this runs for every span
        if self._tracer is None or not known or _TOKEN_IDS[0] in known:
            return
        try:
            response = _response_id(known)
            if response is None:
                return
            call = self._tracer.call_of(response)
            found = call.attributes if call is not None else {}
            attributes.update({name: found[name] for name in _TOKEN_IDS if name in found})
        except Exception:
            logger.exception("The span %s has no token ids", span.name)


class TracewireTracer(_RecordsHttp, OtelTracer):  # type: ignore[misc] # Agent Lightning is not typed for mypy
    """Records every HTTP call of the agent, its emitters, operations and OpenTelemetry spans, as one trace."""

    def _initialize_tracer_provider(self, worker_id: int) -> None:
        provider = trace_api.get_tracer_provider()
        if not isinstance(provider, TracerProvider):
            super()._initialize_tracer_provider(worker_id)
            return
        # Another library has made the provider of this process: its spans join the trace.
        self._tracer_provider = provider
        present = provider._active_span_processor._span_processors  # noqa: SLF001
        for processor in present:
            if isinstance(processor, LightningSpanProcessor):
                self._lightning_span_processor = processor
                if processor._loop_thread is not None and not processor._loop_thread.is_alive():  # noqa: SLF001
                    processor._loop = processor._loop_thread = None  # noqa: SLF001 - a forked child has no threads
                self._initialized = True
                return
        self._lightning_span_processor = LightningSpanProcessor()
        provider.add_span_processor(self._lightning_span_processor)
        provider.add_span_processor(SimpleSpanProcessor(LightningStoreOTLPExporter()))
        self._initialized = True

    def get_langchain_handler(self) -> Any:
        """Return a callback handler for LangChain. Its spans join the trace."""
        return langchain_handler(lambda: self._get_tracer_provider().get_tracer(__name__))


class TracewireAgentOpsTracer(_RecordsHttp, AgentOpsTracer):  # type: ignore[misc] # as above
    """Agent Lightning's AgentOpsTracer, with every HTTP call of the agent added."""


class _Trace:
    """Where the spans of the open trace go."""

    def __init__(
        self, store: LightningStore | None, rollout: str | None, attempt: str | None, root: trace_api.SpanContext
    ) -> None:
        self.store = store
        self.exports_in_order = True
        self._rollout = rollout
        self._attempt = attempt
        self._trace_id = trace_api.format_trace_id(root.trace_id)
        self._root_id = trace_api.format_span_id(root.span_id)

    def store_if_named(self) -> LightningStore | None:
        """Return the store, if the trace belongs to a rollout and an attempt."""
        return self.store if self._rollout is not None and self._attempt is not None else None

    def adopt(self, span: dict[str, Any], known: set[str]) -> Span:
        """Make a recorded span one of this trace. A parent from the agent's `traceparent` is kept."""
        parent, trace_id = span["parent_id"], span["trace_id"]
        if parent not in known and trace_id != self._trace_id:
            parent = self._root_id
        context = {"trace_id": self._trace_id, "is_remote": False, "trace_state": {}}
        return Span.model_validate(
            {
                **span,
                "rollout_id": self._rollout or "rollout-dummy",
                "attempt_id": self._attempt or "attempt-dummy",
                "trace_id": self._trace_id,
                "parent_id": parent,
                "context": {**context, "span_id": span["span_id"]},
                "parent": {**context, "span_id": parent},
            }
        )


def _response_id(attributes: Any) -> str | None:
    """Return the id of the model's response: an attribute, or in the response that OpenInference records whole."""
    response = attributes.get(_RESPONSE_ID)
    if response is None and attributes.get("openinference.span.kind") == "LLM":
        with suppress(ValueError):
            whole = json.loads(attributes.get("output.value") or "null")
            response = whole.get("id") if isinstance(whole, dict) else None
    return response if isinstance(response, str) else None


def _endpoint(store: LightningStore) -> str | None:
    try:
        endpoint = store.otlp_traces_endpoint()
    except Exception:  # noqa: BLE001 - a store that is no server raises what it likes
        return None
    return urlsplit(endpoint).netloc if isinstance(endpoint, str) else None


def _is_request_to(span: dict[str, Any], endpoint: str | None) -> bool:
    url = span["attributes"].get("url.full")
    return endpoint is not None and isinstance(url, str) and urlsplit(url).netloc == endpoint
