"""A LangChain callback handler that makes OpenTelemetry spans of chains, tools, retrievers and model calls.

Only names, errors and the tree are recorded: the content of a model call is on the span of its HTTP call. Works with
`langchain-core`, and with the `langchain` of before it; run ids of LangChain give the parents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import opentelemetry.trace as trace_api

if TYPE_CHECKING:
    from collections.abc import Callable

_KINDS = ("chain", "tool", "retriever", "llm")


def langchain_handler(tracer: Callable[[], trace_api.Tracer]) -> Any:  # noqa: C901 - one class and its methods
    """Return a handler; ImportError that names the cure if LangChain is not installed."""
    try:
        from langchain_core.callbacks.base import BaseCallbackHandler  # noqa: PLC0415 - may not be installed
    except ImportError:
        try:
            from langchain.callbacks.base import BaseCallbackHandler  # noqa: PLC0415
        except ImportError as error:
            raise ImportError("LangChain is not installed: pip install langchain-core") from error

    class Handler(BaseCallbackHandler):  # type: ignore[misc] # not typed
        """Spans named `langchain.KIND.NAME`."""

        run_inline = True  # in the caller's context, also in asyncio

        def __init__(self) -> None:
            super().__init__()
            self._open: dict[Any, trace_api.Span] = {}

        def on_chat_model_start(self, serialized: Any, messages: Any, **about: Any) -> None:  # noqa: ARG002
            self._start("llm", serialized, **about)

        def _start(
            self, kind: str, serialized: Any, *_: Any, run_id: Any, parent_run_id: Any = None, **about: Any
        ) -> None:
            serialized = serialized or {}
            label = about.get("name") or serialized.get("name") or (serialized.get("id") or [kind])[-1]
            parent = self._open.get(parent_run_id)
            context = trace_api.set_span_in_context(parent) if parent is not None else None
            attributes = {f"langchain.{kind}.type": str(label), "langchain.run_id": str(run_id)}
            name = f"langchain.{kind}.{label}"
            self._open[run_id] = tracer().start_span(name, context=context, attributes=attributes)

        def _end(self, *_: Any, run_id: Any, **_about: Any) -> None:
            span = self._open.pop(run_id, None)
            if span is not None:
                span.end()

        def _error(self, error: BaseException, *_: Any, run_id: Any, **_about: Any) -> None:
            span = self._open.pop(run_id, None)
            if span is not None:
                span.record_exception(error)
                span.set_status(trace_api.StatusCode.ERROR, str(error))
                span.end()

    for kind in _KINDS:
        setattr(Handler, f"on_{kind}_start", _starter(kind))
        setattr(Handler, f"on_{kind}_end", Handler._end)  # noqa: SLF001
        setattr(Handler, f"on_{kind}_error", Handler._error)  # noqa: SLF001
    return Handler()


def _starter(kind: str) -> Callable[..., None]:
    def start(self: Any, serialized: Any, *content: Any, **about: Any) -> None:
        self._start(kind, serialized, *content, **about)

    return start
