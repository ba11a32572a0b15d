"""Measures the web page: python3 bench/ui.py SERVER PID [--rollouts N] [--spans N] [--long N,N] [--tokens N] [--filled] [--page FOLDER]

Fills SERVER with rollouts, some that are long, and a call with many tokens; then opens the page in Chromium, and prints a table. PID is
the server's. --filled: SERVER has all of that already. --page: Chromium gets the files of the page from FOLDER instead of SERVER, to
try changes of them without building the program; the figures are then a little too high. bench/ui does all of it.
"""

import argparse
import gzip
import json
import os
import random
import statistics
import sys
import threading
import time
import urllib.parse
import urllib.request

from playwright.sync_api import sync_playwright

WORDS = "order refund shipping invoice customer broken lamp shoes address cancel policy answer search manual total amount price night build test error path value state".split()
RESULTS = []
# The program has them in itself.
PAGE = os.path.join(os.path.dirname(__file__), "../src/api/ui/page")


def request(path, body=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", **(headers or {})}
    with urllib.request.urlopen(urllib.request.Request(ARGS.server + path, data, headers)) as response:
        return response.read()


def text(random_source, words):
    return " ".join(random_source.choice(WORDS) for _ in range(words))


def chat(random_source, history, attributes):
    said = [{"role": "user", "parts": [{"type": "text", "content": one}]} for one in history]
    answer = [{"role": "assistant", "parts": [{"type": "text", "content": text(random_source, 40)}], "finish_reason": "stop"}]
    return {"gen_ai.operation.name": "chat", "gen_ai.request.model": "bench-model", "tracewire.client.name": "bench", "server.address": "api.example.test", "http.request.method": "POST",
            "gen_ai.usage.input_tokens": 900, "gen_ai.usage.output_tokens": 60, "gen_ai.input.messages": json.dumps(said), "gen_ai.output.messages": json.dumps(answer), **attributes}


def value(one):
    if isinstance(one, bool) or isinstance(one, str):
        return {"stringValue": str(one)}
    if isinstance(one, int):
        return {"intValue": str(one)}
    return {"arrayValue": {"values": [{"intValue": str(item)} if isinstance(item, int) else {"doubleValue": item} for item in one]}}


def otlp_span(random_source, name, attributes, begin, seconds, failed=False):
    return {"traceId": f"{random_source.getrandbits(128) | 1:032x}", "spanId": f"{random_source.getrandbits(64) | 1:016x}", "name": name, "kind": 3,
            "startTimeUnixNano": str(int(begin * 1e9)), "endTimeUnixNano": str(int((begin + seconds) * 1e9)), "status": {"code": 2, "message": "it failed"} if failed else {},
            "attributes": [{"key": key, "value": value(one)} for key, one in attributes.items()]}


def resource_spans(rollout, spans):
    attributes = [{"key": "agentlightning.rollout_id", "value": {"stringValue": rollout}}, {"key": "agentlightning.attempt_id", "value": {"stringValue": "at-1"}}]
    return {"resource": {"attributes": attributes}, "scopeSpans": [{"spans": spans}]}


def send(*rollouts):
    request("/v1/traces", {"resourceSpans": [resource_spans(rollout, spans) for rollout, spans in rollouts]})


def spans_of(count, begin, seed, special=None):
    """Every fourth span is a call of a model, the others are of its tools and its other traffic."""
    source = random.Random(seed)
    history = [text(source, 30)]
    for number in range(count):
        at = begin + number * 0.5
        if number % 4 == 0:
            history = [*history[-8:], f"{text(source, 25)} {special if special and number == 0 else ''}"]
            yield otlp_span(source, "chat bench-model", chat(source, history, {}), at, 0.4, failed=number % 97 == 96)
        elif number % 4 == 1:
            yield otlp_span(source, "execute_tool search", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search", "gen_ai.tool.call.result": text(source, 20)}, at, 0.1)
        else:
            yield otlp_span(source, "GET", {"http.request.method": "GET", "url.full": f"https://world.example.test/{number}", "server.address": "world.example.test", "http.response.status_code": 200}, at, 0.05)


def fill_many(now):
    each, batch, size = max(1, ARGS.spans // ARGS.rollouts), [], 0
    for number in range(ARGS.rollouts):
        spans = list(spans_of(each, now - 86_400 + number * 86_000 / ARGS.rollouts, number, "zeppelin" if number % 500 == 7 else None))
        batch.append((f"ro-{number:06}", spans))
        size += len(spans)
        if size >= 1000 or number + 1 == ARGS.rollouts:
            send(*batch)
            batch, size = [], 0
        if number % 10_000 == 9999:
            print(f"  {(number + 1) * each:,} spans", file=sys.stderr, flush=True)


def fill_rollout(rollout, count, begin, seed):
    batch = []
    for span in spans_of(count, begin, seed):
        batch.append(span)
        if len(batch) == 1000:
            send((rollout, batch))
            batch = []
    send((rollout, batch))


def fill_tokens(now):
    source = random.Random(3)
    prompt, sampled = [source.randrange(150_000) for _ in range(ARGS.tokens - 2000)], [source.randrange(150_000) for _ in range(2000)]
    arrays = {"prompt_token_ids": prompt, "response_token_ids": sampled, "tracewire.response_logprobs": [-source.random() for _ in sampled], "tracewire.tokens.status": "exact"}
    send(("ro-tokens", [otlp_span(source, "chat bench-model", chat(source, ["count"], arrays), now, 2)]))


def note(name, measured, bound):
    RESULTS.append((name, measured, bound))
    print(f"{name:<58} {measured:>16}   {bound}", flush=True)


def timed(path):
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        request(path)
        times.append((time.perf_counter() - begin) * 1000)
    return f"{statistics.median(times):.0f} ms ({max(times):.0f})"


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def until(page, condition, begin):
    page.wait_for_function(condition, polling=5)
    return (time.perf_counter() - begin) * 1000


# What a reader sees first is there when the condition holds and a frame has been painted.
PAINTED = """(condition) => new Promise((done) => {
    const there = () => document.querySelector(condition) ? requestAnimationFrame(() => setTimeout(() => done(performance.now() - performance.getEntriesByType('navigation')[0].responseStart))) : requestAnimationFrame(there);
    there();
})"""


def painted(page, address, condition, times=5):
    """Milliseconds from the first byte of the page until a part of it is painted: in a new document each time."""
    taken = []
    for _ in range(times):
        page.goto("about:blank")
        page.goto(f"{ARGS.server}/ui/#/{address}", wait_until="commit")
        taken.append(page.evaluate(PAINTED, condition))
    return f"{statistics.median(taken):.0f} ms ({max(taken):.0f})"


def heap(page):
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    used = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}["JSHeapUsedSize"]
    session.detach()
    return used / 1e6


def tab_memory():
    """What Chromium's largest process for pages has for itself alone."""
    sizes = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if b"--type=renderer" in open(f"/proc/{pid}/cmdline", "rb").read():
                sizes.append(sum(int(line.split()[1]) for line in open(f"/proc/{pid}/smaps_rollup") if line.startswith("Private_")))
        except OSError:
            continue
    return max(sizes, default=0) / 1000


SCROLL = """() => new Promise((done) => {
    const list = [...document.querySelectorAll('.windowed')].sort((one, other) => other.scrollHeight - one.scrollHeight)[0];
    const times = []; let last = performance.now();
    const step = (now) => { times.push(now - last); last = now; list.scrollTop += 240; times.length < 120 ? requestAnimationFrame(step) : done(times.slice(2)); };
    requestAnimationFrame(step);
})"""
WHOLE = "() => document.querySelector('.span-row') && !document.body.textContent.includes('reading ')"
TOKENS = "() => { const canvas = document.querySelector('.tokens-scroll canvas'); return canvas?.width > 0 && canvas.getContext('2d').getImageData(10, 10, 1, 1).data[3] > 0; }"


def measure_page(page):
    page.goto(f"{ARGS.server}/ui/#/connect")
    note(f"the list, with {ARGS.spans:,} spans of {ARGS.rollouts:,} rollouts", painted(page, "rollouts", ".rollout-row"), "300 ms")
    for long in ARGS.long:
        bound = "500 ms" if long <= 5000 else "1500 ms"
        note(f"a rollout of {long:,} spans", painted(page, f"rollout/ro-long-{long}", ".span-row"), bound)
        begin = time.perf_counter()
        page.goto("about:blank")
        page.goto(f"{ARGS.server}/ui/#/rollout/ro-long-{long}")
        whole = until(page, WHOLE, begin)
        if page.get_by_role("button", name="Read all").is_visible():
            note("  what it reads unasked", f"{whole:.0f} ms", "")
            begin = time.perf_counter()
            page.get_by_role("button", name="Read all").click()
            page.wait_for_function("() => document.body.textContent.includes('reading ')")
            whole = until(page, WHOLE, begin)
        note("  all of its spans", f"{whole:.0f} ms", bound if long <= 5000 else "")
        frames = page.evaluate(SCROLL)
        note("  scrolling: frames a second, slowest frame", f"{1000 / statistics.mean(frames):.0f}, {max(frames):.0f} ms", "50")
        note("  the tab: heap, process", f"{heap(page):.0f}, {tab_memory():.0f} MB", "300 MB")
    taken = []
    for _ in range(5):
        page.goto("about:blank")
        begin = time.perf_counter()
        page.goto(f"{ARGS.server}/ui/#/rollout/ro-tokens/tokens", wait_until="commit")
        taken.append(until(page, TOKENS, begin))
    note(f"a call of {ARGS.tokens:,} tokens in the token view", f"{statistics.median(taken):.0f} ms ({max(taken):.0f})", "500 ms")


def measure_live(page):
    page.goto(f"{ARGS.server}/ui/#/rollouts")
    page.wait_for_selector(".rollout-row")
    stopped = threading.Event()

    def feed():
        source, number = random.Random(5), 0
        while not stopped.wait(0.5):
            send((f"ro-live-{number // 10}", [otlp_span(source, "GET", {"http.request.method": "GET", "server.address": "live.example.test"}, time.time(), 0.01) for _ in range(100)]))
            number += 1

    feeder = threading.Thread(target=feed)
    before, idle = cpu_seconds(ARGS.pid), time.perf_counter()
    feeder.start()
    page.wait_for_timeout(10_000)
    took, used = time.perf_counter() - idle, cpu_seconds(ARGS.pid) - before
    begin = time.perf_counter()
    page.keyboard.press("/")
    page.keyboard.type("id:ro-tokens")
    page.wait_for_function("() => document.querySelectorAll('.rollout-row').length === 1")
    filtered = (time.perf_counter() - begin) * 1000
    stopped.set()
    feeder.join()
    note("200 new spans a second: processor time of the server", f"{used / took * 100:.0f} %", "10 %")
    note("filtering meanwhile", f"{filtered:.0f} ms", "")


def main():
    begin, now = time.perf_counter(), time.time()
    if not ARGS.filled:
        fill_many(now)
        for long in ARGS.long:
            fill_rollout(f"ro-long-{long}", long, now - 3600, 1_000_000 + long)
        fill_tokens(now)
        print(f"  filled in {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)

    files = (open(os.path.join(PAGE, name), "rb").read() for name in os.listdir(PAGE))
    note("size of everything served", f"{sum(len(gzip.compress(file)) for file in files) / 1000:.0f} kB", "300 kB")
    query = lambda q: f"/v1/tracewire/rollouts?limit=50&q={urllib.parse.quote(q)}"
    note("the first page of the list", timed(query("")), "50 ms")
    note("a query by an index: status:failed since:1h", timed(query("status:failed since:1h")), "50 ms")
    note("a query that looks at spans: model:other, a page", timed(query("model:other")), "")
    first = time.perf_counter()
    while json.loads(request(query("text:zeppelin"))).get("unsearched_spans"):
        time.sleep(0.2)
    note("the first search of messages, which makes the index", f"{time.perf_counter() - first:.1f} s", "")
    note("a rare word: text:zeppelin", timed(query("text:zeppelin")), "500 ms")
    note('a common phrase: text:"refund"', timed(query("text:refund")), "500 ms")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(60_000)
        if ARGS.page:
            page.route("**/ui/*.*", lambda route: route.fulfill(path=os.path.join(ARGS.page, urllib.parse.urlparse(route.request.url).path.rsplit("/", 1)[1])))
            page.route("**/ui/", lambda route: route.fulfill(path=os.path.join(ARGS.page, "index.html")))
        measure_page(page)
        measure_live(page)
        browser.close()


parser = argparse.ArgumentParser()
parser.add_argument("server")
parser.add_argument("pid", type=int)
parser.add_argument("--spans", type=int, default=100_000)
parser.add_argument("--rollouts", type=int, default=20_000)
parser.add_argument("--long", type=lambda text: [int(one) for one in text.split(",")], default=[5000])
parser.add_argument("--tokens", type=int, default=128_000)
parser.add_argument("--filled", action="store_true")
parser.add_argument("--page")
ARGS = parser.parse_args()
main()
