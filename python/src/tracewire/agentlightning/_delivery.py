"""The HTTP spans of a trace on their way into the runner's store. None is forgotten before the store has it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from agentlightning.store.base import LightningStore
    from agentlightning.types import Span

logger = logging.getLogger(__name__)

STORE_TIMEOUT_S = 30.0

_Result = TypeVar("_Result")


class _Batch:
    """Spans that were read together."""

    def __init__(self, spans: list[Span]) -> None:
        self.spans = spans
        self.has_ids = False


class Delivery:
    """The HTTP spans of one trace: all that were read, and those that the store does not have yet."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._unstored: deque[_Batch] = deque()
        self._turn = asyncio.Lock()

    def add(self, spans: list[Span], *, is_stored: bool) -> None:
        """Keep spans, and note those that are to be stored."""
        self.spans += spans
        if spans and is_stored:
            self._unstored.append(_Batch(spans))

    def count_unstored(self) -> int:
        """Return how many the store has not confirmed."""
        return sum(len(one.spans) for one in list(self._unstored))

    async def store(self, store: LightningStore) -> None:
        """Give the store what it lacks, after the call under way. What it does not take stays, for the next call.

        All calls must be in one event loop.
        """
        async with self._turn:
            while self._unstored:
                try:
                    await _store(self._unstored[0], store)
                except Exception:  # a store that is away must not fail the rollout
                    logger.exception(
                        "The store did not take %d HTTP spans. get_last_trace() has them", self.count_unstored()
                    )
                    return
                self._unstored.popleft()


async def _store(batch: _Batch, store: LightningStore) -> None:
    """Store spans with sequence ids of the store; all spans of one call share theirs."""
    spans = batch.spans
    if not batch.has_ids:
        calls = sorted({span.sequence_id for span in spans})
        pairs = [(span.rollout_id, span.attempt_id) for span in spans[:1]] * len(calls)
        issued = dict(zip(calls, await store.get_many_span_sequence_ids(pairs), strict=True))
        for span in spans:
            span.sequence_id = issued[span.sequence_id]
        batch.has_ids = True
    await store.add_many_spans(spans)


async def to_its_end(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Await `work` even if this task is cancelled meanwhile; then raise that cancellation."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:  # noqa: BLE001 - of the task, raised below
            break
    if cancelled is not None and not task.cancelled() and task.exception() is None:
        raise cancelled
    return task.result()
