//! One rule for ids, at every interface: not empty, no control characters, at most 1024 bytes. And what looks like a key or a
//! password is not repeated where others read it.

use crate::support::client::{ask, get, post, send};
use crate::support::{Bench, Running, text, tracewire};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// Ids that are refused, with a word of the reason.
fn invalid_ids() -> [(String, &'static str); 5] {
    let texts = [("", "empty"), (" ", "empty"), ("a\nb", "control"), ("a\u{7f}", "control")];
    let [empty, space, line, delete] = texts.map(|(id, word)| (id.to_owned(), word));
    [empty, space, line, delete, ("x".repeat(4096), "1024")]
}

fn encoded(id: &str) -> String {
    id.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn span(change: &Value) -> Value {
    let mut span = json!({ "rollout_id": "ro", "attempt_id": "at", "sequence_id": 1, "trace_id": "t", "span_id": "s",
        "parent_id": null, "name": "n", "status": { "status_code": "OK", "description": null }, "attributes": {},
        "events": [], "links": [], "start_time": 1.0, "end_time": 2.0, "context": null, "parent": null,
        "resource": { "attributes": {}, "schema_url": "" } });
    span.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    span
}

#[test]
fn every_api_refuses_the_same_ids() {
    let bench = Bench::new();
    let serve = bench.gateway("");
    let server = serve.address("server");
    let chat = json!({ "model": "mock", "messages": [{ "role": "user", "content": "hi" }] });
    for (id, word) in invalid_ids() {
        // In bodies, of all APIs.
        for (path, body) in [
            ("/api/rollouts", json!([{ "rollout_id": id, "input": 1 }])),
            ("/v1/tracewire/keys", json!({ "rollout_id": id })),
            ("/v1/tracewire/keys", json!({ "rollout_id": "ro", "attempt_id": id })),
            ("/v1/agl/queues/rollouts/dequeue", json!({ "limit": 1, "worker_id": id })),
            ("/v1/agl/queues/rollouts/enqueue", json!({ "rollouts": [{ "input": 1, "resources_id": id }] })),
            ("/v1/agl/spans/next", json!({ "rollout_id": id, "attempt_id": "at" })),
            ("/v1/agl/spans", span(&json!({ "rollout_id": id }))),
            ("/v1/agl/spans", span(&json!({ "attempt_id": id }))),
            ("/v1/agl/spans", span(&json!({ "trace_id": id }))),
            ("/v1/agl/spans", span(&json!({ "span_id": id }))),
            ("/v1/agl/spans", span(&json!({ "parent_id": id }))),
            ("/v1/agl/waits/rollouts", json!({ "rollout_ids": ["ro", id], "timeout": 0 })),
        ] {
            let reply = post(server, path, &body);
            assert_eq!(reply.status, 422, "{path} {id:?}: {}", reply.text());
            assert!(reply.text().contains(word) && reply.body.len() < 4096, "{path} {id:?}: {}", reply.text());
        }
        if !id.is_empty() {
            let reply = post(server, "/sessions", &json!({ "session_id": id }));
            assert!(reply.status == 400 && reply.text().contains(word), "{id:?}: {}", reply.text());
            // In paths. A segment that is empty is another path.
            let coded = encoded(&id);
            for (method, path) in [
                ("GET", format!("/v1/agl/rollouts/{coded}")),
                ("POST", format!("/v1/agl/rollouts/ro/attempts/{coded}")),
                ("POST", format!("/v1/agl/workers/{coded}")),
                ("POST", format!("/v1/agl/resources/{coded}")),
                ("GET", format!("/api/rollouts/{coded}")),
                ("POST", format!("/api/rollouts/ro/attempt/{coded}/events")),
                ("GET", format!("/sessions/{coded}/traces")),
                ("GET", format!("/v1/tracewire/rollouts/{coded}/verdict")),
            ] {
                let reply = ask(server, method, &path, &[], "{}");
                assert!(reply.status == 422 && reply.text().contains(word), "{path}: {}", reply.text());
            }
            for path in [
                format!("/rollout/{coded}/attempt/0/v1/chat/completions"),
                format!("/rollout/ro/attempt/{coded}/v1/chat/completions"),
                format!("/sessions/{coded}/v1/chat/completions"),
                format!("/v1beta/models/{coded}:generateContent"),
            ] {
                let reply = post(server, &path, &chat);
                assert!(reply.status == 400 && reply.text().contains(word), "{path}: {}", reply.text());
            }
            let query = get(server, &format!("/v1/agl/spans?rollout_id={coded}"));
            assert_eq!(query.status, 422, "{}", query.text());
        }
        // In header fields, at the gateway and at the proxy. They can't hold a line break.
        if id != "a\nb" && id != "a\u{7f}" {
            for name in ["x-rollout-id", "x-attempt-id"] {
                let reply = ask(server, "POST", "/v1/chat/completions", &[(name, &id)], &chat.to_string());
                assert!(reply.status == 400 && reply.text().contains(word), "{name} {id:?}: {}", reply.text());
                let url = format!("{}/v1/models", bench.http());
                let reply = ask(serve.address("proxy"), "GET", &url, &[(name, &id)], "");
                assert!(reply.status == 400 && reply.text().contains(word), "{name} {id:?}: {}", reply.text());
                let reply = ask(server, "POST", "/v1/traces", &[(name, &id)], "{\"resourceSpans\":[]}");
                assert!(reply.status == 400 && reply.text().contains(word), "{name} {id:?}: {}", reply.text());
            }
        }
        for name in ["agentlightning.rollout_id", "agentlightning.attempt_id"] {
            let attributes = json!([{ "key": "agentlightning.rollout_id", "value": { "stringValue": "ro" } },
                { "key": name, "value": { "stringValue": id } }]);
            let one = json!({ "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331",
                "name": "step", "startTimeUnixNano": "1", "endTimeUnixNano": "2", "attributes": attributes });
            let reply =
                post(server, "/v1/traces", &json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [one] }] }] }));
            assert_eq!(
                (reply.status, &reply.json()["partialSuccess"]["rejectedSpans"]),
                (200, &json!("1")),
                "{name} {id:?}"
            );
            assert!(reply.text().contains(word), "{name} {id:?}: {}", reply.text());
        }
        let models = json!([{ "model": id, "endpoint": format!("{}/v1", bench.http()) }]);
        // A model without a name is every model.
        let expected = if id.is_empty() { 201 } else { 422 };
        assert_eq!(post(server, "/api/models", &models).status, expected, "{id:?}");
    }
    let rollouts = get(server, "/v1/agl/rollouts?limit=-1").json();
    let ids = rollouts["items"].as_array().unwrap().iter().map(|one| one["rollout_id"].as_str().unwrap().to_owned());
    for id in ids {
        assert!(!id.trim().is_empty() && id.len() < 100 && !id.chars().any(char::is_control), "{id:?} was created");
    }
    // What is unusual, but allowed.
    for id in ["a b", "ü/..", "日本 🙂"] {
        let reply = post(server, &format!("/rollout/{}/attempt/0/v1/chat/completions", encoded(id)), &chat);
        assert_eq!(reply.status, 200, "{id}: {}", reply.text());
        assert_eq!(post(server, "/api/rollouts", &json!([{ "rollout_id": id, "input": 1 }])).status, 201, "{id}");
    }
}

/// A request through the proxy with these credentials; the status.
fn through(proxy: SocketAddr, user: &str, url: &str) -> u16 {
    use base64::Engine as _;
    let credentials = base64::engine::general_purpose::STANDARD.encode(user);
    let mut stream = send(proxy, "GET", url, &[("proxy-authorization", &format!("Basic {credentials}"))], "");
    let mut line = [0; 12];
    stream.read_exact(&mut line).unwrap();
    std::str::from_utf8(&line[9..]).unwrap().parse().unwrap()
}

#[test]
fn user_names_of_the_proxy_follow_the_rule_too() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let url = format!("{}/v1/models", bench.http());
    for (user, expected) in
        [("ro-1.at-1:x", 200), ("a\nb:x", 407), ("ro.a%0ab:x", 407), (&format!("{}:x", "x".repeat(4096)), 407)]
    {
        assert_eq!(through(serve.address("proxy"), user, &url), expected, "{:.20}", user);
    }
}

#[test]
fn keys_and_passwords_are_not_repeated() {
    let bench = Bench::new();
    let key = format!("sk-proj-{}", "aB3dE5gH7jK9mN1pQ3sT5vW7".repeat(3));
    let mut serve = tracewire(bench.home());
    serve.args(["serve", "--json", "--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0"]).env("TRACEWIRE_LOG", "debug");
    let log = bench.home().join("log");
    serve.stderr(Stdio::from(fs::File::create(&log).unwrap()));
    let serve = Running::start(serve);
    let server = serve.address("server");
    let backend = |url: &str| post(server, "/v1/tracewire/backends", &json!({ "model": "m", "url": url }));
    let model = |url: &str| post(server, "/api/models", &json!([{ "model": "m", "endpoint": url }]));
    let worker = |url: &str| post(server, "/admin/workers", &json!({ "url": url, "model_name": "m" }));
    let (user, query) = ("http://user:hunter2-hunter2@127.0.0.1:9/v1", "http://127.0.0.1:9/v1?api_key=hunter2-hunter2");
    for reply in [backend(user), backend(query), model(user), model(query), worker(user)] {
        let is_refused = (400..500).contains(&reply.status);
        assert!(is_refused && !reply.text().contains("hunter2"), "{} {}", reply.status, reply.text());
    }
    let config = bench.home().join("backends.toml");
    let setting = "[gateway]\nbackends = [{ model = \"m\", url = \"http://user:hunter2-hunter2@h/v1\" }]\n";
    fs::write(&config, setting).unwrap();
    let refused = tracewire(bench.home()).args(["serve", "--config", config.to_str().unwrap()]).output().unwrap();
    assert!(!refused.status.success() && !text(&refused).contains("hunter2"), "{}", text(&refused));
    // A key in the place of an id.
    for reply in [
        get(server, &format!("/v1/agl/rollouts/{key}")),
        get(server, &format!("/sessions/{key}")),
        get(server, &format!("/api/rollouts/{key}")),
        post(server, "/v1/agl/spans/next", &json!({ "rollout_id": 5, "attempt_id": key })),
    ] {
        assert!((400..500).contains(&reply.status) && !reply.text().contains(&key), "{}", reply.text());
    }
    let call = json!({ "model": "m", "messages": [] }).to_string();
    let reply = ask(server, "POST", "/v1/chat/completions", &[("x-rollout-id", &key)], &call);
    assert_eq!(reply.status, 503, "{}", reply.text());
    let mut curl = Command::new("curl");
    curl.args(["-s", "-x", &serve.url("proxy"), "-H", &format!("x-rollout-id: {key}"), "http://127.0.0.1:9/"]);
    assert!(curl.env("NO_PROXY", "").output().unwrap().status.success());
    serve.stop();
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("rollout_id=sk-REDACTED") && !log.contains(&key) && !log.contains("hunter2"), "{log}");
}
