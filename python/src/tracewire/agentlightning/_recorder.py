"""The proxy of one worker process: starts it, leads this process through it, hands over what it recorded.

The proxy keeps its spans in memory, and serves one trace at a time, as Agent Lightning traces one rollout per process:
every call between two `discard`s belongs to the current trace, also one of a client that an earlier trace made.
Whatever of a trace is not recorded is logged: above all a call that is still in flight when its trace ends. Clients
that were made before `start` keep the route that they were made with.
"""

from __future__ import annotations

import atexit
import logging
import os
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracewire import _read
from tracewire._errors import TracewireError
from tracewire._server import Server
from tracewire.agentlightning._aiohttp import lead_aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

# A response ends for its client only when its span is stored, and no call passes unrecorded while the queue is full.
_SETTINGS = '[capture]\ndurability = "commit"\nwhen_full = "wait"\nown_traffic = {}\n'
# A response that the agent left unread, or an agent that was cancelled, ends for the proxy a moment later.
_IN_FLIGHT_S = 3.0
# What has ended is stored within milliseconds, unless the machine is overloaded.
_UNSTORED_S = 30.0
# A reward waits in the event loop of the agent, and other calls may end all the time.
_REWARD_S = 1.0
_POLL_S = 0.005
_ROUTES = ("http_proxy", "https_proxy", "all_proxy")
_IN_FLIGHT = "tracewire_exchanges_in_flight"
_UNSTORED = "tracewire_exchanges_unstored"
_LOSSES = {
    "tracewire_exchanges_dropped_total": "calls passed unrecorded: the queue of the proxy was full",
    "tracewire_spans_lost_total": "spans could not be stored by the proxy",
    "tracewire_bodies_truncated_total": "bodies were recorded in part",
}


class Recorder:
    """A proxy for this process and its children."""

    @classmethod
    def obtain(cls, *, include_headers: bool, include_bodies: bool, own_traffic: bool) -> Recorder:
        """Return one that is closed, or else a new one."""
        parked = _parked.setdefault((os.getpid(), include_headers, include_bodies, own_traffic), [])
        while parked:
            recorder = parked.pop()
            if recorder.unpark():
                return recorder
        return cls(include_headers=include_headers, include_bodies=include_bodies, own_traffic=own_traffic)

    def __init__(self, *, include_headers: bool, include_bodies: bool, own_traffic: bool) -> None:
        self._pid = os.getpid()
        self._key = (self._pid, include_headers, include_bodies, own_traffic)
        self._is_parked = False
        self._identity = f"python-{uuid.uuid4().hex[:12]}"
        self._previous: dict[str, str | None] = {}
        self._seen: set[str] = set()
        self._began = 0.0
        self._lost: dict[str, float] = {}
        self._lock = threading.Lock()
        with tempfile.TemporaryDirectory(prefix="tracewire-") as folder:
            settings = Path(folder) / "proxy.toml"
            settings.write_text(_SETTINGS.format(str(own_traffic).lower()))
            self._server = Server(
                store="memory:", config=settings, include_headers=include_headers, include_bodies=include_bodies
            )
        try:
            self._changes = self._server.environment_changes(self._identity, "0")
        except BaseException:
            self._server.close()
            raise

    def unpark(self) -> bool:
        """Take it into use again, if its proxy still runs; else end what is left of it."""
        self._is_parked = False
        if self._server.is_running():
            return True
        self._server.close()
        return False

    def renewed(self) -> Recorder:
        """Return this one, or another one if its proxy has ended."""
        if self._server.is_running():
            return self
        logger.error("The proxy of this process has ended, and another one is started: make clients again")
        self.close()
        _, include_headers, include_bodies, own_traffic = self._key
        return Recorder.obtain(include_headers=include_headers, include_bodies=include_bodies, own_traffic=own_traffic)

    def apply_environment(self) -> None:
        """Lead clients that this process and its children make from now on through the proxy.

        A second call sets only the proxies again, if the program has changed them.
        """
        variables, removed = self._changes
        changes: dict[str, str | None] = {**variables, **dict.fromkeys(removed)}
        # Agent Lightning names the rollout itself.
        changes.pop("TRACEWIRE_ROLLOUT_ID", None)
        changes.pop("TRACEWIRE_ATTEMPT_ID", None)
        for name, value in changes.items():
            if name not in self._previous:
                self._previous[name] = os.environ.get(name)
            elif os.environ.get(name) == value or name.lower() not in _ROUTES:
                continue  # what the program has made of the others is its own
            else:
                logger.warning("%s was changed by the program, and leads through the proxy again", name)
            _set(name, value)
        lead_aiohttp()

    def restore_environment(self) -> None:
        """Undo `apply_environment`, except where the program has changed a variable since."""
        variables, _ = self._changes
        for name, value in self._previous.items():
            if os.environ.get(name) == variables.get(name):
                _set(name, value)
        self._previous.clear()

    def check_process(self) -> None:
        """Raise if this process is a forked child of the one that started the proxy."""
        if self._pid != os.getpid():
            raise TracewireError(
                f"the tracer was initialized in process {self._pid}, and this is {os.getpid()}: "
                "call init_worker() in every process that traces"
            )

    def is_of_this_process(self) -> bool:
        """Return whether this process started the proxy."""
        return self._pid == os.getpid()

    def discard(self) -> None:
        """Forget everything recorded so far: a new trace begins."""
        counted = self._settled()
        with self._lock:
            self._lost = {name: counted[name] for name in _LOSSES}
            # Calls of an earlier trace may still be in flight: they do not belong to the new one.
            self._began = time.time() if counted[_IN_FLIGHT] else 0.0
            self._seen.clear()
            for rollout in self._rollouts():
                _read.remove(rollout, self._server.api_url, self._server.token)

    def new_spans(self, *, at_end: bool = False) -> list[dict[str, Any]]:
        """Return the spans since the last call or `discard`, in the shape that Agent Lightning's adapters read.

        Their sequence ids count from 1 in each answer; all spans of one call share theirs.
        """
        return self._take(
            lambda rollout: _read.spans_for_agent_lightning(rollout, self._server.api_url, self._server.token),
            at_end=at_end,
        )

    def new_exchanges(self, *, at_end: bool = False) -> list[dict[str, Any]]:
        """Return the same as Tracewire stores them: one span per exchange, with its headers and bodies."""
        return self._take(self._server.trace, at_end=at_end)

    def _rollouts(self) -> list[str]:
        # Some clients send the proxy's credentials only once per connection: their other requests are in rollouts that
        # the proxy made up. All are of this process.
        return _read.rollout_ids(self._server.api_url, self._server.token)

    def _take(self, read: Callable[[str], list[dict[str, Any]]], *, at_end: bool) -> list[dict[str, Any]]:
        counted = self._settled(_IN_FLIGHT_S) if at_end else self._settled(unstored_s=_REWARD_S)
        with self._lock:
            self._log_missing(counted, at_end=at_end)
            found = [span for rollout in self._rollouts() for span in read(rollout)]
            spans = [span for span in found if span["span_id"] not in self._seen and span.get("end_time")]
            self._seen.update(span["span_id"] for span in spans)
        late = [span for span in spans if span["start_time"] < self._began]
        if late:
            logger.warning("%d HTTP spans of calls that began before this trace are in no trace", len(late))
            spans = [span for span in spans if span["start_time"] >= self._began]
        spans.sort(key=lambda span: span["start_time"])
        order: dict[tuple[str, int], int] = {}
        for span in spans:
            span["sequence_id"] = order.setdefault((span["rollout_id"], span["sequence_id"]), len(order) + 1)
        return sorted(spans, key=lambda span: span["sequence_id"])

    def _metrics(self) -> dict[str, float]:
        return _read.metrics(self._server.api_url, self._server.token)

    def _settled(self, in_flight_s: float = 0.0, *, unstored_s: float = _UNSTORED_S) -> dict[str, float]:
        """Wait for what is in flight, and until what has ended is stored. Return the metrics of then."""
        start = time.monotonic()
        while True:
            counted = self._metrics()
            waited = time.monotonic() - start
            awaits_end = counted[_IN_FLIGHT] and waited < in_flight_s
            if not awaits_end and (not counted[_UNSTORED] or waited > unstored_s):
                return counted
            time.sleep(_POLL_S)

    def _log_missing(self, counted: dict[str, float], *, at_end: bool) -> None:
        if at_end and counted[_IN_FLIGHT]:
            logger.warning(
                "%d HTTP calls were still in flight when the trace ended, and are not in it: await them in the rollout",
                counted[_IN_FLIGHT],
            )
        if at_end and counted[_UNSTORED]:
            logger.error(
                "%d HTTP calls are not stored after %.0f s, and may be missing: is the machine overloaded?",
                counted[_UNSTORED],
                _UNSTORED_S,
            )
        for name, what in _LOSSES.items():
            if counted[name] > self._lost.get(name, 0.0):
                logger.error("%d %s", counted[name] - self._lost.get(name, 0.0), what)
                self._lost[name] = counted[name]

    def close(self) -> None:
        """Give this process its variables back. The proxy stays: clients that use it may live longer than a tracer.

        Its spans are removed. Those of later calls stay in its memory until a tracer takes it into use again.
        """
        self.restore_environment()
        if self._pid != os.getpid() or self._is_parked:
            return
        if not self._server.is_running():
            self._server.close()
            return
        with suppress(TracewireError):
            self.discard()
        self._is_parked = True
        _parked.setdefault(self._key, []).append(self)


# Recorders without a tracer, by process and settings. Their proxies end with this process.
_parked: dict[tuple[int, bool, bool, bool], list[Recorder]] = {}


def _stop_parked() -> None:
    for recorders in _parked.values():
        for recorder in recorders:
            recorder._server.close()  # noqa: SLF001 - of this module


atexit.register(_stop_parked)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
