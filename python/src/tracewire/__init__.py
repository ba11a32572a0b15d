"""Tracewire from Python: start the recording proxy, run commands behind it, read back what was recorded.

    import tracewire

    with tracewire.run(["python3", "agent.py"]) as run:
        run.wait()
        for span in run.spans():
            print(span["name"], span["attributes"].get("http.response.status_code"))

`tracewire.agentlightning` has tracers for Agent Lightning. No dependencies; POSIX only.
"""

from __future__ import annotations

from tracewire._binary import find_binary
from tracewire._errors import TracewireError
from tracewire._read import trace, trajectories
from tracewire._server import Run, Server

serve = Server
"""Start `tracewire serve` on free ports: `with tracewire.serve(store="traces.db") as server: ...`."""

run = Run
"""Start a command behind a proxy of its own: `with tracewire.run(["python3", "agent.py"]) as run: run.wait()`."""

__all__ = ["Run", "Server", "TracewireError", "find_binary", "run", "serve", "trace", "trajectories"]
