//! The web page: its files and their policy, the routes that it reads, and the page itself in a browser.

use crate::support::client::{Reply, ask, get, post};
use crate::support::{
    Bench, Running, TIMEOUT, browser, chromium, endpoint, eventually, read_head, root, signal, skipped, text, tracewire,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};

/// The rollouts of tests/ui/sample.py.
fn sampled(bench: &Bench) -> Running {
    let serve = bench.gateway_without_backends("");
    let sample = root().join("tests/ui/sample.py");
    let filled = Command::new("python3").arg(sample).arg(serve.url("server")).arg(bench.store()).output().unwrap();
    assert!(filled.status.success(), "{}", text(&filled));
    serve
}

fn pages(serve: &Running, query: &str, headers: &[(&str, &str)]) -> Vec<Value> {
    let (mut rows, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/tracewire/rollouts?{query}{after}");
        let page = ask(serve.address("server"), "GET", &path, headers, "").json();
        rows.extend(page["rollouts"].as_array().unwrap_or_else(|| panic!("{page}")).iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return rows,
        }
    }
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["rollout_id"].as_str().unwrap()).collect()
}

#[test]
fn the_files_of_the_page_allow_nothing_from_elsewhere() {
    let bench = Bench::new();
    let serve = bench.gateway_without_backends("");
    let server = serve.address("server");
    let browser = ask(server, "GET", "/", &[("accept", "text/html,*/*")], "");
    assert_eq!((browser.status, browser.header("location")), (303, Some("/ui/")));
    assert!(get(server, "/").text().starts_with("This is the API server"));
    for (path, media_type) in [("/ui/", "text/html"), ("/ui/app.js", "text/javascript"), ("/ui/style.css", "text/css")]
    {
        let file = get(server, path);
        assert_eq!(file.status, 200, "{path}");
        assert!(file.header("content-type").unwrap().starts_with(media_type), "{path}");
        let policy = file.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
        let known = ask(server, "GET", path, &[("if-none-match", file.header("etag").unwrap())], "");
        assert_eq!((known.status, known.text().as_str()), (304, ""), "{path}");
    }
    for path in ["/ui/nothing.js", "/ui/..%2fmod.rs", "/ui/%2e%2e%2fmod.rs"] {
        assert_eq!(get(server, path).status, 404, "{path}");
    }
    let html = get(server, "/ui/").text();
    // Every module is read at once, rather than one after the other as they import each other.
    for file in std::fs::read_dir(root().join("src/api/ui/page")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(!name.ends_with(".js") || html.contains(&format!("=\"{name}\">")), "{name} is not in index.html");
    }
    // What the page suggests to filter by exists.
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let (health, errors) = (read("src/api/ui/page/health.js"), read("docs/errors.md"));
    let suggested: Vec<&str> = health.split("\"error:").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(!suggested.is_empty());
    for name in suggested {
        assert!(errors.contains(&format!("| `{name}` |")), "{name} is no type of an error");
    }
    assert!(!html.contains("style=") && !html.contains("onclick") && html.matches("<script").count() == 2, "{html}");
}

#[test]
fn lists_of_rollouts_are_filtered_and_paged() {
    let bench = Bench::new();
    let serve = sampled(&bench);
    let all = pages(&serve, "limit=7", &[]);
    assert_eq!(all.len(), 29);
    let times: Vec<f64> = all.iter().map(|row| row["start_time"].as_f64().unwrap()).collect();
    assert!(times.is_sorted_by(|one, other| one >= other), "newest first");
    let team = all.iter().find(|row| row["rollout_id"] == "ro-team").unwrap();
    assert_eq!((&team["llm_calls"], &team["errors"], &team["status"]), (&json!(23), &json!(1), &json!("succeeded")));
    assert_eq!(team["totals"]["rewards"], json!([["primary", 1.0], ["style", 0.8]]));
    assert_eq!(team["totals"]["agents"], json!(["claude-code", "explore-1", "explore-2"]));
    // The first search has the messages read.
    eventually(|| {
        let found = get(serve.address("server"), "/v1/tracewire/rollouts?q=text:refund").json();
        (found["is_searching"] != true).then_some(())
    });
    for (query, expected) in [
        ("status:failed", 4),
        ("status:failed+model:qwen*", 3),
        ("role:subagent", 1),
        ("1138", 7),
        ("task:%22order+4711%22", 7),
        ("agent:claude-code", 1),
        ("host:payments.example.test+-status:failed", 9),
        ("tokens>100k", 1),
        ("since:10m", 29 - 25),
        ("tool:get_order", 26),
        ("id:ro-without-spans+spans:0", 1),
        ("error:connection*", 3),
        ("text:%22was+paid+back%22", 23),
        ("text:%22paid+was%22", 0),
        ("text:%22Rechnung+f%C3%BCr+Bestellung%22+-status:failed", 6),
        ("text:round_price+-text:lamp", 1),
        ("text:user", 0),
        ("verdict:sound+id:support", 18),
        ("verdict:unlinked_call+verdict:unsound", 5),
    ] {
        let found = pages(&serve, &format!("limit=5&q={query}"), &[]);
        assert_eq!(found.len(), expected, "{query}: {:?}", ids(&found));
    }
    let wrong = get(serve.address("server"), "/v1/tracewire/rollouts?q=%C3%A9+modle:x");
    assert_eq!(wrong.status, 422);
    let detail = &wrong.json()["detail"][0];
    assert_eq!(detail["loc"], json!(["query", "q", 2, 7]));
    assert!(detail["msg"].as_str().unwrap().contains("did you mean `model`"), "{detail}");
    assert_eq!(get(serve.address("server"), "/v1/tracewire/rollouts?after=x").status, 422);
    let wrong = get(serve.address("server"), "/v1/tracewire/rollouts?q=text:%22*%22+x");
    assert_eq!((wrong.status, &wrong.json()["detail"][0]["loc"]), (422, &json!(["query", "q", 5, 8])));
    let exported = get(serve.address("server"), "/v1/tracewire/export?format=messages&q=text:1138+verdict:sound");
    assert_eq!(exported.status, 200);
    assert_eq!(exported.text().lines().count(), pages(&serve, "q=text:1138+verdict:sound", &[]).len());
    // What is stored after a search is found by the next one, and what is removed is not.
    let new = json!({"rollout_id": "ro-new", "attempt_id": "at-1", "sequence_id": 1, "trace_id": "1".repeat(32), "span_id": "2".repeat(16),
        "parent_id": null, "name": "chat", "kind": "CLIENT", "status": {"status_code": "OK", "description": null}, "events": [], "links": [],
        "attributes": {"gen_ai.input.messages": "[{\"role\":\"user\",\"parts\":[{\"type\":\"text\",\"content\":\"zebra\"}]}]"},
        "start_time": 1.0, "end_time": 2.0, "context": null, "parent": null, "resource": {"attributes": {}, "schema_url": ""}});
    assert_eq!(pages(&serve, "q=text:zebra", &[]).len(), 0);
    for _ in 0..2 {
        let started = json!({"status": {"state": "running", "last_attempt_id": "at-1"}}).to_string();
        assert!(
            post(serve.address("server"), "/api/rollouts", &json!([{"rollout_id": "ro-new", "input": 1}])).status < 300
        );
        assert!(ask(serve.address("server"), "PATCH", "/api/rollouts/ro-new", &[], &started).status < 300);
        assert!(post(serve.address("server"), "/v1/agl/spans", &new).status < 300);
        assert_eq!(ids(&pages(&serve, "q=text:zebra", &[])), ["ro-new"]);
        assert!(ask(serve.address("server"), "DELETE", "/api/rollouts/ro-new", &[], "").status < 300);
        assert_eq!(pages(&serve, "q=text:zebra", &[]).len(), 0);
    }
}

#[test]
fn a_span_is_outlined_in_lists_and_whole_by_itself() {
    let bench = Bench::new();
    let serve = sampled(&bench);
    let server = serve.address("server");
    let (mut spans, mut after) = (Vec::new(), 0);
    loop {
        let page = get(server, &format!("/v1/tracewire/rollouts/ro-team/spans?limit=10&after={after}")).json();
        spans.extend(page["spans"].as_array().unwrap().iter().cloned());
        after = page["last"].as_u64().unwrap();
        if page["more"] == json!(false) {
            break;
        }
    }
    let row = get(server, "/v1/tracewire/rollouts/ro-team").json();
    assert_eq!(json!(spans.len()), row["spans"]);
    let classes = |class: &str| spans.iter().filter(|span| span["class"] == class).count();
    assert_eq!((classes("llm"), classes("tool"), classes("http"), classes("reward")), (23, 14, 11, 2));
    let call = spans.iter().find(|span| span["class"] == "llm").unwrap();
    assert!(call.get("attributes").is_none() && call["model"] == "claude-sonnet-4-5", "{call}");
    let path = |id: &str| format!("/v1/tracewire/rollouts/ro-team/attempts/at-1/spans/{id}");
    let whole = get(server, &path(call["id"].as_str().unwrap())).json();
    assert!(whole["attributes"]["gen_ai.input.messages"].as_str().unwrap().contains("nightly build"), "{whole}");
    assert_eq!(get(server, &path("0000000000000000")).status, 404);
    assert_eq!(get(server, "/v1/tracewire/rollouts/ro-none").status, 404);
    let calls = get(server, "/v1/tracewire/rollouts/ro-support-02/calls").json();
    assert_eq!(calls["calls"].as_array().unwrap().len(), 2);
    assert!(calls["calls"][1]["break"]["position"].is_u64(), "{calls}");
}

const TOKENS: &str = r#"
[[server.tokens]]
token = "whole-token"
[[server.tokens]]
token = "team-token"
rollouts = ["ro-a-*"]
[[server.tokens]]
token = "writer-token"
scopes = ["write"]
"#;

#[test]
fn tokens_of_a_call_get_values() {
    let bench = Bench::new();
    let serve = sampled(&bench);
    let server = serve.address("server");
    let calls = || get(server, "/v1/tracewire/rollouts/ro-support-01/calls").json();
    let tree = calls();
    let (call, attempt) = (&tree["calls"][0], tree["attempt_id"].as_str().unwrap());
    assert_eq!(call["annotations"], json!([]));
    let (prompt, sampled) = (call["prompt_tokens"].as_u64().unwrap(), call["sampled_tokens"].as_u64().unwrap());
    let span = call["span_id"].as_str().unwrap();
    let path = format!("/v1/tracewire/rollouts/ro-support-01/attempts/{attempt}/spans/{span}/annotations");
    let add = |name: &str, values: Vec<f64>| post(server, &path, &json!({"name": name, "values": values}));
    let values = |count: u64| (0..count).map(|at| at as f64 * 0.5 - 3.0).collect::<Vec<_>>();
    assert_eq!(add("advantage", values(sampled)).status, 200);
    assert_eq!(add("entropy", values(prompt + sampled)).status, 200);
    let latest = add("advantage", values(sampled)).json()["span_id"].as_str().unwrap().to_owned();
    let found = calls();
    let annotations = found["calls"][0]["annotations"].as_array().unwrap();
    assert_eq!(annotations.len(), 2, "{annotations:?}");
    assert!(annotations.contains(&json!({"name": "advantage", "span_id": latest})), "{annotations:?}");
    let stored = get(server, &format!("/v1/tracewire/rollouts/ro-support-01/attempts/{attempt}/spans/{latest}")).json();
    assert_eq!(stored["attributes"]["tracewire.annotation.values"], json!(values(sampled)));
    assert_eq!((&stored["parent_id"], &stored["name"]), (&json!(span), &json!("agentlightning.annotation")));
    for (body, place) in [
        (json!({"name": "x", "values": values(3)}), json!(["body", "values"])),
        (json!({"name": " ", "values": values(sampled)}), json!(["body", "name"])),
        (json!({"name": "x", "values": values(sampled), "choice": 1}), json!(["body", "choice"])),
        (json!({"name": "x", "values": ["a"]}), json!(["body", "values", 0])),
    ] {
        let wrong = post(server, &path, &body);
        assert_eq!((wrong.status, &wrong.json()["detail"][0]["loc"]), (422, &place), "{}", wrong.text());
    }
    assert_eq!(post(server, &path.replace(span, "0000"), &json!({"name": "x", "values": []})).status, 404);
    let verdict = get(server, "/v1/tracewire/rollouts/ro-support-01/verdict").json();
    assert_eq!(verdict["sound"], true, "an annotation is no reason against training: {verdict}");
}

/// Values and rewards are stored although their rollout is at its limit: an id that is returned can be read.
#[test]
fn limits_leave_out_no_values_of_tokens() {
    let bench = Bench::new();
    let serve = bench.gateway_without_backends(
        "[limits]\nmax_rollout_spans = 1\nmax_attributes = 1\nbeyond_rollout_limit = \"nothing\"\n",
    );
    let server = serve.address("server");
    post(server, "/api/rollouts", &json!([{"rollout_id": "ro-a", "input": {}}]));
    let call = |id: u32| {
        json!({"rollout_id": "ro-a", "attempt_id": "at-1", "sequence_id": id, "trace_id": "1".repeat(32), "span_id": format!("{id:016x}"),
            "parent_id": null, "name": "chat", "kind": "CLIENT", "status": {"status_code": "OK", "description": null}, "events": [], "links": [],
            "attributes": {"response_token_ids": [1, 2], "gen_ai.operation.name": "chat"}, "start_time": null, "end_time": null,
            "context": null, "parent": null, "resource": {"attributes": {}, "schema_url": ""}})
    };
    let running = json!({"status": {"state": "running", "last_attempt_id": "at-1"}});
    ask(server, "PATCH", "/api/rollouts/ro-a", &[("content-type", "application/json")], &running.to_string());
    for id in [1, 2] {
        assert_eq!(post(server, "/v1/agl/spans", &call(id)).status, 201);
    }
    let path = |span: &str| format!("/v1/tracewire/rollouts/ro-a/attempts/at-1/spans/{span}");
    let annotations = |id: u32| format!("{}/annotations", path(&format!("{id:016x}")));
    let values = json!({"name": "advantage", "values": [0.5, -0.5]});
    assert_eq!(post(server, &annotations(2), &values).status, 404, "the second call is beyond the limit");
    let added = post(server, &annotations(1), &values);
    assert_eq!(added.status, 200, "{}", added.text());
    let stored = get(server, &path(added.json()["span_id"].as_str().unwrap())).json();
    assert_eq!(stored["attributes"]["tracewire.annotation.values"], json!([0.5, -0.5]));
    let reward = json!({"event_type": "reward", "data": {"value": 1.0}});
    assert_eq!(post(server, "/api/rollouts/ro-a/attempt/at-1/events", &reward).status, 200);
    let events = get(server, "/api/rollouts/ro-a/events?event_type=reward").json();
    assert_eq!(events.as_array().map(Vec::len), Some(1), "{events}");
}

#[test]
fn the_quality_of_rollouts_is_added_up() {
    let bench = Bench::new();
    let serve = sampled(&bench);
    let quality = get(serve.address("server"), "/v1/tracewire/quality").json();
    let calls = quality["calls"].as_array().unwrap();
    let of = |model: &str| calls.iter().find(|group| group["model"] == model).unwrap_or_else(|| panic!("{quality}"));
    assert_eq!(of("qwen3-8b")["client"], "support-agent");
    assert!(of("qwen3-8b")["exact"].as_u64() > Some(20) && of("qwen3-8b")["none"].as_u64() > Some(0), "{quality}");
    assert_eq!((&of("claude-sonnet-4-5")["exact"], &of("claude-sonnet-4-5")["none"]), (&json!(0), &json!(15)));
    let named = |list: &str, name: &str| quality[list].as_array().unwrap().iter().any(|one| one["name"] == name);
    assert!(named("reasons", "missing_token_ids") && !named("reasons", "no_calls"), "{quality}");
    assert!(quality["breaks"].as_array().is_some_and(|breaks| !breaks.is_empty()), "{quality}");
    let one = get(serve.address("server"), "/v1/tracewire/quality?limit=1").json();
    assert!(one["rollouts"].as_u64() <= Some(1), "{one}");
}

#[test]
fn two_rollouts_are_compared_token_by_token() {
    let bench = Bench::new();
    let serve = sampled(&bench);
    let difference = |one: &str, other: &str| {
        let path = format!("/v1/tracewire/rollouts/{one}/difference?other={other}");
        get(serve.address("server"), &path)
    };
    let same = difference("ro-support-01", "ro-support-01").json();
    assert_eq!((&same["same_messages"], &same["tokens"]), (&json!(true), &Value::Null));
    let parted = difference("ro-support-01", "ro-support-09").json();
    assert_eq!(parted["tokens"]["list"], "prompt", "{parted}");
    assert_ne!(parted["tokens"]["ids"][0], parted["tokens"]["ids"][1]);
    assert_eq!(difference("ro-support-01", "ro-none").status, 404);
    assert_eq!(get(serve.address("server"), "/v1/tracewire/rollouts/ro-support-01/difference").status, 422);
}

#[test]
fn costs_are_shown_where_prices_are_set() {
    let bench = Bench::new();
    let prices = "[prices]\n\"qwen3*\" = { input = 1000, output = 2000 }\n";
    let serve = bench.gateway_without_backends(prices);
    let sample = root().join("tests/ui/sample.py");
    let filled = Command::new("python3").arg(sample).arg(serve.url("server")).arg(bench.store()).output().unwrap();
    assert!(filled.status.success(), "{}", text(&filled));
    let all = pages(&serve, "", &[]);
    let row = |id: &str| all.iter().find(|row| row["rollout_id"] == id).unwrap();
    let support = row("ro-support-01");
    let tokens = |name: &str| support["totals"][name].as_f64().unwrap();
    let expected = (tokens("input_tokens") * 1000.0 + tokens("output_tokens") * 2000.0) / 1e6;
    assert!((support["cost"]["amount"].as_f64().unwrap() - expected).abs() < 1e-9, "{support}");
    assert_eq!((&support["cost"]["is_partial"], &row("ro-team")["cost"]), (&json!(false), &Value::Null));
    assert_eq!(pages(&serve, "q=cost%3E0", &[]).len(), 26);
    assert_eq!(pages(&serve, "q=cost%3E100000", &[]).len(), 0);
}

#[test]
fn a_token_lists_only_its_own_rollouts() {
    let bench = Bench::new();
    let serve = bench.gateway_without_backends(TOKENS);
    let server = serve.address("server");
    let as_bearer = |token: &str, method: &str, path: &str, body: &str| -> Reply {
        ask(server, method, path, &[("authorization", &format!("Bearer {token}"))], body)
    };
    let new: Vec<Value> = (0..12)
        .map(|number| json!({ "rollout_id": format!("ro-{}-{number}", if number % 4 == 0 { "a" } else { "b" }), "input": number }))
        .collect();
    assert_eq!(as_bearer("whole-token", "POST", "/api/rollouts", &json!(new).to_string()).status, 201);
    let list = "/v1/tracewire/rollouts";
    assert_eq!(get(server, list).status, 401);
    assert_eq!(as_bearer("writer-token", "GET", list, "").status, 403);
    assert_eq!(pages(&serve, "limit=5", &[("authorization", "Bearer whole-token")]).len(), 12);
    let own = pages(&serve, "limit=2", &[("authorization", "Bearer team-token")]);
    assert_eq!(ids(&own), ["ro-a-8", "ro-a-4", "ro-a-0"]);
    let page = as_bearer("team-token", "GET", &format!("{list}?limit=2"), "").text();
    assert!(!page.contains("ro-b") && !page.contains("total\""), "{page}");
    // What a search says of its progress is about the whole store.
    let page = as_bearer("team-token", "GET", &format!("{list}?limit=2&q=text:nothing"), "").text();
    assert!(!page.contains("unsearched_spans") && !page.contains("searched_to"), "{page}");
    let page = as_bearer("whole-token", "GET", &format!("{list}?limit=2&q=text:nothing"), "").json();
    assert!(page["searched_to"].is_f64(), "{page}");
    for path in ["/v1/tracewire/rollouts/ro-b-1", "/v1/tracewire/rollouts/ro-b-1/spans", "/v1/tracewire/connect"] {
        assert_eq!(as_bearer("team-token", "GET", path, "").status, 403, "{path}");
    }
    // The files of the page have nothing of what is stored.
    assert_eq!(get(server, "/ui/").status, 200);
}

/// A page that registers a backend in every way that browsers have, and then says that it is done.
const ATTACK: &str = r#"<!doctype html><body><script>
const server = "http://SERVER", models = JSON.stringify([{ model: "evil", endpoint: "http://127.0.0.1:9/v1" }]);
const types = ["text/plain", "application/x-www-form-urlencoded", "application/json"];
const send = (options) => fetch(server + "/api/models", { method: "POST", body: models, ...options }).catch(() => {});
const form = (enctype) => new Promise((done) => {
  const frame = document.createElement("iframe"), form = document.createElement("form"), field = document.createElement("input");
  frame.name = enctype; frame.onload = done;
  Object.assign(form, { method: "POST", action: server + "/api/models", enctype, target: enctype });
  // With text/plain the body is valid JSON.
  field.name = '[{"model":"evil","endpoint":"http://127.0.0.1:9/v1","key":"'; field.value = '"}]';
  form.append(field); document.body.append(frame, form); form.submit(); setTimeout(done, 5000);
});
const socket = () => new Promise((done) => {
  const socket = new WebSocket(server.replace("http", "ws") + "/rollout/ro/attempt/0/v1/responses");
  socket.onopen = () => fetch("/opened").then(done); socket.onerror = done;
});
(async () => {
  await Promise.all(types.map((type) => send({ mode: "no-cors", body: new Blob([models], { type }) })));
  await send({ headers: { "content-type": "application/json" }, credentials: "include" });
  await send({ method: "PUT" });
  types.forEach((type) => navigator.sendBeacon(server + "/api/models", new Blob([models], { type })));
  const pause = () => new Blob(["{}"], { type: types[1] });
  navigator.sendBeacon(server + "/proxy/pause", pause());
  await fetch(server + "/proxy/pause", { method: "POST", mode: "no-cors", body: pause() }).catch(() => {});
  await Promise.all(["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"].map(form));
  await socket();
  await fetch("/done");
})();
</script></body>"#;

/// The attack of a page from another origin, and the same page from an origin that the settings allow.
#[test]
fn a_page_of_another_origin_changes_nothing_in_a_browser() {
    let Some(chromium) = chromium() else {
        let why = "Chromium is not here; scripts/install-clients installs it";
        assert!(std::env::var_os("TRACEWIRE_ALL_CLIENTS").is_none(), "{why}");
        return skipped("the attack of a web page", why);
    };
    for is_allowed in [false, true] {
        let bench = Bench::new();
        let target = Arc::new(OnceLock::<SocketAddr>::new());
        let (seen, requests) = channel();
        let (seen, shown) = (Mutex::new(seen), Arc::clone(&target));
        let page = endpoint(move |mut stream| {
            let head = read_head(&mut stream);
            let html = ATTACK.replace("SERVER", &shown.get().unwrap().to_string());
            let head_of_answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                html.len()
            );
            let _ = stream.write_all(format!("{head_of_answer}{html}").as_bytes());
            let _ = seen.lock().unwrap().send(head.split(' ').nth(1).unwrap_or_default().to_owned());
        });
        let origin = format!("http://localhost:{}", page.port());
        let settings = if is_allowed { format!("[server]\ncors_origins = [\"{origin}\"]\n") } else { String::new() };
        let serve = bench.gateway_without_backends(&settings);
        let server = serve.address("server");
        target.set(server).unwrap();
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Command::new(chromium);
        browser.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
        ]);
        browser.arg(format!("--user-data-dir={}", profile.path().display())).arg(&origin).stderr(Stdio::null());
        let mut browser = browser.stdout(Stdio::null()).spawn().unwrap();
        let mut paths = Vec::new();
        while paths.last().is_none_or(|path| path != "/done") {
            paths.push(requests.recv_timeout(TIMEOUT).unwrap());
        }
        browser.kill().unwrap();
        browser.wait().unwrap();
        let is_changed = get(server, "/api/models").json() != json!([]);
        let is_paused = get(server, "/proxy/state").json()["paused"] == true;
        assert_eq!((is_changed, is_paused), (is_allowed, is_allowed), "{}", get(server, "/proxy/state").text());
        assert!(is_allowed || !paths.iter().any(|path| path == "/opened"), "{paths:?}");
    }
}

/// Each view in Chromium: by keyboard, narrow, dark, with hostile content, live, with a token.
#[test]
fn the_page_works_in_a_browser() {
    let Some(mut command) = browser("the web page") else { return };
    let (bench, closed_bench) = (Bench::new(), Bench::new());
    let (serve, closed) = (sampled(&bench), closed_bench.gateway_without_backends(TOKENS));
    let shots = tempfile::tempdir().unwrap();
    command.arg(root().join("tests/ui/page_test.py")).args([serve.url("server"), closed.url("server")]);
    command.env("SCREENSHOTS", shots.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(post(serve.address("server"), "/api/rollouts", &json!([])).status, 201, "the server still answers");
}

#[test]
fn lists_in_the_terminal_take_the_same_query() {
    let bench = Bench::new();
    assert_eq!(sampled(&bench).stop(), Some(0));
    let list = |query: &[&str]| {
        let output = tracewire(bench.home()).args(["trace", "list"]).args(query).output().unwrap();
        (output.status.success(), text(&output))
    };
    let (_, found) = list(&["status:failed", "model:qwen*"]);
    let lines: Vec<&str> = found.lines().filter(|line| line.contains("ro-")).collect();
    assert_eq!(lines.len(), 3, "{found}");
    assert!(lines.iter().all(|line| line.contains("failed") && line.contains("qwen3")), "{found}");
    let (_, found) = list(&["task:order 4711", "--limit", "2"]);
    assert_eq!(found.matches("ro-support-").count(), 2, "{found}");
    let (_, found) = list(&["id:ro-team"]);
    assert!(found.contains("32k → 2.1k") && found.contains("why the nightly build"), "{found}");
    let (_, found) = list(&["text:was paid back", "--limit", "0"]);
    assert_eq!(found.matches("ro-support-").count(), 23, "{found}");
    let (_, found) = list(&["verdict:sound", "text:1138"]);
    assert!(found.contains(" sound ") && !found.contains("reason"), "{found}");
    let (succeeded, error) = list(&["text:?!"]);
    assert!(!succeeded && error.contains("has no letter or digit to search for\n  text:?!\n       ^^"), "{error}");
    let (succeeded, error) = list(&["a", "modle:x"]);
    assert!(!succeeded && error.contains("did you mean `model`?\n  a modle:x\n    ^^^^^"), "{error}");
    let output = tracewire(bench.home()).args(["trace", "list", "id:ro-team", "--json"]).output().unwrap();
    let rollouts: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&rollouts[0]["llm_calls"], &rollouts[0]["totals"]["rewards"][0]),
        (&json!(23), &json!(["primary", 1.0]))
    );
}

#[test]
fn the_page_of_a_store_has_a_token_of_its_own() {
    let bench = Bench::new();
    assert_eq!(sampled(&bench).stop(), Some(0));
    let mut command = tracewire(bench.home());
    let mut page = command.args(["ui", "--no-browser"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut url = String::new();
    BufReader::new(page.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let (address, token) = url.trim().trim_start_matches("http://").split_once("/ui/#/rollouts?token=").unwrap();
    let (address, bearer) = (address.parse().unwrap(), format!("Bearer {token}"));
    assert_eq!(get(address, "/ui/").status, 200);
    assert_eq!(get(address, "/v1/tracewire/rollouts").status, 401);
    let listed = ask(address, "GET", "/v1/tracewire/rollouts", &[("authorization", &bearer)], "");
    assert_eq!(listed.json()["total"], 29);
    // It only reads.
    let changed = ask(address, "DELETE", "/api/rollouts/ro-team", &[("authorization", &bearer)], "");
    assert_eq!(changed.status, 403);
    signal(page.id(), Signal::INT);
    assert!(page.wait().unwrap().success());
    let empty = tempfile::tempdir().unwrap();
    let missing = tracewire(empty.path()).args(["ui", "--no-browser"]).output().unwrap();
    assert!(!missing.status.success() && text(&missing).contains("there is no trace store"), "{}", text(&missing));
}
