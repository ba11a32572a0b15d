"""A real HTTP origin for the tests, and the variables of the machine kept out of them."""

from __future__ import annotations

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

for name in [*os.environ]:
    if name.lower().endswith("_proxy"):
        del os.environ[name]


class Origin(BaseHTTPRequestHandler):
    """Answers chat completions with token ids, and everything else with an echo."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    calls = 0
    slow_calls = 0
    hanging_calls = 0
    released = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/hang":
            Origin.hanging_calls += 1
            self.rfile.read(1)
        if self.path == "/slow":
            Origin.slow_calls += 1
            time.sleep(0.4)
        if self.path == "/hang-until-released":
            Origin.hanging_calls += 1
            Origin.released.wait(60)
        self.answer({"path": self.path, "headers": dict(self.headers)})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])) or "null")
        if not self.path.endswith("/chat/completions"):
            return self.answer({"json": body})
        Origin.calls += 1
        message = {"role": "assistant", "content": "hello"}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "token_ids": [3, 4, Origin.calls]}
        return self.answer(
            {
                "id": f"chatcmpl-{Origin.calls}",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [choice],
                "prompt_token_ids": [1, 2],
                "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
            }
        )

    def answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def origin():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    os.environ["TRACEWIRE_HOME"] = str(tmp_path_factory.mktemp("home"))
    os.environ.setdefault("AGENTOPS_API_KEY", "")


@pytest.fixture
def tracer():
    from tracewire.agentlightning import TracewireTracer

    tracer = TracewireTracer()
    with tracer.lifespan():
        yield tracer
