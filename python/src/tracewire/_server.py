"""Starts `tracewire serve` for this program, and commands behind it.

The process ends with this one, however this one ends: a small shell holds a pipe, and stops it when the pipe closes.
POSIX only. Every start costs some tens of milliseconds: keep one server for many rollouts.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

from tracewire import _read
from tracewire._binary import find_binary
from tracewire._errors import TracewireError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 15.0
# Runs the program until the pipe on stdin closes. stdout is closed here, so that its end is that of the program.
_SUPERVISOR = 'exec 3<&0; "$@" 3<&- & child=$!; exec >&-; read -r _ <&3; kill "$child" 2>/dev/null; wait "$child"'
_ServerType = TypeVar("_ServerType", bound="Server")


class Server:
    """A running proxy and API server. Close it, or use it in a `with` statement."""

    proxy_url: str
    """Where clients send their requests, as HTTP proxy."""
    api_url: str
    """The API server: REST, OTLP, the LLM gateway and the web page."""
    ca: str
    """The file with the CA certificate that clients must trust."""
    token: str | None
    """The token of the API server, if it wants one."""
    proxy_token: str | None
    """The token of the proxy, if it wants one."""

    def __init__(
        self,
        *arguments: str,
        proxy: str = "127.0.0.1:0",
        server: str = "127.0.0.1:0",
        store: str | os.PathLike[str] | None = None,
        config: str | os.PathLike[str] | None = None,
        home: str | os.PathLike[str] | None = None,
        include_headers: bool = False,
        include_bodies: bool = False,
    ) -> None:
        self._pid = os.getpid()
        self._binary = find_binary()
        self._home = home
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - lives as long as the server
        command = [self._binary, "serve", "--json", "--proxy", proxy, "--server", server]
        command += [part for name, value in (("--store", store), ("--config", config)) if value is not None
                    for part in (name, os.fspath(value))]  # fmt: skip
        command += ["--include-headers"] if include_headers else []
        command += ["--include-bodies"] if include_bodies else []
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SUPERVISOR, "sh", *command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=self._own_environment(),
            start_new_session=True,  # Ctrl-C is for this program, which then closes the server
        )
        try:
            self._read_addresses()
        except BaseException:
            self.close()
            raise

    def _own_environment(self) -> dict[str, str]:
        environment = {"TRACEWIRE_LOG": "error", **os.environ}
        if self._home is not None:
            environment["TRACEWIRE_HOME"] = os.fspath(self._home)
        return environment

    def _read_addresses(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        ready, _, _ = select.select([self._process.stdout], [], [], _START_TIMEOUT_S)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            self._errors.seek(0)
            said = self._errors.read().strip()
            raise TracewireError(
                said or f"tracewire serve has not started within {_START_TIMEOUT_S:.0f} s: is the machine overloaded?"
            )
        addresses = json.loads(line)
        self.proxy_url = f"http://{addresses['proxy']}"
        self.api_url = f"http://{addresses['server']}"
        self.ca = addresses["ca"]
        self.token = _token(addresses.get("server_token_file"))
        self.proxy_token = _token(addresses.get("proxy_token_file"))

    def proxy_url_for(self, rollout: str | None = None, attempt: str | None = None) -> str:
        """Return the proxy's URL with the ids of a rollout in it; what goes through it belongs to that rollout."""
        if rollout is None and self.proxy_token is None:
            return self.proxy_url
        name = rollout or "tracewire"
        if attempt is not None:
            name += f".{attempt}"
        return self.proxy_url.replace("http://", f"http://{name}:{self.proxy_token or 'x'}@", 1)

    def environment_changes(
        self, rollout: str | None = None, attempt: str | None = None
    ) -> tuple[dict[str, str], list[str]]:
        """Return the variables that lead clients through the proxy: those to set, and those to remove."""
        command = [self._binary, "env", "--format", "json", "--proxy", self.proxy_url_for(rollout, attempt)]
        done = subprocess.run(
            [*command, "--ca", self.ca], env=self._own_environment(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise TracewireError(done.stderr.strip())
        changes = json.loads(done.stdout)
        variables: dict[str, str] = changes["set"]
        if rollout is not None:
            variables["TRACEWIRE_ROLLOUT_ID"] = rollout
        if attempt is not None:
            variables["TRACEWIRE_ATTEMPT_ID"] = attempt
        return variables, list(changes["unset"])

    def environment(self, rollout: str | None = None, attempt: str | None = None) -> dict[str, str]:
        """Return the environment of a child process: this one's, with what leads clients through the proxy."""
        variables, removed = self.environment_changes(rollout, attempt)
        environment = {name: value for name, value in os.environ.items() if name not in removed}
        return {**environment, **variables}

    def trace(self, rollout: str, *, attempt: str | None = None) -> list[dict[str, Any]]:
        """Return the spans of a rollout, as `tracewire.trace` does."""
        return _read.trace(rollout, attempt=attempt, server=self.api_url, token=self.token)

    def trajectories(self, rollouts: str | Sequence[str] | None = None, **options: Any) -> Any:
        """Return training data, as `tracewire.trajectories` does."""
        return _read.trajectories(rollouts, server=self.api_url, token=self.token, **options)

    def is_running(self) -> bool:
        """Return whether the program runs, and was started by this process."""
        if self._pid != os.getpid() or self._process.poll() is not None or self._process.stdout is None:
            return False
        # The shell outlives the program, and waits for the end of stdin; stdout ends with the program.
        end = select.poll()
        end.register(self._process.stdout, 0)  # only its end
        return not end.poll(0)

    def close(self) -> None:
        """Let exchanges in flight finish, store everything, and stop the process. A second call does nothing."""
        if self._pid != os.getpid() or self._process.stdin is None:
            return  # a forked child: the server is its parent's
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            _kill_group(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def __enter__(self: _ServerType) -> _ServerType:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Run(Server):
    """A command behind a proxy of its own. What it does on the network is recorded under `rollout` and `attempt`."""

    process: subprocess.Popen[Any]
    """The command."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        rollout: str | None = None,
        attempt: str | None = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.rollout = rollout or f"ro-{uuid.uuid4().hex[:12]}"
        self.attempt = attempt or f"at-{uuid.uuid4().hex[:8]}"
        try:
            self.process = subprocess.Popen(
                list(command),
                cwd=cwd,
                env={**self.environment(self.rollout, self.attempt), **(env or {})},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,  # so that stopping it stops what it started, too
            )
        except BaseException:
            super().close()
            raise

    @property
    def returncode(self) -> int | None:
        """The exit code of the command, negative after a signal; None while it runs."""
        return self.process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the command, and return its exit code. subprocess.TimeoutExpired after `timeout` seconds."""
        return self.process.wait(timeout)

    def spans(self) -> list[dict[str, Any]]:
        """Return the spans that the command has left so far; none if it has made no call."""
        deadline = time.monotonic() + 1.0  # the last spans are stored some 40 ms after their responses
        while True:
            try:
                return self.trace(self.rollout, attempt=self.attempt)
            except LookupError:
                if time.monotonic() > deadline:
                    return []
                time.sleep(0.02)

    def close(self) -> None:
        """Stop the command and all that it started (SIGTERM, and SIGKILL after 2 s), then the server."""
        if self._pid == os.getpid():
            _kill_group(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                _kill_group(self.process.pid, signal.SIGKILL)
                self.process.wait()
        super().close()


def _kill_group(group: int, how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, how)


def _token(file: str | None) -> str | None:
    if file is None:
        return None
    with open(file) as text:  # noqa: PTH123
        return text.read().strip()
