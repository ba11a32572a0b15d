"""Fills a server with rollouts as agents leave them: for the tests of the web page, and for its pictures.

    python3 tests/ui/sample.py http://127.0.0.1:4747 [STORE]

With the file of the store, the rollouts are moved into the past: their times can't be given by the API. The same data each time,
apart from the time. Needs nothing but Python.
"""

import json
import random
import sqlite3
import sys
import time
import urllib.request

HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\u202egnp.exe\u200b \x1b[31mred\x1b[0m javascript:alert(1)"


def call(server, method, path, body):
    data = json.dumps(body).encode()
    request = urllib.request.Request(server + path, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request) as response:
        text = response.read()
    return json.loads(text) if text else None


class Recorder:
    """One rollout with its spans."""

    def __init__(self, server, rollout, task, begin, seed):
        self.server, self.rollout, self.begin, self.now = server, rollout, begin, begin
        self.random = random.Random(seed)
        self.sequence = 0
        call(server, "POST", "/api/rollouts", [{"rollout_id": rollout, "input": task}])
        call(server, "PATCH", f"/api/rollouts/{rollout}", {"status": {"state": "running", "last_attempt_id": "at-1"}})

    def wait(self, least, most):
        self.now += self.random.uniform(least, most)

    def span(self, name, attributes, seconds, parent=None, error=None, moves=True, kind="CLIENT"):
        self.sequence += 1
        begin = self.now
        identity = f"{self.random.getrandbits(64) | 1:016x}"
        span = {
            "rollout_id": self.rollout, "attempt_id": "at-1", "sequence_id": self.sequence, "trace_id": f"{self.random.getrandbits(128) | 1:032x}",
            "span_id": identity, "parent_id": parent, "name": name, "kind": kind,
            "status": {"status_code": "UNSET" if error is None else "ERROR", "description": error or None}, "attributes": attributes,
            "events": [], "links": [], "start_time": begin, "end_time": begin + seconds, "context": None, "parent": None,
            "resource": {"attributes": {}, "schema_url": ""},
        }
        call(self.server, "POST", "/v1/agl/spans", span)
        if moves:
            self.now = begin + seconds
        return identity

    def llm(self, model, messages, answer, seconds, **more):
        usage = sum(len(json.dumps(message)) for message in messages) // 4
        attributes = {
            "gen_ai.operation.name": "chat", "gen_ai.request.model": model, "gen_ai.response.model": model, "tracewire.dialect": "openai.chat",
            "http.request.method": "POST", "url.full": "https://api.example.test/v1/chat/completions", "server.address": "api.example.test",
            "http.response.status_code": 200, "http.request.body.size": usage * 4, "http.response.body.size": len(json.dumps(answer)),
            "gen_ai.usage.input_tokens": usage, "gen_ai.usage.output_tokens": max(3, len(json.dumps(answer)) // 4),
            "gen_ai.input.messages": json.dumps(messages), "gen_ai.output.messages": json.dumps([answer]),
            "gen_ai.response.finish_reasons": [answer.get("finish_reason", "stop")], "tracewire.call.role": "main", "tracewire.client.name": "support-agent",
            "tracewire.timing.connect_ms": 11.2, "tracewire.timing.tls_ms": 18.7, "tracewire.timing.response_headers_ms": seconds * 420,
            "tracewire.timing.first_body_byte_ms": seconds * 430, "gen_ai.response.time_to_first_chunk": seconds * 0.43, "tracewire.response.chunks": 41,
            "tracewire.response.chunk_gap_p50_ms": 12.5, "tracewire.response.chunk_gap_max_ms": 88.0, "tracewire.response.chunk_counts": [4, 3, 4, 3, 3, 4, 0, 0, 1, 4, 3, 3, 2, 3, 2, 2], "tracewire.connection.reused": False,
            "network.protocol.version": "2", "tls.protocol.version": "1.3", "tracewire.outcome": "complete",
            "tracewire.sampling": json.dumps({"temperature": 0.7, "top_p": 0.95, "max_tokens": 2048}), **more,
        }
        if self.sequence == 0 or "gen_ai.system_instructions" not in attributes:
            attributes["gen_ai.system_instructions"] = json.dumps([{"type": "text", "content": SYSTEM}])
            attributes["gen_ai.tool.definitions"] = json.dumps(TOOLS)
        return self.span(f"chat {model}", attributes, seconds)

    def http(self, method, url, seconds, status=200, size=1800, error=None, **more):
        attributes = {"http.request.method": method, "url.full": url, "server.address": url.split("/")[2], "http.response.body.size": size,
                      "tracewire.timing.first_body_byte_ms": seconds * 800, "tracewire.timing.response_headers_ms": seconds * 780, "network.protocol.version": "1.1", **more}
        if status:
            attributes["http.response.status_code"] = status
        if error:
            attributes.update({"error.type": error[0], "tracewire.outcome": "failed"})
        elif status >= 400:
            attributes["error.type"] = str(status)
        return self.span(method, attributes, seconds, error=error[1] if error else "" if status >= 400 else None)

    def reward(self, value, name="primary"):
        self.span("agentlightning.annotation", {"agentlightning.reward.0.name": name, "agentlightning.reward.0.value": value}, 0.001)

    def end(self, state):
        call(self.server, "PATCH", f"/api/rollouts/{self.rollout}", {"status": {"state": state}})


def text(content):
    return {"type": "text", "content": content}


def user(content):
    return {"role": "user", "parts": [text(content)]}


def uses(identity, name, arguments, thinking=None):
    parts = ([{"type": "reasoning", "content": thinking}] if thinking else []) + [{"type": "tool_call", "id": identity, "name": name, "arguments": arguments}]
    return {"role": "assistant", "parts": parts, "finish_reason": "tool_calls"}


def result(identity, response):
    return {"role": "tool", "parts": [{"type": "tool_call_response", "id": identity, "response": response}]}


def says(content):
    return {"role": "assistant", "parts": [text(content)], "finish_reason": "stop"}


SYSTEM = "You are the support agent of a small shop. Look up orders before you promise anything. A refund needs an order that is paid and at most 30 days old. Answer in the customer's language, briefly."
TOOLS = [
    {"type": "function", "name": "get_order", "description": "Looks up an order by its number", "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}},
    {"type": "function", "name": "search", "description": "Searches the manual of the shop", "parameters": {"type": "object", "properties": {"query": {"type": "string"}}}},
    {"type": "function", "name": "refund", "description": "Pays an order back", "parameters": {"type": "object", "properties": {"order": {"type": "string"}, "amount": {"type": "number"}}}},
]
TASKS = [
    ("Where is my refund for order 4711? I sent the shoes back two weeks ago.", "4711", 79.9),
    ("The lamp of order 1138 arrived broken. Can I have a new one?", "1138", 34.5),
    ("Please cancel order 2001, I ordered it twice by accident.", "2001", 12.0),
    ("Ich habe meine Rechnung für Bestellung 3030 verloren. Können Sie sie noch einmal schicken?", "3030", 58.0),
]


def tokens(recorder, length, sampled):
    return [recorder.random.randrange(200, 151_000) for _ in range(length)], [recorder.random.randrange(200, 151_000) for _ in range(sampled)]


def stream(text, count):
    """The body of a response with the texts of its tokens, as engines stream it."""
    pieces = [text[at * len(text) // count:(at + 1) * len(text) // count] for at in range(count)]
    chunks = []
    for at, piece in enumerate(pieces):
        others = [{"token": "\n", "logprob": -0.05, "bytes": [10]}, {"token": piece, "logprob": -3.1, "bytes": list(piece.encode())}]
        token = {"token": piece, "logprob": -0.2, "bytes": list(piece.encode()), "top_logprobs": others if at == 0 else []}
        chunks.append(json.dumps({"choices": [{"index": 0, "delta": {"content": piece}, "logprobs": {"content": [token]}}]}))
    return "".join(f"data: {chunk}\n\n" for chunk in [*chunks, "[DONE]"])


def support(server, number, begin, end="succeeded", model="qwen3-8b"):
    """An agent that looks an order up, and answers."""
    question, order, amount = TASKS[number % len(TASKS)]
    recorder = Recorder(server, f"ro-support-{number:02}", {"question": question, "id": f"task-{order}"}, begin, number)
    messages = [user(question)]
    prompt, sampled = tokens(recorder, 340, 24)
    logprobs = lambda count: [-abs(recorder.random.gauss(0, 0.9)) for _ in range(count)]
    ids = lambda prompt, sampled: {"prompt_token_ids": prompt, "response_token_ids": sampled, "tracewire.response_logprobs": logprobs(len(sampled)), "tracewire.tokens.status": "exact", "tracewire.policy.version": str(12 + number // 8)}
    answer = uses("call_1", "get_order", {"order": order}, "The customer names an order. I look it up before I say anything about money.")
    parent = recorder.llm(model, messages, answer, recorder.random.uniform(0.6, 1.9), **ids(prompt, sampled))
    recorder.wait(0.01, 0.05)
    order_text = json.dumps({"order": order, "paid": True, "total": amount, "returned": "2026-10-30", "status": "refund pending"})
    recorder.span("execute_tool get_order", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "get_order", "gen_ai.tool.call.id": "call_1", "gen_ai.tool.call.arguments": json.dumps({"order": order}), "gen_ai.tool.call.result": order_text}, 0.31, parent=parent, moves=False)
    recorder.http("GET", f"https://orders.example.test/v2/orders/{order}?expand=payments", recorder.random.uniform(0.1, 0.3), size=912)
    messages += [answer, result("call_1", order_text)]
    if number % 5 == 3:
        recorder.http("GET", "https://manual.example.test/search?q=refund+deadline", 0.42, status=503, size=120)
        recorder.wait(0.2, 0.4)
        recorder.http("GET", "https://manual.example.test/search?q=refund+deadline", 0.21, size=5400)
    added, more = tokens(recorder, 60, 31 + number)
    # Every fourth agent renders its history anew, with other ids.
    whole = [*prompt[:200], *tokens(recorder, 170, 0)[0], *added] if number % 4 == 2 else prompt + sampled + added
    if end == "failed":
        recorder.llm(model, messages, says("I am sorry, something went wrong."), 2.2, **{"tracewire.tokens.status": "none"})
        recorder.http("POST", "https://payments.example.test/refunds", 3.02, status=None, size=0, error=("connection_refused", "Connection refused (os error 111)"))
        recorder.reward(0.0)
        recorder.end("failed")
        return recorder
    if number % 3 == 1:
        again = uses("call_2", "refund", {"order": order, "amount": amount})
        recorder.llm(model, messages, again, recorder.random.uniform(0.5, 1.4), **ids(whole, more))
        recorder.http("POST", "https://payments.example.test/refunds", recorder.random.uniform(0.2, 0.5), status=201, size=220)
        messages += [again, result("call_2", '{"refund": "rf_881", "state": "paid"}')]
        prompt, sampled = tokens(recorder, 40, 20)
        whole, more = whole + more + prompt, sampled
    text = f"Your refund of {amount} € for order {order} was paid back today. It takes two days until your bank shows it."
    body = {"http.response.body.content": stream(text, len(more))} if number % 5 == 0 else {}
    recorder.llm(model, messages, says(text), recorder.random.uniform(0.8, 2.4), **ids(whole, more), **body)
    recorder.reward(round(recorder.random.choice([0.0, 0.25, 0.5, 1.0, 1.0]), 2))
    recorder.end(end)
    return recorder


def team(server, begin):
    """An agent with sub-agents, retries and much traffic of its own."""
    recorder = Recorder(server, "ro-team", {"task": "Find out why the nightly build of the shop is red, and mend it."}, begin, 99)
    recorder.span("claude-code", {"process.command": "claude", "process.exit.code": 0}, 94, moves=False, kind="INTERNAL")
    messages = [user("Find out why the nightly build of the shop is red, and mend it.")]
    for turn in range(14):
        tool = ["Bash", "Read", "Grep", "Edit"][turn % 4]
        answer = uses(f"toolu_{turn}", tool, {"command": f"cargo test --package shop-{turn}"} if tool == "Bash" else {"path": f"src/orders/part_{turn}.rs"}, "The failing test names the module; I read it before I change anything." if turn % 3 == 0 else None)
        parent = recorder.llm("claude-sonnet-4-5", messages, answer, recorder.random.uniform(1.2, 4.5), **{"tracewire.client.name": "claude-code", "gen_ai.usage.cache_read.input_tokens": 9000})
        if turn == 4:
            for helper in range(2):
                inner = [user(f"Search the history for changes of the price rounding, part {helper + 1}.")]
                for step in range(4):
                    sub = uses(f"sub_{helper}_{step}", "Grep", {"pattern": "round_price"})
                    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "claude-haiku-4-5", "gen_ai.response.model": "claude-haiku-4-5", "tracewire.dialect": "anthropic.messages", "tracewire.call.role": "subagent", "gen_ai.agent.name": f"explore-{helper + 1}", "http.request.method": "POST", "url.full": "https://api.example.test/v1/messages", "server.address": "api.example.test", "http.response.status_code": 200, "gen_ai.usage.input_tokens": 2100 + step * 400, "gen_ai.usage.output_tokens": 160, "gen_ai.input.messages": json.dumps(inner), "gen_ai.output.messages": json.dumps([sub]), "gen_ai.response.finish_reasons": ["tool_calls"]}
                    recorder.span("chat claude-haiku-4-5", attributes, recorder.random.uniform(0.5, 1.6), parent=parent)
                    inner += [sub, result(f"sub_{helper}_{step}", "src/price.rs:41: fn round_price(cents: i64) -> i64 {")]
        recorder.span(f"execute_tool {tool}", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": tool}, recorder.random.uniform(0.1, 2.5), parent=parent)
        if turn % 3 == 1:
            recorder.http("GET", f"https://index.crates.example.test/sh/op/shop-{turn}", 0.12, size=20_400)
            recorder.http("GET", f"https://ci.example.test/api/builds/{8800 + turn}/log", 0.55, size=184_000)
        if turn == 9:
            recorder.http("POST", "https://api.example.test/v1/messages", 0.2, status=429, size=160)
            recorder.wait(1.5, 2.5)
        messages += [answer, result(f"toolu_{turn}", "error[E0308]: mismatched types\n  --> src/price.rs:44:9\n   |\n44 |         cents / 5 * 5\n   |         ^^^^^^^^^^^^^ expected `Cents`, found `i64`" if turn % 2 == 0 else "ok. 118 passed; 0 failed")]
    recorder.llm("claude-sonnet-4-5", messages, says("The build was red because `round_price` returned `i64` after the change of types in `orders`. I wrapped it in `Cents`, and all 118 tests pass:\n\n```rust\npub fn round_price(cents: Cents) -> Cents {\n    Cents(cents.0 / 5 * 5)\n}\n```"), 3.1, **{"tracewire.client.name": "claude-code"})
    recorder.reward(1.0)
    recorder.reward(0.8, "style")
    recorder.end("succeeded")


def hostile(server, begin):
    """Text that wants to be more than text."""
    recorder = Recorder(server, "ro-hostile", {"question": HOSTILE}, begin, 7)
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    parts = [text(HOSTILE), {"type": "blob", "modality": "image", "mime_type": "image/png", "content": pixel}, {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "bm90IGFuIGltYWdl"},
             {"type": "blob", "modality": "image", "mime_type": "image/svg+xml", "content": "PHN2ZyBvbmxvYWQ9ImFsZXJ0KDEpIi8+"}, {"type": "uri", "modality": "image", "uri": "https://tracker.example.test/pixel.png"}, {"type": HOSTILE, "x": 1}]
    recorder.llm(HOSTILE[:80], [{"role": HOSTILE, "parts": parts}, {"role": "user", "parts": [text("long " * 400_000)]}], uses(HOSTILE, HOSTILE, {HOSTILE: HOSTILE}, HOSTILE), 1.0, **{"url.full": "https://" + HOSTILE, "http.request.header.x-evil": HOSTILE, "http.request.body.content": HOSTILE, "http.response.body.content": "not json {", "gen_ai.agent.name": HOSTILE})
    recorder.http("GET", "https://x.example.test/" + HOSTILE, 0.1, status=None, error=(HOSTILE, HOSTILE))
    recorder.span(HOSTILE, {"gen_ai.operation.name": "chat", "gen_ai.input.messages": "{broken", "gen_ai.output.messages": "[1, null, {\"parts\": 5}]"}, -5, parent="no-such-parent")
    recorder.end("failed")


def empty(server, begin):
    Recorder(server, "ro-without-spans", {"question": "Nothing happens here."}, begin, 1)


def fill(server, now):
    """All of it; returns the time at which each rollout begins and ends."""
    times = {}
    for number in range(26):
        begin = now - 3600 + number * 130
        model = "qwen3-8b" if number % 7 else "qwen3-32b"
        recorder = support(server, number, begin, "failed" if number in (5, 14, 21) else "succeeded", model)
        times[recorder.rollout] = (begin, recorder.now)
    team(server, now - 140)
    times["ro-team"] = (now - 140, now - 40)
    hostile(server, now - 4000)
    times["ro-hostile"] = (now - 4000, now - 3998)
    empty(server, now - 20)
    times["ro-without-spans"] = (now - 20, None)
    return times


def age(store, times):
    """Moves the rollouts to the times of their spans."""
    with sqlite3.connect(store, timeout=30) as connection:
        for rollout, (begin, end) in times.items():
            connection.execute("UPDATE rollout SET start_ns = ?2, json = json_set(json, '$.start_time', ?3, '$.end_time', ?4) WHERE rollout_id = ?1",
                               (rollout, int(begin * 1e9), begin, end))


if __name__ == "__main__":
    moments = fill(sys.argv[1].rstrip("/"), time.time())
    if len(sys.argv) > 2:
        age(sys.argv[2], moments)
