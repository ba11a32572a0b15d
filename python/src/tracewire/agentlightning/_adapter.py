"""Training data from traces in which an instrumentation has recorded the same calls as the proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentlightning.adapter import TraceAdapter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentlightning.types import Span

_RESPONSE_ID = "gen_ai.response.id"


class OneSpanPerCall(TraceAdapter):  # type: ignore[misc] # Agent Lightning is not typed for mypy
    """Another adapter, which sees one span of each call: that of the proxy, or the first if the proxy has none.

    Agent Lightning's adapters for triplets do this by themselves; `TraceToMessages` does not.
    """

    def __init__(self, adapter: Any) -> None:
        super().__init__()
        self.adapter = adapter

    def adapt(self, source: Sequence[Span], /) -> Any:
        """Adapt the spans that remain. The children of a span that is left out belong to its parent."""
        return self.adapter.adapt(one_span_per_call(source))


def one_span_per_call(source: Sequence[Span]) -> list[Span]:
    """Leave out spans of calls that another span has recorded, too. The spans of the proxy all stay.

    A server may give several responses one id.
    """
    kept: dict[str, Span] = {}
    for span in source:
        response = span.attributes.get(_RESPONSE_ID)
        if response is not None and (response not in kept or (_is_exchange(span) and not _is_exchange(kept[response]))):
            kept[response] = span
    chosen = {span.span_id for span in kept.values()}
    parents = {
        span.span_id: span.parent_id
        for span in source
        if span.attributes.get(_RESPONSE_ID) in kept and span.span_id not in chosen and not _is_exchange(span)
    }
    remaining = []
    for span in source:
        if span.span_id in parents:
            continue
        parent = span.parent_id
        for _ in parents:  # at most all of them: ids that others chose may form a circle
            if parent not in parents:
                break
            parent = parents[parent]
        remaining.append(span if parent == span.parent_id else span.model_copy(update={"parent_id": parent}))
    return remaining


def _is_exchange(span: Span) -> bool:
    return "http.request.method" in span.attributes
