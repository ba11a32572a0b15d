"""The web page in Chromium, as people use it: python3 tests/ui/page_test.py SERVER SERVER_WITH_TOKENS

SERVER has the rollouts of sample.py; the other one wants the token `whole-token`. CHROMIUM is the browser, and SCREENSHOTS a folder
for pictures of each view. Every test fails if the page logs an error, or asks for anything outside of its server.
"""

import json
import os
import socket
import sys
import threading
import time
import traceback
import urllib.parse
import urllib.request

from playwright.sync_api import Error, expect, sync_playwright

SERVER, CLOSED = sys.argv[1].rstrip("/"), sys.argv[2].rstrip("/")
SHOTS = os.environ.get("SCREENSHOTS")
TESTS = []
HOSTILE_NAME = "<b>x</b>"


def test(width=1280, height=800, scheme="light", server=SERVER):
    def register(function):
        TESTS.append((function, width, height, scheme, server))
        return function
    return register


def post(path, body, method="POST"):
    request = urllib.request.Request(SERVER + path, json.dumps(body).encode(), {"content-type": "application/json"}, method=method)
    urllib.request.urlopen(request).close()


def span(rollout, sequence, attributes, **fields):
    return {"rollout_id": rollout, "attempt_id": "at-1", "sequence_id": sequence, "trace_id": "1" * 32, "span_id": f"{sequence:016x}", "parent_id": None,
            "name": "chat live-model", "kind": "CLIENT", "status": {"status_code": "UNSET", "description": None}, "attributes": attributes, "events": [], "links": [],
            "start_time": 1_800_000_000 + sequence, "end_time": 1_800_000_000.5 + sequence, "context": None, "parent": None,
            "resource": {"attributes": {}, "schema_url": ""}, **fields}


def start(rollout, task):
    post("/api/rollouts", [{"rollout_id": rollout, "input": task}])
    post(f"/api/rollouts/{urllib.parse.quote(rollout)}", {"status": {"state": "running", "last_attempt_id": "at-1"}}, "PATCH")


def shot(page, name):
    if not SHOTS:
        return
    try:
        page.screenshot(path=os.path.join(SHOTS, name + ".png"))
    except Error as error:
        print(f"no picture of {name}: {error}", flush=True)


def no_overflow(page):
    wide = page.evaluate("""() => [...document.querySelectorAll('body, main, main > *, .head, .toolbar, .pane-head')]
        .filter((element) => element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).overflowX === 'visible').map((element) => element.className)""")
    assert not wide and page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"wider than the window: {wide}"


@test()
def the_list_shows_filters_and_explains(page):
    page.goto(SERVER + "/")
    expect(page).to_have_url(SERVER + "/ui/")
    row = page.locator("[data-id=ro-team]")
    expect(row).to_contain_text("nightly build")
    expect(row).to_contain_text("claude-code")
    expect(page.locator(".footer")).to_contain_text("29 rollouts")
    expect(page.locator("[data-id=ro-support-24]")).to_contain_text("sound")
    shot(page, "rollouts")
    page.keyboard.press("/")
    page.keyboard.type("status:failed model:qwen*")
    expect(page.locator(".row")).to_have_count(3)
    assert "q=status%3Afailed" in page.url, page.url
    page.locator("input[type=search]").fill('text:"was paid back" verdict:sound')
    expect(page.locator(".row").first).to_contain_text("sound")
    expect(page.locator("[data-id=ro-support-14]")).to_be_hidden()
    page.locator("input[type=search]").fill("text:refund*")
    expect(page.locator(".problem mark")).to_have_text("refund*")
    page.locator("input[type=search]").fill("modle:x")
    expect(page.locator(".problem")).to_contain_text("did you mean `model`")
    expect(page.locator(".problem mark")).to_have_text("modle")
    page.locator("input[type=search]").fill("no-such-word")
    expect(page.locator(".empty")).to_contain_text("No rollout matches")
    page.get_by_role("button", name="Clear the filter").click()
    expect(page.locator("[data-id=ro-team]")).to_be_visible()
    # An address can be sent to a colleague.
    page.goto(SERVER + "/ui/#/rollouts?q=agent%3Aclaude-code")
    page.reload()
    expect(page.locator(".row")).to_have_count(1)


@test()
def rollouts_of_one_task_stand_together(page):
    page.goto(SERVER + "/ui/#/rollouts?group=1")
    group = page.locator(".group-row", has_text="The lamp of order 1138")
    expect(group).to_contain_text("7 rollouts")
    group.click()
    expect(page.locator("[data-id=ro-support-01]")).to_be_visible()
    group.get_by_role("link", name="Compare").click()
    expect(page.locator(".compare > section")).to_have_count(2)
    expect(page.locator(".pane-head").first).to_contain_text("They part at message")
    expect(page.locator(".pane-head").nth(1)).to_contain_text("Their tokens part at prompt token 0")
    page.locator(".pane-head").nth(1).get_by_role("link").first.click()
    expect(page.locator(".branch-row").first).to_be_visible()
    page.go_back()
    expect(page.locator(".pane-head").first).to_contain_text("They part at message")
    shot(page, "compare")
    page.go_back()
    expect(page.locator(".group-row").first).to_be_visible()


@test()
def the_first_view_asks_once_and_early(page):
    asked, held = [], []
    page.on("request", lambda request: asked.append(request.url.split("/v1/tracewire/")[-1]) if "/v1/tracewire/rollouts" in request.url else None)
    page.route("**/app.js", lambda route: held.append(route))
    views = {
        "rollouts?q=model%3Aqwen*+status%3Afailed": ("[data-id=ro-support-05]", ["rollouts?limit=100&q=model%3Aqwen*+status%3Afailed"]),
        "rollout/ro-support-01": (".pane .message", ["rollouts/ro-support-01", "rollouts/ro-support-01/spans?after=0&limit=5000"]),
        "rollout/ro-support-02/tokens": (".branch-row", ["rollouts/ro-support-02", "rollouts/ro-support-02/spans?after=0&limit=5000", "rollouts/ro-support-02/calls"]),
    }
    for address, (part, expected) in views.items():
        page.goto("about:blank")
        asked.clear()
        # Early is before the modules are there.
        page.goto(f"{SERVER}/ui/#/{address}", wait_until="commit")
        for _ in range(100):
            if held and len(asked) == len(expected):
                break
            page.wait_for_timeout(50)
        assert sorted(asked) == sorted(expected), asked
        held.pop().continue_()
        expect(page.locator(part).first).to_be_visible()
        for url in expected:
            assert asked.count(url) == 1, (url, asked)
    # Another view in the same document asks for itself.
    asked.clear()
    page.evaluate("location.hash = '#/rollout/ro-support-01'")
    expect(page.locator("h1")).to_contain_text("The lamp of order 1138")
    assert "rollouts/ro-support-01" in asked, asked


@test()
def what_to_compare_is_chosen(page):
    rewards = {"ro-pair-1": 1.0, "ro-pair-2": 0.25, "ro-pair-3": 0.5}
    for rollout, reward in rewards.items():
        start(rollout, 'A task with "quotes" and * stars')
        post("/v1/agl/spans", span(rollout, 1, chat(["how are you?"], f"answer of {rollout}")))
        post("/v1/agl/spans", span(rollout, 2, {"agentlightning.reward.0.name": "primary", "agentlightning.reward.0.value": reward}, name="agentlightning.annotation"))
        post(f"/api/rollouts/{rollout}", {"status": {"state": "succeeded"}}, "PATCH")
    # Of a task, those with the highest and the lowest reward are compared unless others are chosen.
    page.goto(SERVER + "/ui/#/rollouts?group=1")
    page.locator(".group-row", has_text="A task with").get_by_role("link", name="Compare").click()
    expect(page.locator(".compare > section header")).to_contain_text(["ro-pair-1", "ro-pair-2"])
    expect(page.locator(".pane-head").first).to_contain_text("They part at message 2")
    expect(page.locator(".pane-head").first).to_contain_text("ro-pair-2 says “answer of ro-pair-2”")
    expect(page.locator(".chooser")).to_contain_text("reward 0.25")
    third, asked = page.get_by_role("checkbox", name="ro-pair-3"), []
    page.on("request", lambda request: asked.append(request.url))
    third.focus()
    page.keyboard.press("Space")
    expect(page.locator(".compare > section")).to_have_count(3)
    expect(third).to_be_focused()
    # The others are known already.
    assert any("/ro-pair-3/spans" in url for url in asked) and not any("/ro-pair-1/spans" in url or "/ro-pair-2/spans" in url for url in asked), asked
    page.get_by_role("checkbox", name="ro-pair-2").uncheck()
    expect(page.locator(".compare > section header")).to_contain_text(["ro-pair-1", "ro-pair-3"])
    assert page.url.endswith("r=ro-pair-1%2Cro-pair-3"), page.url
    shot(page, "chooser")
    page.go_back()
    expect(page.locator(".compare > section")).to_have_count(3)
    # Without a choice, each task with several rollouts is offered.
    page.get_by_role("link", name="other tasks").click()
    offered = page.locator(".chooser section", has_text="A task with")
    expect(offered.get_by_role("checkbox")).to_have_count(3)
    expect(page.locator(".chooser section", has_text="The lamp of order 1138").get_by_role("checkbox")).to_have_count(7)
    shot(page, "choose-tasks")
    offered.get_by_role("checkbox").first.check()
    offered.get_by_role("checkbox").last.check()
    expect(page.locator(".compare > section")).to_have_count(2)
    page.goto(SERVER + "/ui/#/compare?r=ro-support-01,ro-pair-1")
    expect(page.locator(".pane-head").nth(1)).to_have_text("Token ids of ro-pair-1 were not recorded, so that only messages can be compared.")
    # A rollout leads there too.
    page.goto(SERVER + "/ui/#/rollout/ro-pair-2")
    page.get_by_role("navigation", name="Parts of the rollout").get_by_role("link", name="Compare").click()
    expect(page.get_by_role("checkbox", name="ro-pair-2")).to_be_checked()
    page.get_by_role("checkbox", name="ro-pair-3").check()
    expect(page.locator(".pane-head").first).to_contain_text("They part at message 2")


@test()
def rewards_to_choose_by_are_counted_later(page):
    for rollout in ["ro-comma,1", "ro-comma,2 %"]:
        start(rollout, "A task 😀 " + "x" * 109 + "😀 with a comma")
        path = urllib.parse.quote(rollout)
        post("/v1/agl/spans", span(rollout, 1, chat(["how are you?"], f"answer of {rollout}")))
        post("/v1/agl/spans", span(rollout, 2, {"agentlightning.reward.0.name": "primary", "agentlightning.reward.0.value": 0.75}, name="agentlightning.annotation"))
        post(f"/api/rollouts/{path}", {"status": {"state": "succeeded"}}, "PATCH")
    is_counted = False

    def rows(route):
        response = route.fetch()
        page_of = response.json()
        if not is_counted:
            page_of["rollouts"] = [{**row, "totals": None} for row in page_of["rollouts"]]
        route.fulfill(response=response, json=page_of)

    page.route("**/v1/tracewire/rollouts?*", rows)
    page.goto(SERVER + "/ui/#/compare")
    offered = page.locator(".chooser section", has_text="A task 😀")
    expect(offered.locator(".reward")).to_have_text(["…", "…"])
    is_counted = True
    expect(offered.locator(".reward")).to_have_text(["reward 0.75", "reward 0.75"])
    # Two clicks before the page has drawn the first one.
    offered.evaluate("(section) => section.querySelectorAll('input').forEach((box) => box.click())")
    expect(page.locator(".compare > section header")).to_contain_text(["ro-comma,2 %", "ro-comma,1"])
    expect(page.get_by_role("textbox")).to_have_value("ro-comma%2C2%20%25, ro-comma%2C1")
    page.reload()
    expect(page.locator(".compare > section")).to_have_count(2)
    expect(page.locator(".chooser section")).to_have_count(1)
    expect(page.locator(".chooser").get_by_role("checkbox")).to_have_count(2)
    # One that has no like.
    page.goto(SERVER + "/ui/#/compare?r=ro-team")
    expect(page.locator(".chooser")).to_contain_text("the only one among the rollouts that were searched")


@test()
def a_person_gets_everywhere_by_keyboard(page):
    page.goto(SERVER + "/ui/#/rollouts?q=id%3Aro-team")
    expect(page.locator(".row")).to_have_count(1)
    page.keyboard.press("j")
    expect(page.locator("[data-id=ro-team]")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("nightly build")
    expect(page.locator(".pane")).to_contain_text("The build was red")
    shot(page, "rollout")
    page.keyboard.press("k")
    page.keyboard.press("j")
    page.keyboard.press("2")
    expect(page.locator("[role=tab][aria-selected=true]")).to_have_text("Changes")
    expect(page.locator(".pane")).to_contain_text("messages sent")
    page.keyboard.press("e")
    expect(page.locator(".cause")).to_contain_text("HTTP 429")
    page.keyboard.press("+")
    expect(page.get_by_role("button", name="Show all")).to_be_visible()
    page.keyboard.press("0")
    expect(page.get_by_role("button", name="Show all")).to_be_hidden()
    page.keyboard.press("?")
    expect(page.locator("dialog")).to_contain_text("next error")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator("[data-id=ro-support-25]")).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("h")
    expect(page.locator("h1")).to_contain_text("What is recorded is whole")
    page.keyboard.press("g")
    page.keyboard.press("c")
    expect(page.locator("h1")).to_have_text("Connect an agent")
    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page.locator("[data-id=ro-team]")).to_be_visible()
    # The tab key reaches every control, and each has a name.
    names = page.evaluate("""() => [...document.querySelectorAll('button, a[href], input, select')].filter((one) => one.offsetParent)
        .filter((one) => !(one.getAttribute('aria-label') || one.textContent.trim() || one.title)).map((one) => one.outerHTML)""")
    assert not names, names


@test()
def back_and_forward_lead_through_the_states(page):
    page.goto(SERVER + "/ui/#/rollouts")
    page.locator("[data-id=ro-support-25] a").click()
    expect(page.locator("h1")).to_contain_text("The lamp of order 1138")
    page.locator("[role=tab]", has_text="Timing").click()
    expect(page.locator(".pane")).to_contain_text("waiting for the response")
    expect(page.get_by_role("img", name="Chunks over time: 4, 3, 4")).to_be_visible()
    shot(page, "timing")
    page.locator("[role=tab]", has_text="Attributes").click()
    expect(page.locator(".pane")).to_contain_text("gen_ai.request.model")
    page.go_back()
    expect(page.locator(".pane")).to_contain_text("waiting for the response")
    page.go_back()
    page.go_back()
    expect(page.locator("[data-id=ro-support-25]")).to_be_visible()
    page.go_forward()
    expect(page.locator("h1")).to_contain_text("The lamp of order 1138")


@test()
def counts_of_chunks_are_drawn_if_they_are_counts(page):
    start("ro-counts", "Count the chunks")
    found = [[1] * 16, [1] * 1000, ["<b>1</b>"] * 16, [1] * 15, "1111111111111111"]
    for sequence, counts in enumerate(found, 1):
        post("/v1/agl/spans", span("ro-counts", sequence, {**chat(["one"], "two"), "tracewire.response.chunk_counts": counts}))
    for sequence, _ in enumerate(found, 1):
        page.goto(f"{SERVER}/ui/#/rollout/ro-counts?span=at-1%2F{sequence:016x}&tab=timing")
        expect(page.locator(".pane-head")).to_contain_text(f"call {sequence} of 5")
        expect(page.locator(".pane")).to_contain_text("duration")
        expect(page.locator(".pane .bars")).to_have_count(1 if sequence == 1 else 0)


@test()
def the_tabs_of_a_rollout_follow_where_a_person_is(page):
    page.goto(SERVER + "/ui/#/rollout/ro-support-25")
    tabs = page.get_by_role("navigation", name="Parts of the rollout")
    timeline, tokens = (tabs.get_by_role("link", name=name) for name in ["Timeline", "Tokens"])
    page.locator(".lane.calls .row").nth(1).click()
    expect(page.locator(".lane.calls .row").nth(1)).to_have_attribute("aria-selected", "true")
    selected = page.url.split("?")[1]
    assert selected.startswith("span="), page.url
    expect(tokens).to_have_attribute("href", f"#/rollout/ro-support-25/tokens?{selected}")
    tokens.click()
    expect(tokens).to_have_attribute("aria-current", "page")
    expect(timeline).not_to_have_attribute("aria-current", "page")
    expect(tokens).to_be_focused()
    page.locator(".branch-row").last.click()
    call = page.url.split("call=")[1]
    expect(timeline).to_have_attribute("href", f"#/rollout/ro-support-25?{selected}&call={call}")


@test()
def the_conversation_reads_like_one(page):
    page.goto(SERVER + "/ui/#/rollout/ro-support-25")
    pane = page.locator(".pane")
    for part in ["You are the support agent", "Can I have a new one?", "get_order", "refund pending", "was paid back today"]:
        expect(pane).to_contain_text(part)
    pane.locator("details.thinking summary").first.click()
    expect(pane).to_contain_text("The customer names an order")
    expect(pane.locator(".divider")).to_have_text("new in this call")
    world = page.get_by_role("tree", name="Other exchanges over HTTP")
    expect(world).to_contain_text("GET orders.example.test/v2/orders/1138")
    world.locator(".row").first.click()
    page.locator("[role=tab]", has_text="Response").click()
    expect(pane).to_contain_text("Status 200")
    page.goto(SERVER + "/ui/#/rollout/ro-support-21")
    page.get_by_role("button", name="1 error").click()
    expect(page.locator(".cause")).to_contain_text("connection_refused: Connection refused (os error 111)")
    shot(page, "error")


def chat(said, answer=None):
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "live-model", "http.request.method": "POST", "http.response.status_code": 200, "tracewire.client.name": "bot",
                  "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": one}]} for one in said])}
    if answer:
        attributes["gen_ai.output.messages"] = json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": answer}]}])
    return attributes


def failing(said, status, message):
    return {**chat(said), "http.response.status_code": status, "error.type": "invalid_request_error"}, {"status": {"status_code": "ERROR", "description": message}}


@test(height=640)
def a_failed_rollout_opens_where_it_failed(page):
    start("ro-broken", "Count to twenty")
    root, said, sequence = f"{1:016x}", [], 1
    post("/v1/agl/spans", span("ro-broken", 1, {"error.type": "exit 1"}, name="bot", kind="INTERNAL", status={"status_code": "ERROR", "description": "exit 1"}))
    for turn in range(20):
        said.append(f"count on from {turn}")
        sequence += 1
        if turn == 4:
            attributes, fields = failing(said, 429, "slow down")
            post("/v1/agl/spans", span("ro-broken", sequence, attributes, parent_id=root, **fields))
            sequence += 1
        post("/v1/agl/spans", span("ro-broken", sequence, chat(said, f"it is {turn + 1}"), parent_id=root))
    attributes, fields = failing([*said, "a last question"], 400, "the prompt is too long")
    post("/v1/agl/spans", span("ro-broken", 40, attributes, parent_id=root, **fields))
    # What others do afterwards is not what it failed of.
    post("/v1/agl/spans", span("ro-broken", 41, {**chat(["say sorry"], "Sorry."), "tracewire.call.role": "subagent"}, parent_id=root))
    refused = {"http.request.method": "POST", "url.full": "https://telemetry.example.test/", "server.address": "telemetry.example.test", "error.type": "connection_refused"}
    post("/v1/agl/spans", span("ro-broken", 42, refused, name="POST", status={"status_code": "ERROR", "description": "it was away"}, parent_id=root))
    post("/api/rollouts/ro-broken", {"status": {"state": "failed"}}, "PATCH")
    page.goto(SERVER + "/ui/#/rollouts?q=id%3Aro-broken")
    page.locator("[data-id=ro-broken] a").first.click()
    cause, pane = page.locator(".cause"), page.locator(".pane")
    expect(cause).to_have_text("HTTP 400 · invalid_request_error · the prompt is too long")
    expect(pane.locator(".message").last).to_contain_text("the prompt is too long")
    # Its row is on the screen, and the cause stays there while the conversation is scrolled.
    expect(page.locator(".span-row[aria-selected=true]")).to_be_in_viewport(ratio=1)
    expect(page.locator(".span-row[aria-selected=true]")).to_contain_text("400")
    expect(pane.locator(".divider")).to_be_in_viewport(ratio=1)
    expect(cause).to_be_in_viewport(ratio=1)
    shot(page, "failed-call")
    # The others follow, and what failed because of them comes last.
    for text in ["it was away", "exit 1", "HTTP 429", "HTTP 400"]:
        page.keyboard.press("e")
        expect(cause).to_contain_text(text)


@test()
def a_span_that_comes_late_leaves_the_other_span(page):
    attributes, fields = failing(["hello?"], 400, "the prompt is too long")
    start("ro-late", "Wait for a span")
    post("/v1/agl/spans", span("ro-late", 1, chat(["one"], "first answer")))
    post("/v1/agl/spans", span("ro-late", 2, attributes, **fields))
    post("/v1/agl/spans", span("ro-late", 3, chat(["three"], "third answer")))
    waiting, rows, pane = [], page.locator(".lane.calls .row"), page.locator(".pane")
    page.route("**/attempts/at-1/spans/0000000000000003", lambda route: waiting.append(route))
    page.goto(SERVER + "/ui/#/rollout/ro-late?span=at-1%2F0000000000000002")
    expect(page.locator(".cause")).to_contain_text("the prompt is too long")
    # The cause goes with its span, before the next one is there.
    rows.nth(2).click()
    expect(page.locator(".pane-head")).to_contain_text("call 3 of 3")
    expect(page.locator(".cause")).to_be_hidden()
    rows.nth(0).click()
    expect(pane).to_contain_text("first answer")
    waiting.pop().fulfill(status=404, json={"detail": "it was removed"})
    page.wait_for_timeout(300)
    expect(pane).to_contain_text("first answer")
    expect(pane).not_to_contain_text("removed")


@test(height=420)
def rows_fill_a_lane_that_grows_and_stay_under_the_pointer(page):
    first = page.request.get(f"{SERVER}/v1/tracewire/rollouts/ro-team/spans?after=0&limit=100").json()["spans"]
    call = [one for one in first if one["class"] == "llm"][2]
    page.goto(f"{SERVER}/ui/#/rollout/ro-team?span={call['attempt']}%2F{call['id']}")
    rows, lane = page.locator(".lane.calls .row"), page.locator(".lane.calls .windowed")
    expect(page.locator(".lane.calls .row[aria-selected=true]")).to_be_in_viewport(ratio=1)
    before = rows.count()
    page.set_viewport_size({"width": 1280, "height": 1400})
    filled = "(lane) => [...lane.querySelectorAll('.row')].reduce((end, row) => Math.max(end, row.getBoundingClientRect().bottom), 0) >= Math.min(lane.getBoundingClientRect().bottom, lane.querySelector('.spacer').getBoundingClientRect().bottom)"
    page.wait_for_function(filled, arg=lane.element_handle())
    assert rows.count() > before, (before, rows.count())
    # A click on a row at the edge moves nothing.
    page.set_viewport_size({"width": 1280, "height": 420})
    lane.evaluate("(lane) => { lane.scrollTop = 130; }")
    page.wait_for_function("(lane) => lane.scrollTop === 130", arg=lane.element_handle())
    box = lane.bounding_box()
    page.mouse.click(box["x"] + 60, box["y"] + 13)
    expect(page.locator(".lane.calls .row[aria-selected=true]")).to_have_attribute("aria-rowindex", "6")
    assert lane.evaluate("(lane) => lane.scrollTop") == 130


@test()
def a_certificate_that_is_rejected_is_told_in_the_list(page):
    start("ro-distrusts", "")
    attributes = {"http.request.method": "CONNECT", "http.response.status_code": 200, "server.address": "api.example.test", "error.type": "client_tls_error", "tracewire.outcome": "failed",
                  "tracewire.client.advice": "set SSL_CERT_FILE", "tracewire.client.program": "python3"}
    post("/v1/agl/spans", span("ro-distrusts", 1, attributes, name="CONNECT", status={"status_code": "ERROR", "description": "the client refused it"}))
    page.goto(SERVER + "/ui/#/rollouts?q=error%3Aclient_tls_error")
    expect(page.locator("[data-id=ro-distrusts]")).to_contain_text("client_tls_error")
    page.locator("[data-id=ro-distrusts] a").click()
    expect(page.locator(".cause")).to_contain_text("the client rejected the proxy's certificate: set SSL_CERT_FILE")
    expect(page.locator(".pane")).to_contain_text("python3")
    expect(page.locator(".pane")).not_to_contain_text("--include")
    page.locator(".cause").get_by_role("link").click()
    expect(page.locator("h1")).to_have_text("Connect an agent")


@test()
def a_mark_at_health_says_that_something_was_lost(page):
    rejected = 0

    def metrics(route):
        response = route.fetch()
        text = "\n".join(line for line in response.text().splitlines() if "tracewire_certificates_refused_total" not in line or line.startswith("#"))
        route.fulfill(response=response, body=f"{text}\ntracewire_certificates_refused_total {rejected}\n")

    page.route("**/metrics", metrics)
    with page.expect_response("**/metrics"):
        page.goto(SERVER + "/ui/#/rollouts")
    health = page.get_by_role("link", name="Health")
    expect(page.locator("[data-id=ro-team]")).to_be_visible()
    expect(health).not_to_have_class("alarm")
    rejected = 3
    page.reload()
    expect(health).to_have_class("alarm")
    shot(page, "alarm")
    page.goto(SERVER + "/ui/#/connect")
    expect(page.locator(".note")).to_contain_text("3 connections ended because a client rejected the proxy's certificate")
    expect(page.locator(".note").get_by_role("link")).to_have_attribute("href", "#/rollouts?q=error%3Aclient_tls_error")
    health.click()
    expect(page.locator("h1")).to_have_text("Something needs attention")
    page.get_by_role("link", name="Rollouts", exact=True).click()
    expect(health).not_to_have_class("alarm")
    # After a restart numbers begin anew.
    for rejected, is_new in [(0, False), (2, True)]:
        with page.expect_response("**/metrics"):
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        (expect(health).to_have_class if is_new else expect(health).not_to_have_class)("alarm")


@test()
def tokens_are_boxes_and_breaks_are_told(page):
    page.goto(SERVER + "/ui/#/rollout/ro-support-02/tokens")
    expect(page.locator(".branch-row")).to_have_count(2)
    expect(page.locator(".branch-row").nth(1)).to_contain_text("at token 200")
    page.locator(".branch-row").nth(1).click()
    expect(page.locator(".break")).to_contain_text("It differs from call #1 at token 200.")
    painted = "document.querySelector('.tokens-scroll canvas').getContext('2d').getImageData(10, 10, 1, 1).data[3]"
    page.wait_for_function(f"() => {painted} > 0")
    page.get_by_role("button", name="Prompt").click()
    box = page.locator(".tokens-scroll").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 12)
    expect(page.locator(".tip")).to_contain_text("token 0 · id ")
    page.get_by_role("button", name="Mask").click()
    expect(page.locator(".legend")).to_contain_text("sampled in an earlier call")
    assert "color=mask" in page.url, page.url
    shot(page, "tokens")
    page.goto(SERVER + "/ui/#/rollout/ro-hostile/tokens")
    expect(page.locator(".legend")).to_contain_text("No token ids were recorded")


def last_answer(page, rollout):
    """Shows the last call of a rollout. Returns how many tokens its prompt has, and a function that points at a token."""
    page.goto(f"{SERVER}/ui/#/rollout/{rollout}/tokens")
    page.locator(".branch-row").last.click()
    expect(page.locator(".branch-row").last).to_have_attribute("aria-selected", "true")
    page.wait_for_function("() => document.querySelector('.tokens-scroll canvas').style.width")
    page.get_by_role("button", name="Answer").click()
    box = page.locator(".tokens-scroll").bounding_box()
    columns, top = int((box["width"] - 8) // 58), page.evaluate("document.querySelector('.tokens-scroll').scrollTop")
    at = lambda token: page.mouse.move(box["x"] + 4 + token % columns * 58 + 20, box["y"] + 4 + token // columns * 20 - top + 10)
    return calls_of(rollout)["calls"][-1]["prompt_tokens"], at


@test()
def tokens_have_texts_where_the_response_was_recorded(page):
    prompt, at, tip = *last_answer(page, "ro-support-25"), page.locator(".tip")
    at(prompt)
    expect(tip).to_contain_text("Yo")
    expect(tip).to_contain_text("id ")
    expect(tip).to_contain_text("rank 2")
    expect(tip).to_contain_text("instead: ↵ (95.12 %)")
    place = tip.bounding_box()
    assert place["y"] >= 0 and place["y"] + place["height"] <= 800, place
    shot(page, "texts")
    at(prompt - 1)
    expect(tip).not_to_contain_text("rank")
    page.goto(SERVER + "/ui/#/rollout/ro-support-24/tokens")
    page.get_by_role("button", name="why no texts?").click()
    expect(page.locator(".legend")).to_contain_text("The texts of tokens are in the bodies of responses: record them with --include-bodies.")


def calls_of(rollout):
    with urllib.request.urlopen(f"{SERVER}/v1/tracewire/rollouts/{rollout}/calls") as response:
        return json.load(response)


def annotate(rollout, call, name, values):
    tree = calls_of(rollout)
    post(f"/v1/tracewire/rollouts/{rollout}/attempts/{tree['attempt_id']}/spans/{tree['calls'][call]['span_id']}/annotations", {"name": name, "values": values})


@test()
def values_of_a_trainer_colour_the_tokens(page):
    sampled = calls_of("ro-support-06")["calls"][1]["sampled_tokens"]
    annotate("ro-support-06", 1, "advantage", [(at % 9 - 4) / 4 for at in range(sampled)])
    annotate("ro-support-06", 1, HOSTILE_NAME, [at / sampled for at in range(sampled)])
    page.goto(SERVER + "/ui/#/rollout/ro-support-06/tokens")
    expect(page.get_by_role("button", name="advantage")).to_be_hidden()
    page.locator(".branch-row").nth(1).click()
    page.get_by_role("button", name="advantage").click()
    expect(page.locator(".legend")).to_contain_text("advantage -1")
    expect(page.locator(".legend")).to_contain_text("of the sampled tokens")
    page.get_by_role("button", name="Answer").click()
    place = page.evaluate("""() => {
        const canvas = document.querySelector('.tokens-scroll canvas'), context = canvas.getContext('2d'), colors = new Set();
        const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
        for (let at = 0; at < data.length; at += 4) colors.add(`${data[at]} ${data[at + 1]} ${data[at + 2]}`);
        return colors.has('200 70 60') && colors.has('70 130 200');
    }""")
    assert place, "the least and the greatest value have the ends of the ramp"
    assert "color=%2Badvantage" in page.url, page.url
    shot(page, "advantage")
    page.reload()
    expect(page.locator(".legend")).to_contain_text("advantage -1")
    page.get_by_role("button", name="<b>x").click()
    expect(page.locator(".legend")).to_contain_text("<b>x")
    assert page.locator(".legend b b").count() == 0


@test()
def values_that_fit_no_token_are_explained(page):
    tree = calls_of("ro-support-10")
    call, sampled = tree["calls"][0], tree["calls"][0]["sampled_tokens"]
    wrong = {"as text": "0.5, 0.5", "short": [0.5] * (sampled - 1), "words": ["high"] * sampled, "infinite": ["NaN"] + ["0.5"] * (sampled - 1), "flags": [True] * sampled}
    # The route for values refuses them; spans that clients post may have anything.
    for place, (name, values) in enumerate(wrong.items()):
        attributes = {"tracewire.annotation.name": name, "tracewire.annotation.values": values}
        post("/v1/agl/spans", span("ro-support-10", 900 + place, attributes, attempt_id=tree["attempt_id"], parent_id=call["span_id"], name="agentlightning.annotation"))
    page.goto(SERVER + "/ui/#/rollout/ro-support-10/tokens")
    for name, said in [("as text", "are no list of numbers"), ("short", f"There are {sampled - 1} values of short, for {sampled} sampled tokens"), ("words", 'Value 0 of words is "high"'), ("infinite", 'is "NaN"'), ("flags", "is true")]:
        page.get_by_role("button", name=name, exact=True).click()
        expect(page.locator(".legend .warn")).to_contain_text(said)
    page.get_by_role("button", name="Mask").click()
    expect(page.locator(".legend")).to_contain_text("trained here")


@test()
def hostile_content_is_only_text(page):
    page.goto(SERVER + "/ui/#/rollouts?q=id%3Aro-hostile")
    expect(page.locator("[data-id=ro-hostile]")).to_contain_text("<script>window.hacked=1</script>")
    expect(page.locator("[data-id=ro-hostile]")).to_contain_text("⟨U+202E⟩")
    page.goto(SERVER + "/ui/#/rollout/ro-hostile")
    # It failed, so that it opens on what failed.
    expect(page.locator(".cause")).to_contain_text("<script>")
    page.get_by_role("tree").first.locator(".row").last.click()
    expect(page.locator(".pane")).to_contain_text("{broken")
    page.keyboard.press("k")
    expect(page.locator(".pane")).to_contain_text("Show all 2,000,000 characters")
    expect(page.locator(".pane")).to_contain_text("image that can't be shown")
    shot(page, "hostile")
    for pane in ["Changes", "Request", "Response", "Timing", "Attributes"]:
        page.locator("[role=tab]", has_text=pane).click()
        expect(page.locator("[role=tab][aria-selected=true]")).to_have_text(pane)
        expect(page.locator(".pane")).not_to_contain_text("can't be shown now")
    page.keyboard.press("e")
    expect(page.locator(".cause")).to_contain_text("<script>")
    page.goto(SERVER + "/ui/#/compare?r=ro-hostile,ro-support-01")
    expect(page.locator(".pane-head").first).to_contain_text("They part at message 1")
    page.goto(SERVER + "/ui/#/rollout/" + urllib.request.quote("<img src=x onerror=alert(1)>", safe=""))
    expect(page.locator("main .empty >> visible=true")).to_contain_text("There is no such rollout")
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.querySelectorAll('main script, main iframe, main object, main img:not([src^=\"data:image/\"])').length") == 0


@test()
def what_happens_now_appears(page):
    page.goto(SERVER + "/ui/#/rollouts?q=id%3Aro-live*")
    expect(page.locator(".empty")).to_contain_text("No rollout matches")
    start("ro-live-1", "What happens now?")
    expect(page.locator("[data-id=ro-live-1]")).to_contain_text("running", timeout=15_000)
    page.locator("[data-id=ro-live-1] a").click()
    expect(page.locator(".pane")).to_contain_text("Nothing was recorded")
    for sequence in range(1, 4):
        answer = json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": f"answer {sequence}"}]}])
        post("/v1/agl/spans", span("ro-live-1", sequence, {"gen_ai.operation.name": "chat", "gen_ai.request.model": "live-model", "gen_ai.output.messages": answer}))
        expect(page.locator(".pane")).to_contain_text(f"answer {sequence}", timeout=15_000)
    post("/api/rollouts/ro-live-1", {"status": {"state": "succeeded"}}, "PATCH")
    expect(page.locator(".head")).to_contain_text("succeeded", timeout=15_000)


@test()
def odd_spans_are_shown(page):
    start("ro-odd", {"question": "Odd spans"})
    chat = {"gen_ai.operation.name": "chat"}
    post("/v1/agl/spans", span("ro-odd", 1, chat, name="chat without times", start_time=None, end_time=None))
    post("/v1/agl/spans", span("ro-odd", 2, chat, name="chat in a circle", parent_id=f"{3:016x}"))
    post("/v1/agl/spans", span("ro-odd", 3, chat, name="chat around it", parent_id=f"{2:016x}"))
    post("/v1/agl/spans", span("ro-odd", 4, chat, name="chat before its start", end_time=1_700_000_000))
    page.goto(SERVER + "/ui/#/rollout/ro-odd?tab=timing")
    for name in ["without times", "in a circle", "around it", "before its start"]:
        expect(page.get_by_role("tree").first).to_contain_text(name)
    page.locator(".span-row", has_text="before its start").click()
    expect(page.locator(".pane")).to_contain_text("the clock of the machine was set back")


class Relay:
    """Passes connections to the server, until it goes away: then they are cut, and new ones refused."""

    def __init__(self):
        host, port = SERVER.removeprefix("http://").rsplit(":", 1)
        self.target, self.port, self.open = (host, int(port)), 0, set()
        self.start()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def stop(self):
        for one in [self.listener, *self.open]:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
        self.open.clear()

    def accept(self, listener):
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(self.target)
            self.open |= {client, server}
            for one, other in [(client, server), (server, client)]:
                threading.Thread(target=self.copy, args=(one, other), daemon=True).start()

    def copy(self, one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.open -= {one, other}


@test()
def a_server_that_goes_away_comes_back(page):
    relay, live = Relay(), page.locator("#live")
    page.goto(relay.url + "/ui/#/rollouts")
    expect(page.locator("[data-id=ro-team]")).to_be_visible()
    relay.stop()
    expect(live).to_contain_text("does not answer", timeout=15_000)
    expect(page.locator("[data-id=ro-team]")).to_be_visible()
    # What is opened meanwhile appears when the server is back, and nothing has to be loaded anew.
    page.locator("[data-id=ro-team] a").first.click()
    expect(page.locator(".pane")).to_contain_text("Reading")
    shot(page, "away")
    relay.start()
    expect(page.locator(".pane")).to_contain_text("The build was red", timeout=30_000)
    expect(live).to_have_text("")
    relay.stop()
    page.locator("[role=tab]", has_text="Changes").click()
    page.locator(".span-row").nth(3).click()
    expect(page.locator(".pane")).to_contain_text("The server may be away")
    relay.start()
    expect(page.locator(".pane")).not_to_contain_text("can't be shown", timeout=30_000)
    for address, failed, shown in [("rollout/ro-support-02/tokens", "The tokens can't be read", "at token 200"), ("compare?r=ro-support-01,ro-support-09", "The server does not answer", "They part at")]:
        relay.stop()
        page.evaluate(f"location.hash = '#/{address}'")
        expect(page.locator("main")).to_contain_text(failed)
        relay.start()
        expect(page.locator("main")).to_contain_text(shown, timeout=30_000)
    relay.stop()


a_server_that_goes_away_comes_back.may_log = True


@test()
def a_rank_counts_the_likelier_tokens(page):
    has_logprobs = True

    def ranked(route):
        response = route.fetch()
        span = response.json()
        sampled = len(span["attributes"]["response_token_ids"])
        others = {"Yo": -2.0, **{str(digit): -5.0 for digit in range(5)}, "Well": -0.2}
        span["attributes"]["http.response.body.content"] = json.dumps({"choices": [{"index": 0, "logprobs": {"tokens": ["Yo"] * sampled, "top_logprobs": [others] * sampled}}]})
        span["attributes"]["tracewire.response_logprobs"] = [-2.0] * sampled if has_logprobs else []
        route.fulfill(response=response, json=span)

    page.route("**/attempts/*/spans/*", ranked)
    tip = page.locator(".tip")
    prompt, at = last_answer(page, "ro-support-25")
    at(prompt)
    expect(tip).to_contain_text("rank 2")
    expect(tip).to_contain_text("instead: Well (81.87 %)")
    has_logprobs = False
    page.reload()
    prompt, at = last_answer(page, "ro-support-25")
    at(prompt + 1)
    at(prompt)
    expect(tip).to_contain_text("instead: Well (81.87 %)")
    expect(tip).not_to_contain_text("rank")


@test()
def a_call_that_fails_late_leaves_the_other_calls_tokens(page):
    tree, waiting = calls_of("ro-support-02"), []
    page.route(f"**/spans/{tree['calls'][0]['span_id']}", lambda route: waiting.append(route))
    page.goto(f"{SERVER}/ui/#/rollout/ro-support-02/tokens?call={tree['calls'][0]['span_id']}")
    expect(page.locator(".branch-row").first).to_have_attribute("aria-selected", "true")
    page.locator(".branch-row").last.click()
    expect(page.locator(".legend")).to_contain_text("log-probability")
    fail = lambda: [waiting.pop().fulfill(status=404, json={"detail": "it was removed"}) for _ in range(len(waiting))]
    assert waiting
    fail()
    page.wait_for_timeout(300)
    expect(page.locator(".legend")).to_contain_text("log-probability")
    expect(page.locator(".legend")).not_to_contain_text("removed")
    page.locator(".branch-row").first.click()
    page.wait_for_timeout(300)
    fail()
    expect(page.locator(".legend")).to_contain_text("it was removed")


@test()
def values_may_come_before_the_tokens(page):
    annotate("ro-support-11", 0, "early", [0.5] * calls_of("ro-support-11")["calls"][0]["sampled_tokens"])
    tree, waiting = calls_of("ro-support-11"), []
    page.route(f"**/spans/{tree['calls'][0]['span_id']}", lambda route: waiting.append(route))
    page.goto(f"{SERVER}/ui/#/rollout/ro-support-11/tokens?call={tree['calls'][0]['span_id']}")
    page.get_by_role("button", name="early").click()
    page.wait_for_timeout(300)
    for route in waiting:
        route.continue_()
    expect(page.locator(".legend")).to_contain_text("early 0.5")


@test()
def values_are_read_again_when_the_server_is_back(page):
    relay, legend = Relay(), page.locator(".legend")
    annotate("ro-support-15", 0, "late", [0.5] * calls_of("ro-support-15")["calls"][0]["sampled_tokens"])
    page.goto(f"{relay.url}/ui/#/rollout/ro-support-15/tokens")
    expect(legend).to_contain_text("log-probability")
    relay.stop()
    page.get_by_role("button", name="late").click()
    expect(legend).to_contain_text("The server does not answer")
    relay.start()
    expect(legend).to_contain_text("late 0.5", timeout=30_000)
    relay.stop()


values_are_read_again_when_the_server_is_back.may_log = True


@test()
def what_comes_late_leaves_the_address_of_the_next_view(page):
    annotate("ro-support-16", 0, "slow", [0.5] * calls_of("ro-support-16")["calls"][0]["sampled_tokens"])
    tree, waiting = calls_of("ro-support-16"), []
    page.goto(f"{SERVER}/ui/#/rollout/ro-support-16/tokens?color=%2Bslow&call={tree['calls'][0]['span_id']}")
    expect(page.locator(".legend")).to_contain_text("slow 0.5")
    for next_view in ["#/rollouts?q=id%3Aro-support-16", "#/rollout/ro-support-16"]:
        page.goto(f"{SERVER}/ui/#/connect")
        expect(page.locator("h1")).to_have_text("Connect an agent")
        page.route("**/rollouts/ro-support-16/calls", lambda route: waiting.append(route))
        page.evaluate(f"location.hash = '#/rollout/ro-support-16/tokens?color=%2Bslow&call={tree['calls'][0]['span_id']}'")
        expect(page.locator("main")).to_contain_text("Reading the tokens")
        page.evaluate(f"location.hash = '{next_view}'")
        expect(page.locator("[data-id=ro-support-16], .pane .message").first).to_be_visible()
        with page.expect_response("**/rollouts/ro-support-16/calls"):
            while waiting:
                waiting.pop().continue_()
        page.unroute("**/rollouts/ro-support-16/calls")
        page.wait_for_load_state("networkidle")
        assert page.url.endswith(next_view), page.url
    # The next view may be of the same tokens.
    page.goto(f"{SERVER}/ui/#/connect")
    expect(page.locator("h1")).to_have_text("Connect an agent")
    page.route("**/rollouts/ro-support-16/calls", lambda route: route.continue_() if waiting else waiting.append(route))
    page.evaluate(f"location.hash = '#/rollout/ro-support-16/tokens?call={tree['calls'][-1]['span_id']}'")
    expect(page.locator("main")).to_contain_text("Reading the tokens")
    page.evaluate("location.hash = '#/connect'")
    expect(page.locator("h1")).to_have_text("Connect an agent")
    page.evaluate(f"location.hash = '#/rollout/ro-support-16/tokens?call={tree['calls'][0]['span_id']}'")
    expect(page.locator(".legend")).to_contain_text("log-probability")
    with page.expect_response("**/rollouts/ro-support-16/calls"):
        waiting.pop().continue_()
    page.wait_for_timeout(500)
    assert page.url.endswith(tree["calls"][0]["span_id"]), page.url


@test()
def a_page_of_rollouts_that_fails_is_asked_for_rarely(page):
    asked = []

    def more(route):
        if "after=" in route.request.url:
            asked.append(time.monotonic())
            route.fulfill(status=429, json={"detail": "later"})
        else:
            response = route.fetch()
            rows = response.json()
            route.fulfill(response=response, json={**rows, "rollouts": rows["rollouts"][:3], "next": "x"})

    page.route("**/v1/tracewire/rollouts?*", more)
    page.goto(SERVER + "/ui/#/rollouts")
    expect(page.locator(".rollout-row")).to_have_count(3)
    page.wait_for_timeout(5000)
    assert 2 <= len(asked) < 10, len(asked)
    page.evaluate("location.hash = '#/connect'")
    page.wait_for_timeout(500)
    before = len(asked)
    page.wait_for_timeout(2500)
    assert len(asked) == before, "a view that was left asks for nothing"


def connections():
    port = f":{int(SERVER.rsplit(':', 1)[1]):04X}"
    return sum(1 for line in open("/proc/net/tcp") if line.split()[1].endswith(port) and line.split()[3] == "01")


@test()
def fifty_pages_are_served_at_once(page):
    start("ro-crowd", "Many look at it")
    pages = [page, *(page.context.new_page() for _ in range(49))]
    for number, one in enumerate(pages):
        one.goto(SERVER + ("/ui/#/rollouts?q=id%3Aro-crowd" if number % 2 else "/ui/#/rollout/ro-crowd"), wait_until="commit")
    for sequence in range(1, 21):
        post("/v1/agl/spans", span("ro-crowd", sequence, {"gen_ai.operation.name": "chat", "gen_ai.request.model": "live-model"}, name=f"chat number {sequence}"))
        begin = time.monotonic()
        calls_of("ro-crowd")
        assert time.monotonic() - begin < 5, "the server answers others meanwhile"
    for number, one in enumerate(pages):
        expect(one.locator("[data-id=ro-crowd] [title^='20 calls']" if number % 2 else ".lane.calls header")).to_contain_text("20", timeout=60_000)
    # A browser has six connections to one server, however many pages it shows.
    assert connections() < 20, connections()


@test()
def health_and_connect_tell_what_to_do(page):
    page.goto(SERVER + "/ui/#/health")
    expect(page.locator(".check", has_text="Exchanges unrecorded")).to_contain_text("Every exchange was recorded.")
    expect(page.locator(".check", has_text="Spans stored")).to_contain_text("rollouts")
    exact = page.locator(".check", has_text="support-agent · qwen3-8b")
    expect(exact).to_contain_text("% exact")
    expect(page.locator(".check", has_text="missing token ids")).to_contain_text("asked for without")
    shot(page, "health")
    page.locator(".check", has_text="template").first.scroll_into_view_if_needed()
    shot(page, "health-training")
    page.locator(".check", has_text="missing token ids").get_by_role("link").click()
    expect(page.locator(".head")).to_be_visible()
    page.go_back()
    page.goto(SERVER + "/ui/#/connect")
    expect(page.locator("main")).to_contain_text("tracewire run -- python3 agent.py")
    expect(page.locator(".lamp-row")).to_contain_text("Waiting")
    shot(page, "connect")
    start("ro-first", "The first one")
    expect(page.locator(".lamp-row")).to_have_class("lamp-row on", timeout=15_000)
    expect(page.locator(".lamp-row a")).to_contain_text("ro-first")


@test(width=400, height=780)
def all_of_it_fits_a_narrow_window(page):
    for path in ["rollouts", "rollouts?group=1", "rollout/ro-team", "rollout/ro-hostile", "rollout/ro-support-02/tokens", "rollout/ro-support-06/tokens?color=%2Badvantage", "health", "connect", "compare?r=ro-support-01,ro-support-05"]:
        page.goto(f"{SERVER}/ui/#/{path}")
        page.wait_for_load_state("networkidle") if path == "compare" else page.wait_for_timeout(400)
        no_overflow(page)
        shot(page, "narrow-" + path.split("?")[0].replace("/", "-"))
    page.goto(SERVER + "/ui/#/rollout/ro-team")
    expect(page.locator(".pane")).to_contain_text("The build was red")


@test(scheme="dark")
def dark_is_dark_and_legible(page):
    contrast = """() => {
        const parse = (text) => text.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map((one) => { const c = one / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; }); return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
        const back = (element) => { for (let at = element; at; at = at.parentElement) { const color = parse(getComputedStyle(at).backgroundColor); if (color.length < 4 || color[3] > 0.99) return color; } return [255, 255, 255]; };
        const bad = [];
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const element = walker.currentNode.parentElement;
            if (!walker.currentNode.textContent.trim() || !element.offsetParent || element.closest('button:disabled')) continue;
            const [one, other] = [light(parse(getComputedStyle(element).color)), light(back(element))].sort((a, b) => b - a);
            const ratio = (one + 0.05) / (other + 0.05);
            if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${element.className} ${walker.currentNode.textContent.slice(0, 30)}`);
        }
        return bad;
    }"""
    for scheme in ["dark", "light"]:
        page.emulate_media(color_scheme=scheme)
        for path, ready in [("rollouts", "[data-id=ro-team]"), ("rollout/ro-team", ".message"), ("health", ".check"), ("connect", ".step"), ("rollout/ro-support-02/tokens", ".branch-row")]:
            page.goto(f"{SERVER}/ui/#/{path}")
            expect(page.locator(ready).first).to_be_visible()
            bad = page.evaluate(contrast)
            assert not bad, f"{scheme} {path}: {bad}"
            shot(page, f"{scheme}-{path.replace('/', '-')}")
    page.emulate_media(color_scheme="dark")
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


@test(server=CLOSED)
def a_token_is_asked_for_and_kept_in_memory_only(page):
    page.goto(CLOSED + "/ui/")
    expect(page.locator("dialog")).to_contain_text("This server wants a token")
    page.locator("dialog input").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_visible()
    page.locator("dialog input").fill("whole-token")
    page.keyboard.press("Enter")
    expect(page.locator(".empty")).to_contain_text("Nothing is recorded yet")
    expect(page.locator(".empty")).to_contain_text("tracewire doctor -- YOUR-COMMAND")
    shot(page, "nothing")
    kept = page.evaluate("JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}, location.href])")
    assert "whole-token" not in kept, kept
    page.reload()
    expect(page.locator("dialog")).to_contain_text("This server wants a token")


a_token_is_asked_for_and_kept_in_memory_only.may_log = True


@test(server=CLOSED)
def a_token_in_the_address_does_not_stay_there(page):
    page.goto(CLOSED + "/ui/#/rollouts?q=status%3Afailed&token=whole-token")
    expect(page.locator(".empty")).to_contain_text("No rollout matches")
    assert page.url == CLOSED + "/ui/#/rollouts?q=status%3Afailed", page.url


def main():
    failed = []
    wanted = os.environ.get("ONLY", "")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"])
        for function, width, height, scheme, server in TESTS:
            if wanted not in function.__name__:
                continue
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce")
            page, problems = context.new_page(), []
            page.set_default_timeout(20_000)
            expect.set_options(timeout=10_000)
            page.on("pageerror", lambda error: problems.append(f"error: {error}"))
            page.on("console", lambda message: problems.append(f"console: {message.text}") if message.type in ("error", "warning") else None)
            page.on("request", lambda request: None if request.url.startswith((server, "data:")) else problems.append(f"asked for {request.url}"))
            page.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
            try:
                function(page)
                # What the browser itself logs of a response with an error is no defect of the page.
                own = [one for one in problems if not one.startswith("console: Failed to load resource")]
                assert not own or getattr(function, "may_log", False), own
                print(f"ok      {function.__name__}", flush=True)
            except Exception:
                failed.append(function.__name__)
                print(f"FAILED  {function.__name__}\n{traceback.format_exc()}{problems}", flush=True)
                shot(page, f"failed-{function.__name__}")
            context.close()
        browser.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
