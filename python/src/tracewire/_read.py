"""Reads rollouts and training data from an API server, over REST with the standard library.

Answers are plain dicts and lists as the server sends them (docs/spans.md, docs/trajectories.md). A whole answer is held
in memory: for very large stores use `tracewire export`.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from tracewire._errors import TracewireError

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_SERVER = "http://127.0.0.1:4747"
_TIMEOUT_S = 60
# The API server is reached directly: a proxy of the environment may be the very one that records.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def trace(
    rollout: str, *, attempt: str | None = None, server: str = DEFAULT_SERVER, token: str | None = None
) -> list[dict[str, Any]]:
    """Return the spans of a rollout in order: those of one attempt, or else of all its attempts.

    LookupError if the store has no such rollout or attempt.
    """
    answer = request(f"/v1/tracewire/export?{urlencode({'format': 'json', 'rollout': rollout})}", server, token)
    attempts = [json.loads(line) for line in answer.splitlines() if line.strip()]
    chosen = [one for one in attempts if attempt in (None, (one.get("attempt") or {}).get("attempt_id"))]
    if not chosen:
        what = f"no rollout {rollout}" if not attempts else f"no attempt {attempt} of rollout {rollout}"
        raise LookupError(f"the store of {server} has {what}")
    return [span for one in chosen for span in one["spans"]]


def trajectories(
    rollouts: str | Sequence[str] | None = None,
    *,
    shape: str = "trajectories",
    query: str | None = None,
    status: str | None = None,
    frame: str | None = None,
    server: str = DEFAULT_SERVER,
    token: str | None = None,
) -> Any:
    """Return training data: of the named rollouts, of those that match a query or have a status, or of all.

    `shape` is a format of `tracewire export` that is written as JSON lines. `frame` is "pandas" or "arrow" for a table
    (if that package is installed); without it, the rows are dicts.
    """
    if frame not in (None, "pandas", "arrow"):
        raise ValueError(f'frame is {frame!r}; use "pandas", "arrow" or None')
    if query is not None and (rollouts is not None or status is not None):
        raise ValueError("query stands in place of rollouts and status: pass only one of them")
    fields: list[tuple[str, str]] = [("format", shape)]
    names = [rollouts] if isinstance(rollouts, str) else list(rollouts or [])
    fields += [("rollout", name) for name in names]
    fields += [(name, value) for name, value in (("q", query), ("status", status)) if value is not None]
    lines = request(f"/v1/tracewire/export?{urlencode(fields)}", server, token).splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines if line.strip()]
    if frame == "pandas":
        import pandas  # noqa: ICN001, PLC0415 - only if asked for

        return pandas.DataFrame(rows)
    if frame == "arrow":
        import pyarrow  # noqa: ICN001, PLC0415 - only if asked for

        return pyarrow.Table.from_pylist(rows)
    return rows


def spans_for_agent_lightning(rollout: str, server: str, token: str | None) -> list[dict[str, Any]]:
    """Return the spans of a rollout in the shape that Agent Lightning's adapters read; none if it does not exist."""
    answer = request(f"/v1/agl/spans?{urlencode({'rollout_id': rollout, 'limit': -1})}", server, token)
    items: list[dict[str, Any]] = json.loads(answer)["items"]
    return items


def rollout_ids(server: str, token: str | None) -> list[str]:
    """Return the ids of all rollouts."""
    items = json.loads(request("/v1/agl/rollouts?limit=-1", server, token))["items"]
    return [item["rollout_id"] for item in items]


def remove(rollout: str, server: str, token: str | None) -> None:
    """Delete a rollout and its spans. A rollout that does not exist is no error."""
    request(f"/api/rollouts/{quote(rollout, safe='')}", server, token, method="DELETE")


def metrics(server: str, token: str | None) -> dict[str, float]:
    """Return the metrics without labels, by their names."""
    lines = request("/metrics", server, token).splitlines()
    plain = (line.split() for line in lines if line and not line.startswith("#") and "{" not in line)
    return {name: float(value) for name, value, *_ in plain}


def request(path: str, server: str, token: str | None = None, *, method: str = "GET") -> str:
    """Send one request to the API server, and return the body of its answer."""
    token = token or os.environ.get("TRACEWIRE_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    call = urllib.request.Request(server.rstrip("/") + path, headers=headers, method=method)
    try:
        with _OPENER.open(call, timeout=_TIMEOUT_S) as answer:
            body: bytes = answer.read()
            return body.decode()
    except urllib.error.HTTPError as error:
        detail = error.read().decode(errors="replace").strip()
        hint = "; pass token=, or set TRACEWIRE_TOKEN" if error.code in (401, 403) else ""
        raise TracewireError(f"{server} answered {error.code}: {detail}{hint}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise TracewireError(
            f"no answer from {server}: {reason}. Start `tracewire serve`, or pass the address of a running one"
        ) from error
