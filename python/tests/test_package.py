"""The package itself: finding the program, servers, commands, and reading back. Needs no Agent Lightning."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import tracewire

CALL = "import sys, urllib.request as u; u.urlopen(sys.argv[1]).read()"


def test_the_program_starts_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "tracewire", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tracewire ")


def test_a_program_that_is_missing_is_named(monkeypatch) -> None:
    monkeypatch.setenv("TRACEWIRE_BINARY", "/nowhere/tracewire")
    with pytest.raises(tracewire.TracewireError, match="TRACEWIRE_BINARY names /nowhere/tracewire"):
        tracewire.serve(store="memory:")


def test_a_command_is_recorded(origin, tmp_path) -> None:
    with tracewire.run([sys.executable, "-c", CALL, f"{origin}/seen"], store=tmp_path / "traces.db") as run:
        assert run.wait(60) == 0
        (span,) = run.spans()
    assert span["attributes"]["url.full"] == f"{origin}/seen"
    assert (span["rollout_id"], span["attempt_id"]) == (run.rollout, run.attempt)
    # What is stored outlives the run.
    with tracewire.serve(store=tmp_path / "traces.db") as server:
        assert tracewire.trace(run.rollout, server=server.api_url)[0]["span_id"] == span["span_id"]


def test_a_command_that_hangs_is_stopped(origin) -> None:
    code = CALL + "; import time; time.sleep(600)"
    with tracewire.run([sys.executable, "-c", code, f"{origin}/seen"], store="memory:") as run:
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(3)
        assert run.returncode is None
    assert run.returncode == -15


def test_a_command_that_does_not_exist() -> None:
    with pytest.raises(FileNotFoundError):
        tracewire.run(["/nowhere/agent"], store="memory:")


def test_environment_and_ids_of_children(origin) -> None:
    with tracewire.serve(store="memory:") as server:
        environment = server.environment("ro-1", "at-1")
        assert environment["TRACEWIRE_ROLLOUT_ID"] == "ro-1"
        for _ in range(2):
            subprocess.run([sys.executable, "-c", CALL, f"{origin}/child"], env=environment, check=True)
        assert os.path.isfile(server.ca)
        spans = []
        while len(spans) < 2:
            try:
                spans = server.trace("ro-1", attempt="at-1")
            except LookupError:
                continue
        assert [span["sequence_id"] for span in spans] == [1, 2]
        with pytest.raises(LookupError, match="no attempt at-2"):
            server.trace("ro-1", attempt="at-2")
        with pytest.raises(LookupError, match="no rollout ro-2"):
            server.trace("ro-2")


def test_trajectories_are_rows(origin) -> None:
    with tracewire.serve(store="memory:") as server:
        environment = server.environment("ro-1", "at-1")
        body = '{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
        code = (
            "import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], sys.argv[2].encode(),"
            "{'content-type': 'application/json'})).read()"
        )
        url = f"{origin}/v1/chat/completions"
        subprocess.run([sys.executable, "-c", code, url, body], env=environment, check=True)
        rows = []
        while not rows:
            rows = server.trajectories("ro-1")
        assert rows[0]["rollout_id"] == "ro-1"
        with pytest.raises(ValueError, match="frame"):
            server.trajectories(frame="csv")
        if "pandas" in sys.modules or _has("pandas"):
            assert len(server.trajectories("ro-1", frame="pandas")) == len(rows)


def _has(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def test_a_port_in_use_is_named() -> None:
    with tracewire.serve(store="memory:") as server:
        taken = server.proxy_url.removeprefix("http://")
        with pytest.raises(tracewire.TracewireError, match=f"cannot listen on {taken}"):
            tracewire.serve(store="memory:", proxy=taken)


def test_a_server_that_is_away_is_named() -> None:
    with tracewire.serve(store="memory:") as server:
        away = server.api_url
    with pytest.raises(tracewire.TracewireError, match="Start `tracewire serve`"):
        tracewire.trace("ro-1", server=away)


def test_a_server_with_tokens(tmp_path) -> None:
    with tracewire.serve("--secure", store="memory:", home=tmp_path) as server:
        assert server.trajectories() == []
        with pytest.raises(tracewire.TracewireError, match="pass token="):
            tracewire.trajectories(server=server.api_url)
