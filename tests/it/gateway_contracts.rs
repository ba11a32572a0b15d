//! The REST APIs of other trainers, as their clients use them: Agent Lightning 1.0, and rLLM.
//!
//! Every response is compared whole. Only times are removed before that, after a check that they are times.

use crate::support::client::{Reply, ask, post, send, until_state};
use crate::support::{Bench, Running, endpoint, eventually, read_head, read_to_end};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, mpsc};

/// A call has one try. The model is the one in the settings.
const ONE_TRY: &str = "[gateway]\nmodel = \"mock\"\nretries = 0\n";
const CHAT: &str = "chat/completions";
const NO: Value = Value::Null;

/// A trainer with its agents, and the server between them.
struct Trainer {
    server: SocketAddr,
    _serve: Running,
    bench: Bench,
}

impl Trainer {
    fn start(settings: &str) -> Self {
        let bench = Bench::new();
        let serve = bench.gateway_without_backends(settings);
        Self { server: serve.address("server"), _serve: serve, bench }
    }

    /// With one backend, which serves version 2 of the weights, and a rollout `ro`.
    fn with(endpoint: &str) -> Self {
        let trainer = Self::start(ONE_TRY);
        trainer.serve_by(endpoint);
        trainer.create("ro");
        trainer
    }

    /// With the mock as the backend, and a rollout `ro`. Also returns the base URL of the mock.
    fn with_mock() -> (Self, String) {
        let trainer = Self::start(ONE_TRY);
        let endpoint = format!("{}/v1", trainer.bench.http());
        trainer.serve_by(&endpoint);
        trainer.create("ro");
        (trainer, endpoint)
    }

    /// As rLLM's trainer starts it, with the mock as the worker.
    fn with_worker() -> Self {
        let trainer = Self::start("[gateway]\nretries = 0\n");
        trainer.ask("POST /admin/workers", &json!({ "url": trainer.bench.http(), "model_name": "mock" }));
        trainer
    }

    fn serve_by(&self, endpoint: &str) {
        self.ask("DELETE /api/models", &NO);
        let models = json!([{ "model": "mock", "endpoint": endpoint, "version": 2 }]);
        assert_eq!(self.ask("POST /api/models", &models).1, models);
    }

    /// Sends a request (`METHOD path`) with a body, unless that is null; returns the status and the body of the response.
    fn ask(&self, what: &str, body: &Value) -> (u16, Value) {
        let (method, path) = what.split_once(' ').unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = ask(self.server, method, path, &[], &body);
        (reply.status, if reply.body.is_empty() { NO } else { reply.json() })
    }

    /// Sends requests one after the other: method and path, body, and the expected status and body. A 422 must have the form of
    /// FastAPI.
    fn play(&self, script: &[(&str, Value, u16, Value)]) {
        for (what, body, status, expected) in script {
            let (code, answer) = self.ask(what, body);
            let problem = &answer["detail"][0];
            let fits = match status {
                422 => problem["loc"].is_array() && problem["msg"].is_string() && problem["type"].is_string(),
                _ => answer == *expected,
            };
            assert!(code == *status && fits, "{what} {body}: {code} {answer}, not {status} {expected}");
        }
    }

    fn create(&self, rollout: &str) -> Value {
        let (status, mut created) = self.ask("POST /api/rollouts", &json!([{ "rollout_id": rollout, "input": {} }]));
        assert_eq!(status, 201, "{created}");
        created[0].take()
    }

    fn rollout(&self, rollout: &str) -> Value {
        self.ask(&format!("GET /api/rollouts/{rollout}"), &NO).1["rollout"].take()
    }

    /// Changes the status of a rollout.
    fn patch(&self, rollout: &str, status: &Value) -> (u16, Value) {
        self.ask(&format!("PATCH /api/rollouts/{rollout}"), &json!({ "status": status, "other": 1 }))
    }

    /// A call of an agent in train mode.
    fn call(&self, rollout: &str, body: &Value) -> Reply {
        post(self.server, &call_path(rollout, "train", CHAT), body)
    }

    /// A call of an agent in a session.
    fn in_session(&self, session: &str, body: &Value) -> Reply {
        post(self.server, &format!("/sessions/{session}/v1/{CHAT}"), body)
    }

    fn list(&self, path: &str) -> Vec<Value> {
        let (status, list) = self.ask(&format!("GET {path}"), &NO);
        assert_eq!(status, 200, "{list}");
        list.as_array().unwrap().clone()
    }

    fn events(&self, rollout: &str, query: &str) -> Vec<Value> {
        self.list(&format!("/api/rollouts/{rollout}/events{query}")).into_iter().map(timeless_event).collect()
    }

    /// The only event of a rollout. It may be stored a moment after the call if there was no response.
    fn event(&self, rollout: &str) -> Value {
        let mut events = eventually(|| Some(self.events(rollout, "")).filter(|events| !events.is_empty()));
        assert_eq!(events.len(), 1, "{events:#?}");
        events.remove(0)
    }
}

fn call_path(rollout: &str, mode: &str, path: &str) -> String {
    format!("/proxy/rollout/{rollout}/attempt/0/mode/{mode}/openai/v1/{path}")
}

/// Removes a time from an object: seconds since 1970, in this century.
fn take_time(object: &mut Value, name: &str) -> f64 {
    let time = object.as_object_mut().unwrap().remove(name).and_then(|time| time.as_f64());
    time.filter(|seconds| (1.7e9..4.2e9).contains(seconds)).unwrap_or_else(|| panic!("no {name}: {object}"))
}

fn timeless(mut rollout: Value) -> Value {
    let status = &mut rollout["status"];
    assert!(take_time(status, "created_at") <= take_time(status, "updated_at"));
    rollout
}

fn timeless_event(mut event: Value) -> Value {
    take_time(&mut event, "timestamp");
    if let Some(data) = event["data"].as_object_mut() {
        // Ours, beside what the original has; gateway_agents tests them.
        data.retain(|name, _| !name.starts_with("token_ids_"));
    }
    if let Some(latency) = event["data"].as_object_mut().and_then(|data| data.remove("latency_ms")) {
        assert!(latency.as_f64().is_some_and(|ms| (0.0..60_000.0).contains(&ms)), "{latency}");
    }
    event
}

/// A new rollout, as the API shows it.
fn fresh(rollout: &str, input: &Value) -> Value {
    json!({ "rollout_id": rollout, "input": input, "is_train": true,
        "config": { "timeout_seconds": 3600, "local": null, "k8s": null },
        "metadata": { "batch_idx": null, "sample_idx_in_batch": null },
        "status": { "state": "queuing", "k8s_job_name": null, "last_attempt_id": null, "error_message": null,
                    "version": 1 } })
}

/// The event of a call, as the API shows it.
fn model_request(rollout: &str, endpoint: &str, request: &Value, (http_status, response): (u16, &Value)) -> Value {
    let status = if http_status < 400 { "ok" } else { "error" };
    let server = json!({ "model": "mock", "endpoint": endpoint, "version": 2 });
    json!({ "event_type": "model_request", "rollout_id": rollout, "attempt_id": "0", "data": {
        "model": "mock", "model_version": 2, "request": request, "response": response, "server": server,
        "http_status": http_status, "status": status, "retry_count": 0, "usage": response["usage"],
        "finish_reason": response["choices"][0]["finish_reason"] } })
}

fn question(text: &str) -> Value {
    json!({ "messages": [{ "role": "user", "content": text }] })
}

/// An object with further fields, which replace those of the same name.
fn with(object: &Value, more: &Value) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

/// The body that a backend gets for a chat in train mode.
fn in_training(body: &Value) -> Value {
    with(body, &json!({ "model": "mock", "temperature": 1.0, "return_token_ids": true, "logprobs": true }))
}

/// The heads and bodies of the requests to a backend.
type Requests = Arc<Mutex<Vec<(String, Value)>>>;

/// Starts a backend that responds to a call with a status, a content type and a body. Returns its base URL, and the requests that
/// it gets.
fn model_server(answer: impl Fn(&Value) -> (u16, &'static str, String) + Send + Sync + 'static) -> (String, Requests) {
    let requests = Requests::default();
    let noted = Arc::clone(&requests);
    let address = endpoint(move |mut stream| {
        let head = read_head(&mut stream).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        // Probes use GET.
        let (mut status, mut kind, mut text) = (200, "application/json", "{}".to_owned());
        if head.starts_with("post ") {
            noted.lock().unwrap().push((head, body.clone()));
            (status, kind, text) = answer(&body);
        }
        let head = format!("HTTP/1.1 {status} So\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n", text.len());
        let _ = write!(stream, "{head}connection: close\r\n\r\n{text}");
    });
    (format!("http://{address}/v1"), requests)
}

/// A backend that responds `{}`.
fn empty_server() -> (String, Requests) {
    model_server(|_| (200, "application/json", "{}".to_owned()))
}

#[test]
fn models_are_registered_changed_and_cleared() {
    let (trainer, endpoint) = Trainer::with_mock();
    for (sent, version) in [(json!({}), 0), (json!({ "version": 5 }), 5), (json!({ "version": 3 }), 3)] {
        let model = with(&json!({ "model": "mock", "endpoint": endpoint }), &sent);
        let echo = with(&model, &json!({ "version": version }));
        trainer.play(&[("POST /api/models", json!([model]), 201, json!([echo]))]);
        trainer.call("ro", &question("hi"));
        let data = trainer.events("ro", "").pop().unwrap()["data"].take();
        assert_eq!((&data["model_version"], &data["server"]), (&json!(version), &echo));
    }
    let wrong = |body: Value| ("POST /api/models", body, 422, NO);
    trainer.play(&[wrong(NO), wrong(json!({})), wrong(json!([{ "model": "mock" }])), wrong(json!([1]))]);
    let ok = json!({ "status": "ok" });
    trainer.play(&[("DELETE /api/models", NO, 200, ok.clone()), ("GET /healthz", NO, 200, ok)]);
    assert_eq!(trainer.call("ro", &question("hi")).status, 503);
}

#[test]
fn rollouts_are_created_once_and_listed_in_their_order() {
    let trainer = Trainer::start(ONE_TRY);
    let config = json!({ "timeout_seconds": 60, "local": {}, "k8s": { "job_template": "t" } });
    let metadata = json!({ "batch_idx": 3, "tag": [1] });
    let second = json!({ "input": "text", "is_train": false, "config": config, "metadata": metadata, "unknown": 1 });
    let first = json!({ "rollout_id": "z-first", "input": { "q": [1, null] } });
    let (status, new) =
        trainer.ask("POST /api/rollouts", &json!([first, second, { "rollout_id": "a-last", "input": null }]));
    assert_eq!(status, 201, "{new}");
    let from_mock = new[1]["rollout_id"].as_str().unwrap();
    assert!(
        from_mock.len() == 32 && from_mock.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
        "{from_mock}"
    );
    let config = with(&config, &json!({ "local": { "agent_class": null, "env_map": {} } }));
    let metadata = with(&metadata, &json!({ "sample_idx_in_batch": null }));
    let more = json!({ "is_train": false, "config": config, "metadata": metadata });
    assert_eq!(timeless(new[0].clone()), fresh("z-first", &first["input"]));
    assert_eq!(timeless(new[1].clone()), with(&fresh(from_mock, &json!("text")), &more));
    assert_eq!(timeless(new[2].clone()), fresh("a-last", &NO));

    let wrong = |body: Value| ("POST /api/rollouts", body, 422, NO);
    let wrong_config = wrong(json!([{ "input": 1, "config": { "timeout_seconds": "x" } }]));
    trainer.play(&[wrong(NO), wrong(json!({})), wrong(json!([{}])), wrong_config]);
    trainer.play(&[wrong(json!([{ "input": 1, "rollout_id": 5 }])), wrong(json!([{ "input": 1, "is_train": [] }]))]);

    // Attempts are in the order of their first events. Creating a rollout again changes nothing.
    for attempt in ["9", "1", "9"] {
        let note = json!({ "event_type": "note" });
        trainer.ask(&format!("POST /api/rollouts/z-first/attempt/{attempt}/events"), &note);
    }
    let again = json!([{ "rollout_id": "z-first", "input": "other", "is_train": false }]);
    let running = trainer.patch("a-last", &json!({ "state": "running" })).1;
    trainer.play(&[
        ("POST /api/rollouts", again, 201, json!([new[0]])),
        ("GET /api/rollouts/z-first", NO, 200, json!({ "rollout": new[0], "attempts": ["9", "1"] })),
        ("GET /api/rollouts/other", NO, 404, json!({ "detail": "Rollout not found: other" })),
        ("GET /api/rollouts?state_in=queuing", NO, 200, json!([new[0], new[1]])),
        ("GET /api/rollouts?state_in=running", NO, 200, json!([running])),
        ("GET /api/rollouts?state_in=running&state_in=queuing", NO, 200, json!([new[0], new[1], running])),
        ("GET /api/rollouts?state_in=running&state_in=queuing&limit=2", NO, 200, json!([new[0], new[1]])),
        ("GET /api/rollouts?state_in=failed&state_in=succeeded", NO, 200, json!([])),
        ("GET /api/rollouts", NO, 422, NO),
        ("GET /api/rollouts?limit=1", NO, 422, NO),
        ("GET /api/rollouts?state_in=queuing&state_in=cancelled", NO, 422, NO),
        ("GET /api/rollouts?state_in=queuing&limit=x", NO, 422, NO),
    ]);
}

#[test]
fn null_is_the_same_as_absent() {
    let trainer = Trainer::start(ONE_TRY);
    let nulls = json!([{ "rollout_id": "ro", "input": 1, "config": null, "metadata": null }]);
    let (status, new) = trainer.ask("POST /api/rollouts", &nulls);
    assert_eq!(status, 201, "{new}");
    assert_eq!(timeless(new[0].clone()), fresh("ro", &json!(1)));
    let patch = |body: Value| ("PATCH /api/rollouts/ro", body, 200, new[0].clone());
    trainer.play(&[patch(json!({ "status": {} })), patch(json!({ "status": null })), patch(json!({}))]);
}

#[test]
fn only_allowed_transitions_are_accepted() {
    let (queuing, running, succeeded, failed) = ("queuing", "running", "succeeded", "failed");
    let allowed = [(queuing, running), (queuing, failed), (running, succeeded), (running, failed)];
    let trainer = Trainer::start(ONE_TRY);
    for way in [&[queuing] as &[&str], &[queuing, running], &[queuing, running, succeeded], &[queuing, failed]] {
        for to in [queuing, running, succeeded, failed] {
            let from = *way.last().unwrap();
            let id = format!("{from}-{to}");
            trainer.create(&id);
            way[1..].iter().for_each(|state| assert_eq!(trainer.patch(&id, &json!({ "state": state })).0, 200));
            let before = trainer.rollout(&id);
            let (status, answer) = trainer.patch(&id, &json!({ "state": to }));
            if allowed.contains(&(from, to)) {
                let mut expected = timeless(before);
                (expected["status"]["state"], expected["status"]["version"]) = (json!(to), json!(way.len() + 1));
                assert_eq!((status, timeless(answer)), (200, expected), "{id}");
            } else {
                let text = format!("Rollout {id}: cannot transition {from} -> {to}");
                assert_eq!((status, answer), (409, json!({ "detail": text })));
                assert_eq!(trainer.rollout(&id), before, "{id}");
            }
        }
    }
}

#[test]
fn a_patch_changes_the_fields_that_it_names() {
    let trainer = Trainer::start(ONE_TRY);
    let mut before = trainer.create("ro");
    for (status, code, expected) in [
        (json!({}), 200, json!(["queuing", null, null, null, 1])),
        (json!({ "k8s_job_name": "job", "error_message": "bad" }), 200, json!(["queuing", "job", null, "bad", 2])),
        (json!({ "k8s_job_name": null }), 200, json!(["queuing", null, null, "bad", 3])),
        (json!({}), 200, json!(["queuing", null, null, "bad", 3])),
        (json!({ "state": null }), 409, json!(["queuing", null, null, "bad", 3])),
        (json!({ "state": "cancelled" }), 422, json!(["queuing", null, null, "bad", 3])),
        (json!({ "state": "running", "unknown": 1 }), 422, json!(["queuing", null, null, "bad", 3])),
        (json!({ "error_message": 1 }), 422, json!(["queuing", null, null, "bad", 3])),
        (json!({ "state": "running", "last_attempt_id": "7" }), 200, json!(["running", null, "7", "bad", 4])),
        (json!({ "last_attempt_id": null, "error_message": null }), 200, json!(["running", null, null, null, 5])),
    ] {
        let (seen, answer) = trainer.patch("ro", &status);
        let after = trainer.rollout("ro");
        let of = |name: &str| (&before["status"][name], &after["status"][name]);
        let fields = ["state", "k8s_job_name", "last_attempt_id", "error_message", "version"].map(|name| of(name).1);
        assert_eq!((seen, json!(fields)), (code, expected), "{status}: {answer}");
        let (versions, times) = (of("version"), of("updated_at"));
        assert_eq!(versions.0 != versions.1, times.0.as_f64() < times.1.as_f64(), "{status}");
        assert!(code != 200 || answer == after, "{status}: {answer}");
        before = after;
    }
    let state = json!({ "status": { "state": "running" } });
    trainer.play(&[("PATCH /api/rollouts/no", state, 404, json!({ "detail": "Rollout not found: no" }))]);
}

#[test]
fn sampling_parameters_follow_the_mode() {
    let (endpoint, requests) = empty_server();
    let by_default = Trainer::with(&format!("{endpoint}/"));
    let configured =
        Trainer::start(&format!("{ONE_TRY}include_log_probs = false\n[gateway.train]\ntemperature = 0.5\n"));
    configured.serve_by(&endpoint);
    configured.create("ro");
    let sent = json!({ "model": "theirs", "temperature": 0.1, "logprobs": false, "return_token_ids": false, "x": [1] });
    for (trainer, mode, path, set) in [
        (&by_default, "train", CHAT, json!({ "temperature": 1.0, "logprobs": true })),
        // Agent Lightning sends `true`; vLLM reads that as 1, other engines reject it.
        (&by_default, "train", "completions", json!({ "temperature": 1.0, "logprobs": 1 })),
        (&by_default, "val", CHAT, json!({ "temperature": 0.7 })),
        (&by_default, "val", "completions", json!({ "temperature": 0.7 })),
        (&configured, "train", CHAT, json!({ "temperature": 0.5 })),
        (&configured, "val", CHAT, json!({ "temperature": 0.7 })),
    ] {
        assert_eq!(post(trainer.server, &call_path("ro", mode, path), &sent).status, 200);
        let (head, body) = requests.lock().unwrap().pop().unwrap();
        let expected = with(&with(&sent, &json!({ "model": "mock", "return_token_ids": true })), &set);
        assert_eq!(body, expected, "{mode} {path}");
        assert!(head.starts_with(&format!("post /v1/{path} http/1.1\r\n")), "{head}");
        assert_eq!(trainer.events("ro", "").pop().unwrap()["data"]["request"], expected);
    }
}

#[test]
fn headers_of_agents_are_not_forwarded() {
    let (endpoint, requests) = empty_server();
    let trainer = Trainer::with(&endpoint);
    let names = ["authorization", "x-api-key", "cookie", "traceparent", "x-session-id", "x-stainless-lang"];
    let fields = names.map(|name| (name, "agents-own"));
    assert_eq!(ask(trainer.server, "POST", &call_path("ro", "train", CHAT), &fields, "{}").status, 200);
    let head = requests.lock().unwrap().pop().unwrap().0;
    assert!(!head.contains("agents-own") && head.contains("content-type: application/json\r\n"), "{head}");
}

#[test]
fn responses_are_unchanged_and_events_complete() {
    let (trainer, endpoint) = Trainer::with_mock();
    let prompt = json!({ "prompt": "go on", "max_tokens": 5 });
    for (path, sent, set) in
        [(CHAT, question("hello there"), json!({})), ("completions", prompt, json!({ "logprobs": 1 }))]
    {
        let (id, request) = (path.replace('/', "-"), with(&in_training(&sent), &set));
        trainer.create(&id);
        let from_mock = post(trainer.bench.mock.address("http"), &format!("/v1/{path}"), &request).json();
        let choice = &from_mock["choices"][0];
        assert!(choice["token_ids"].as_array().is_some_and(|ids| !ids.is_empty()), "{from_mock}");
        let reply = post(trainer.server, &call_path(&id, "train", path), &sent);
        assert_eq!((reply.status, reply.json()), (200, from_mock.clone()));
        assert_eq!(trainer.event(&id), model_request(&id, &endpoint, &request, (200, &from_mock)));
        let prompt = from_mock.get("prompt_token_ids").unwrap_or(&choice["prompt_token_ids"]);
        let logprobs = choice["logprobs"]["content"].as_array();
        let logprobs = logprobs.map(|tokens| tokens.iter().map(|token| &token["logprob"]).collect::<Vec<_>>());
        let triplet = json!({ "prompt_token_ids": prompt, "response_token_ids": choice["token_ids"], "status": "ok",
            "response_log_probs": logprobs, "server": { "model": "mock", "version": 2 }, "http_status": 200 });
        assert_eq!(trainer.events(&id, "?format=triplet")[0]["data"], triplet);
    }
}

#[test]
fn errors_are_checked_in_the_order_of_agent_lightning() {
    let trainer = Trainer::start(&format!("{ONE_TRY}[[server.tokens]]\ntoken = \"k\"\n"));
    let (key, bearer) = ([("x-api-key", "k")], [("authorization", "Bearer k")]);
    let say = |path: &str, fields: &[(&str, &str)], body: &str| ask(trainer.server, "POST", path, fields, body);
    assert_eq!(say("/api/rollouts", &key, "[{\"rollout_id\":\"ro\",\"input\":1}]").status, 201);
    assert_eq!(say("/proxy/pause", &bearer, "{}").status, 200);
    let no_key = "Invalid or missing API key";
    let mut wrong = Vec::new();
    for (field, (rollout, mode, path), body, status, text) in [
        (("x-no", "k"), ("no", "test", "files"), "{", 401, no_key),
        (("authorization", "bearer k"), ("no", "test", "files"), "{", 401, no_key),
        (("x-api-key", "x"), ("ro", "val", CHAT), "{}", 401, no_key),
        (key[0], ("no", "test", "files"), "{", 404, "Unsupported proxy mode: test"),
        (bearer[0], ("no", "val", "files"), "{", 404, "Unsupported upstream path: files"),
        // Agent Lightning serves two APIs, the gateway also the others.
        (key[0], ("no", "val", "responses"), "{", 404, "Rollout not found: no"),
        (key[0], ("ro", "train", "messages"), "{}", 503, "No servers available for model 'mock'"),
        (key[0], ("no", "val", CHAT), "{", 404, "Rollout not found: no"),
        (key[0], ("ro", "val", CHAT), "{", 400, "Invalid JSON in request body"),
        (key[0], ("ro", "train", CHAT), "", 503, "No servers available for model 'mock'"),
    ] {
        let reply = say(&call_path(rollout, mode, path), &[field], body);
        if (reply.status, reply.json()) != (status, json!({ "detail": text })) {
            wrong.push(format!("{} {}, not {status} {text}", reply.status, reply.text()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    say("/api/models", &key, "[{\"model\":\"mock\",\"endpoint\":\"http://127.0.0.1:1/v1\"}]");
    assert_eq!(say(&call_path("ro", "train", CHAT), &key, "{\"stream\":true}").status, 429);
    assert_eq!(ask(trainer.server, "GET", "/healthz", &[], "").status, 200);
    let events = ask(trainer.server, "GET", "/api/rollouts/ro/events", &key, "").json();
    assert_eq!(events, json!([]), "what was never sent is no event");
}

#[test]
fn a_call_does_not_create_a_rollout() {
    let (trainer, _) = Trainer::with_mock();
    let unknown = json!({ "detail": "Rollout not found: late" });
    assert_eq!(trainer.call("late", &question("hi")).json(), unknown);
    // A span of the refused call would be stored before that of this one.
    trainer.call("ro", &question("hi"));
    trainer.play(&[
        ("GET /api/rollouts/late", NO, 404, unknown.clone()),
        ("POST /api/rollouts/late/attempt/0/events", json!({ "event_type": "note" }), 404, unknown),
        ("GET /api/rollouts?state_in=running", NO, 200, json!([])),
    ]);
    assert_eq!(timeless(trainer.create("late")), fresh("late", &json!({})));
}

#[test]
fn a_rollout_that_has_ended_makes_no_calls() {
    // Agent Lightning does not check this. The samples of such a call would be lost.
    let (trainer, _) = Trainer::with_mock();
    assert_eq!(trainer.patch("ro", &json!({ "state": "failed" })).0, 200);
    let reply = trainer.call("ro", &question("hi"));
    assert_eq!((reply.status, reply.json()), (409, json!({ "detail": "rollout ro has ended (failed)" })));
}

#[test]
fn a_pause_refuses_new_calls_and_lets_others_end() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let (endpoint, _) = model_server(move |_| {
        let _ = wait.lock().unwrap().recv();
        (200, "application/json", "{}".to_owned())
    });
    let trainer = Trainer::with(&endpoint);
    let state = |paused: bool, (seconds, reason): (u64, Option<&str>), inflight: u64| -> Value {
        json!({ "paused": paused, "retry_after_seconds": seconds, "reason": reason, "inflight": inflight })
    };
    trainer.play(&[("GET /proxy/state", NO, 200, state(false, (5, None), 0))]);
    let path = call_path("ro", "train", CHAT);
    let mut waiting = send(trainer.server, "POST", &path, &[], &question("hi").to_string());
    until_state(trainer.server, |state| state["inflight"] == 1);
    let wrong = |body: Value| ("POST /proxy/pause", body, 422, NO);
    trainer.play(&[wrong(NO), wrong(json!([])), wrong(json!({ "retry_after_seconds": "x" }))]);
    for (body, seconds, reason) in [
        (json!({}), 5, None),
        (json!({ "retry_after_seconds": 9, "reason": "weights" }), 9, Some("weights")),
        (json!({ "retry_after_seconds": 7, "reason": null, "other": 1 }), 7, None),
    ] {
        trainer.play(&[("POST /proxy/pause", body, 200, state(true, (seconds, reason), 1))]);
        let reply = trainer.call("ro", &json!({ "stream": true }));
        assert_eq!((reply.status, reply.json()), (429, json!({ "error": "gateway paused", "reason": reason })));
        let fields = ["retry-after", "x-agl-paused", "content-type"].map(|name| reply.header(name).unwrap());
        assert_eq!(fields, [seconds.to_string().as_str(), "true", "application/json"]);
    }
    // The call was sent before the weights changed.
    trainer.ask("POST /api/models", &json!([{ "model": "mock", "endpoint": endpoint, "version": 9 }]));
    go.send(()).unwrap();
    let answer = read_to_end(&mut waiting);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    until_state(trainer.server, |state| state["inflight"] == 0);
    let expected = model_request("ro", &endpoint, &in_training(&question("hi")), (200, &json!({})));
    assert_eq!(trainer.event("ro"), expected);
    let open = state(false, (7, None), 0);
    trainer.play(
        &["POST /proxy/resume", "POST /proxy/resume", "GET /proxy/state"].map(|what| (what, NO, 200_u16, open.clone())),
    );
    go.send(()).unwrap();
    assert_eq!(trainer.call("ro", &question("hi")).status, 200);
}

#[test]
fn events_are_those_of_one_attempt() {
    let trainer = Trainer::start(ONE_TRY);
    trainer.create("ro");
    let event = |(attempt, kind, data): (&str, &str, &Value)| -> Value {
        json!({ "event_type": kind, "rollout_id": "ro", "attempt_id": attempt, "data": data })
    };
    let reward = json!({ "value": 1.5, "source": "agent", "message": "well done", "reason": null });
    let (note, other) = (json!({ "a": [{}] }), json!({ "other": 1 }));
    let posted = [("7", "note", &note), ("7", "reward", &reward), ("7", "reward", &other)];
    let report =
        |attempt: &str, body: &Value| trainer.ask(&format!("POST /api/rollouts/ro/attempt/{attempt}/events"), body);
    for (attempt, kind, data) in posted {
        let (status, answer) = report(attempt, &json!({ "event_type": kind, "data": data }));
        assert_eq!((status, timeless_event(answer)), (200, event((attempt, kind, data))));
    }
    assert!(trainer.events("ro", "").is_empty(), "the default is attempt 0");
    report("0", &json!({ "event_type": "note" }));
    assert_eq!(trainer.events("ro", ""), [event(("0", "note", &json!({})))]);
    trainer.patch("ro", &json!({ "last_attempt_id": "7" }));
    let all = posted.map(event);
    let shown = [json!({ "value": 1.5, "source": "agent", "reason": null }), json!({ "value": null })];
    let shown = shown.each_ref().map(|data| event(("7", "reward", data)));
    for (query, expected) in [
        ("", &all[..]),
        ("?format=other", &all[..]),
        ("?event_type=reward", &all[1..]),
        ("?event_type=model_request", &[][..]),
        ("?format=triplet&event_type=note", &all[..1]),
        ("?event_type=reward&format=triplet", &shown[..]),
    ] {
        assert_eq!(trainer.events("ro", query), expected, "{query}");
    }
    let unknown = json!({ "detail": "Rollout not found: no" });
    let wrong = |body: Value| ("POST /api/rollouts/ro/attempt/0/events", body, 422, NO);
    trainer.play(&[
        ("POST /api/rollouts/no/attempt/0/events", json!({ "event_type": "note" }), 404, unknown.clone()),
        ("GET /api/rollouts/no/events", NO, 404, unknown),
        wrong(NO),
        wrong(json!({ "event_type": 1 })),
        wrong(json!({ "event_type": "x", "data": [] })),
        wrong(json!({ "event_type": "reward", "data": { "value": "NaN" } })),
    ]);
    let not_finite = "{\"event_type\": \"reward\", \"data\": {\"value\": -Infinity}}";
    assert_eq!(ask(trainer.server, "POST", "/api/rollouts/ro/attempt/0/events", &[], not_finite).status, 422);
}

#[test]
fn every_response_of_a_backend_is_an_event() {
    let trainer = Trainer::start(ONE_TRY);
    let (json_type, page) = ("application/json; charset=utf-8", "<html>no</html>".to_owned());
    let error = json!({ "error": { "message": "bad" } });
    let stamped = json!({ "weight_version": "default", "choices": [{ "token_ids": [3], "prompt_token_ids": [1],
        "logprobs": { "token_logprobs": [-0.5] } }] });
    let (none, some) = (json!([[], [], null]), json!([[1], [3], [-0.5]]));
    for (at, (status, kind, text, response, ids)) in [
        (400, json_type, error.to_string(), &error, &none),
        (429, json_type, error.to_string(), &error, &none),
        (500, json_type, error.to_string(), &error, &none),
        (200, "text/html", page.clone(), &json!({}), &none),
        (503, "text/html", page, &json!({}), &none),
        // What an engine says about its weights does not replace the registered version.
        (200, json_type, stamped.to_string(), &stamped, &some),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("ro-{at}");
        let (endpoint, requests) = model_server(move |_| (status, kind, text.clone()));
        trainer.serve_by(&endpoint);
        trainer.create(&id);
        let reply = trainer.call(&id, &question("hi"));
        assert_eq!((reply.status, reply.json(), requests.lock().unwrap().len()), (status, response.clone(), 1), "{id}");
        let expected = model_request(&id, &endpoint, &in_training(&question("hi")), (status, response));
        assert_eq!(trainer.event(&id), expected);
        let triplet = trainer.events(&id, "?format=triplet")[0]["data"].take();
        let fields = ["prompt_token_ids", "response_token_ids", "response_log_probs"].map(|name| &triplet[name]);
        assert_eq!((&json!(fields), triplet.get("error")), (ids, response.get("error")), "{triplet}");
    }
}

#[test]
fn a_call_without_a_response_is_an_event() {
    // The port is closed.
    let endpoint = format!("http://{}/v1", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let trainer = Trainer::with(&endpoint);
    let reply = trainer.call("ro", &question("hi"));
    assert_eq!((reply.status, reply.json()), (502, json!({ "detail": "Upstream model server request failed" })));
    let expected = model_request("ro", &endpoint, &in_training(&question("hi")), (502, &json!({})));
    assert_eq!(trainer.event("ro"), expected);
}

#[test]
fn a_retried_call_is_one_event() {
    let trainer = Trainer::start("[gateway]\nmodel = \"mock\"\nretries = 2\nretry_wait_ms = 1\n");
    let statuses = Mutex::new([503, 408].into_iter());
    let next = move || statuses.lock().unwrap().next().unwrap_or(200);
    let (endpoint, requests) = model_server(move |_| (next(), "application/json", "{}".to_owned()));
    trainer.serve_by(&endpoint);
    trainer.create("ro");
    assert_eq!((trainer.call("ro", &question("hi")).status, requests.lock().unwrap().len()), (200, 3));
    let mut expected = model_request("ro", &endpoint, &in_training(&question("hi")), (200, &json!({})));
    expected["data"]["retry_count"] = json!(2);
    assert_eq!(trainer.event("ro"), expected);
}

#[test]
fn streams_have_token_ids_in_their_event() {
    let (trainer, _) = Trainer::with_mock();
    let reply = trainer.call("ro", &with(&question("say something"), &json!({ "stream": true })));
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")));
    let text = reply.text();
    let chunk = |line: &str| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok();
    let chunks: Vec<Value> = text.lines().filter_map(chunk).collect();
    let ids_of = |chunk: &Value| chunk["choices"][0]["token_ids"].as_array().cloned().unwrap_or_default();
    let (ids, prompt) = (json!(chunks.iter().flat_map(ids_of).collect::<Vec<_>>()), &chunks[0]["prompt_token_ids"]);
    assert!(ids != json!([]) && prompt.is_array() && text.trim_end().ends_with("data: [DONE]"), "{text}");
    let data = trainer.event("ro")["data"].take();
    assert_eq!((&data["http_status"], &data["request"]["stream"]), (&json!(200), &json!(true)));
    assert_eq!((&data["response"]["prompt_token_ids"], &data["response"]["choices"][0]["token_ids"]), (prompt, &ids));
    let triplet = trainer.events("ro", "?format=triplet")[0]["data"].take();
    assert_eq!((&triplet["prompt_token_ids"], &triplet["response_token_ids"]), (prompt, &ids));
    let logprobs = triplet["response_log_probs"].as_array().map(Vec::len);
    assert_eq!(logprobs, ids.as_array().map(Vec::len));
}

#[test]
fn one_sample_of_a_prompt_is_kept_or_all() {
    let (trainer, _) = Trainer::with_mock();
    let prompts =
        ["hi", "other", "hi"].map(|text| trainer.call("ro", &question(text)).json()["prompt_token_ids"].take());
    let reward = json!({ "event_type": "reward", "data": { "value": 1 } });
    trainer.ask("POST /api/rollouts/ro/attempt/0/events", &reward);
    let [first, other, last] = prompts;
    assert!(first == last && first != other);
    let kept = [other.clone(), last.clone(), NO];
    for (query, expected) in
        [("", &kept[..]), ("&dedup=all", &[first, other, last, NO][..]), ("&dedup=last", &kept[..])]
    {
        let mut events = trainer.events("ro", &format!("?format=triplet{query}"));
        let seen: Vec<Value> = events.iter_mut().map(|event| event["data"]["prompt_token_ids"].take()).collect();
        assert_eq!(seen, expected, "{query}");
    }
    trainer.create("two");
    let answer = trainer.call("two", &with(&question("hi"), &json!({ "n": 2 }))).json();
    let choices = trainer.event("two")["data"]["response"]["choices"].take();
    assert_eq!((&choices, choices.as_array().map(Vec::len)), (&answer["choices"], Some(2)));
    assert!(choices[1]["token_ids"].as_array().is_some_and(|ids| !ids.is_empty()), "{choices}");
}

#[test]
fn ended_rollouts_are_listed_in_pages() {
    let trainer = Trainer::start(ONE_TRY);
    let mut items = Vec::new();
    for (input, data_id) in [
        (json!({ "data_id": "d", "instance_id": "i" }), "d"),
        (json!({ "instance_id": 7 }), "7"),
        (json!({ "data_id": 12 }), "12"),
        (json!("data_id"), ""),
        (json!({ "data_id": null, "instance_id": "b" }), "b"),
    ] {
        // Sorted by name, later rollouts would come first.
        let (id, is_train) = (format!("ro-{}", 9 - items.len()), items.len() != 2);
        let state = if is_train { "succeeded" } else { "failed" };
        trainer.ask("POST /api/rollouts", &json!([{ "rollout_id": id, "input": input, "is_train": is_train }]));
        for state in ["running", state] {
            assert_eq!(trainer.patch(&id, &json!({ "state": state })).0, 200);
        }
        items.push(json!({ "rollout_id": id, "state": state, "data_id": data_id, "is_train": is_train }));
    }
    trainer.create("queuing");
    let page = |items: &[Value], next_after: u64| -> Value {
        json!({ "items": items, "next_after": next_after, "total_terminal": 5 })
    };
    let gone = json!({ "detail": "Rollout not found: ro-8" });
    trainer.play(&[
        ("GET /api/rollouts/terminal?after=1&limit=2", NO, 200, page(&items[1..3], 3)),
        ("GET /api/rollouts/terminal?after=4&limit=2", NO, 200, page(&items[4..], 5)),
        ("GET /api/rollouts/terminal?after=5", NO, 200, page(&[], 5)),
        ("GET /api/rollouts/terminal?after=99", NO, 200, page(&[], 99)),
        ("GET /api/rollouts/terminal?after=-3&limit=0", NO, 200, page(&items[..1], 1)),
        ("GET /api/rollouts/terminal", NO, 200, page(&items, 5)),
        ("GET /api/rollouts/terminal?after=x", NO, 422, NO),
        ("GET /api/rollouts/terminal?limit=1.5", NO, 422, NO),
        ("DELETE /api/rollouts/ro-8", NO, 204, NO),
        ("DELETE /api/rollouts/ro-8", NO, 204, NO),
        ("DELETE /api/rollouts/never", NO, 204, NO),
        ("GET /api/rollouts/terminal?after=1&limit=2", NO, 200, page(&items[2..3], 3)),
        ("GET /api/rollouts/ro-8", NO, 404, gone.clone()),
        ("GET /api/rollouts/ro-8/events", NO, 404, gone),
    ]);
}

#[test]
fn sessions_are_created_shown_and_deleted() {
    let trainer = Trainer::with_worker();
    let new = json!({ "session_id": "s", "metadata": { "k": [1] } });
    trainer.play(&[("POST /sessions", new, 200, json!({ "session_id": "s", "url": "/sessions/s/v1" }))]);
    for body in ["", "{}", "no JSON", "{\"session_id\":null}"] {
        let made = ask(trainer.server, "POST", "/sessions", &[], body).json();
        let id = made["session_id"].as_str().unwrap();
        assert_eq!((&made["url"], id.len() >= 32), (&json!(format!("/sessions/{id}/v1")), true), "{body}");
        trainer.play(&[(&format!("DELETE /sessions/{id}"), NO, 200, json!({ "deleted": 0 }))]);
    }
    // A call creates its session. Listing the models is not a trace.
    for session in ["s", "s", "own"] {
        assert_eq!(trainer.in_session(session, &question("hi")).status, 200);
    }
    assert_eq!(trainer.ask("GET /sessions/s/v1/models", &NO).0, 200);
    trainer.play(&[("POST /admin/flush", NO, 200, json!({ "status": "flushed" }))]);
    let (status, answer) = trainer.ask("GET /sessions/s", &NO);
    let mut infos = [answer, trainer.ask("GET /sessions/own", &NO).1];
    let mut list = trainer.list("/sessions");
    list.sort_by_key(|info| info["session_id"] == "own");
    assert_eq!((status, &list[..]), (200, &infos[..]), "the list tells what each tells");
    infos.iter_mut().for_each(|info| assert!(take_time(info, "created_at") > 0.0));
    let info = |id: &str, count: u64, metadata: Value| -> Value {
        json!({ "session_id": id, "trace_count": count, "metadata": metadata })
    };
    assert_eq!(infos, [info("s", 2, json!({ "k": [1] })), info("own", 1, json!({}))]);
    let counts = ["limit=1", "since=0", "since=4000000000"];
    assert_eq!(counts.map(|query| trainer.list(&format!("/sessions?{query}")).len()), [1, 2, 0]);
    trainer.play(&[
        ("GET /sessions/no", NO, 404, json!({ "error": "Session no not found" })),
        ("GET /sessions/no/traces", NO, 200, json!([])),
        ("DELETE /sessions/own", NO, 200, json!({ "deleted": 1 })),
        ("POST /sessions/batch_delete", json!({ "session_ids": ["s", "no", "own"] }), 200, json!({ "deleted": 2 })),
        ("GET /sessions", NO, 200, json!([])),
        ("GET /health", NO, 200, json!({ "status": "ok" })),
        ("POST /admin/reload", NO, 200, json!({ "status": "ok" })),
    ]);
}

#[test]
fn traces_are_the_responses_of_the_worker() {
    let trainer = Trainer::with_worker();
    trainer.ask("POST /admin/weight_version", &json!({ "weight_version": 7 }));
    let requests = with(&question("say something to me"), &json!({ "model": "mock", "top_p": 0.5 }));
    let with_ids = with(&requests, &json!({ "return_token_ids": true, "logprobs": true }));
    let from_mock = post(trainer.bench.mock.address("http"), &format!("/v1/{CHAT}"), &with_ids).json();
    let (choice, usage) = (&from_mock["choices"][0], &from_mock["usage"]);
    // The agent sees only what it requested.
    let seen = trainer.in_session("s", &requests).json();
    let choice_seen = &seen["choices"][0];
    assert!(
        seen["prompt_token_ids"].is_null() && choice_seen["token_ids"].is_null() && choice_seen["logprobs"].is_null(),
        "{seen}"
    );
    assert_eq!((&choice_seen["message"], &seen["usage"]), (&choice["message"], usage));
    let seen = trainer.in_session("s", &with(&requests, &json!({ "logprobs": true }))).json();
    assert_eq!(seen["choices"][0]["logprobs"], choice["logprobs"]);

    let mut traces = trainer.list("/sessions/s/traces");
    let times: Vec<f64> = traces.iter().map(|trace| trace["timestamp"].as_f64().unwrap()).collect();
    let since = format!("GET /sessions/s/traces?since={}", f64::midpoint(times[0], times[1]));
    let one = format!("GET /traces/{}", traces[1]["trace_id"].as_str().unwrap());
    trainer.play(&[
        ("GET /sessions/s/traces?limit=1", NO, 200, json!(traces[..1])),
        (&since, NO, 200, json!(traces[1..])),
        ("GET /sessions/s/traces?since=4000000000", NO, 200, json!([])),
        ("POST /traces/query", json!({ "session_ids": ["no", "s"] }), 200, json!(traces)),
        (&one, NO, 200, traces[1].clone()),
        ("GET /traces/no", NO, 404, json!({ "error": "Trace no not found" })),
    ]);
    assert_eq!(traces.len(), 2);
    let trace = &mut traces[0];
    take_time(trace, "timestamp");
    let [id, latency, request] =
        ["trace_id", "latency_ms", "raw_request"].map(|name| trace.as_object_mut().unwrap().remove(name).unwrap());
    assert!(id.is_string() && latency.as_f64().is_some_and(|ms| ms > 0.0), "{id} {latency}");
    requests.as_object().unwrap().iter().for_each(|(name, value)| assert_eq!(request[name], *value));
    let logprobs: Vec<Value> = choice["token_ids"].as_array().unwrap().iter().map(|_| json!(-0.25)).collect();
    let expected = json!({ "session_id": "s", "model": "mock", "messages": requests["messages"], "weight_version": 7,
        "prompt_token_ids": from_mock["prompt_token_ids"], "response_message": choice["message"], "metadata": {},
        "completion_token_ids": choice["token_ids"], "logprobs": logprobs, "routing_matrices": null,
        "finish_reason": "stop", "raw_response": from_mock,
        "token_counts": { "prompt": usage["prompt_tokens"], "completion": usage["completion_tokens"] } });
    assert_eq!(*trace, expected);
}

#[test]
fn sampling_parameters_of_a_session_replace_the_agents() {
    let (endpoint, requests) = empty_server();
    let trainer = Trainer::start("[gateway]\nretries = 0\n");
    trainer.ask("POST /admin/workers", &json!({ "url": endpoint, "model_name": "mock" }));
    let params =
        json!({ "temperature": 0.3, "max_tokens": 9, "stop": ["x"], "ignore_eos": true, "stop_token_ids": [1] });
    trainer.ask("POST /sessions", &json!({ "session_id": "s", "sampling_params": params }));
    let sent = with(&question("hi"), &json!({ "model": "mock", "temperature": 1.5, "max_tokens": 100, "top_p": 0.5 }));
    let with_ids = |with_ids: bool| with(&sent, &json!({ "logprobs": with_ids, "return_token_ids": with_ids }));
    for (session, sent, expected) in [
        ("no", &sent, with_ids(true)),
        ("no", &with_ids(false), with_ids(false)),
        ("s", &sent, with(&with_ids(true), &params)),
    ] {
        assert_eq!(trainer.in_session(session, sent).status, 200);
        let mut body = requests.lock().unwrap().pop().unwrap().1;
        // Tracewire adds this: without it an engine may leave the list out.
        body.as_object_mut().unwrap().remove("top_logprobs");
        assert_eq!(body, expected, "{session}");
    }
}

#[test]
fn session_ids_may_contain_slashes() {
    let trainer = Trainer::with_worker();
    for (session, encoded) in [("task/hello:7", "task%2Fhello:7"), ("v1/x", "v1%2Fx"), ("a/v1b", "a%2Fv1b")] {
        assert_eq!(trainer.in_session(session, &question("hi")).status, 200);
        let mut traces = trainer.list(&format!("/sessions/{encoded}/traces"));
        assert_eq!((traces.len(), &traces[0]["session_id"]), (1, &json!(session)));
        // rLLM's client does not encode the id of a trace.
        let one = format!("GET /traces/{}", traces[0]["trace_id"].as_str().unwrap());
        let delete = format!("DELETE /sessions/{encoded}");
        trainer.play(&[(&one, NO, 200, traces.remove(0)), (&delete, NO, 200, json!({ "deleted": 1 }))]);
    }
    // The shortest id is taken: here it is `s`, and no API has the path /v1/v1/…
    assert_eq!(trainer.in_session("s/v1", &question("hi")).status, 404);
}

#[test]
fn the_version_of_the_weights_is_set_for_all_workers() {
    let trainer = Trainer::start("[gateway]\nretries = 0\n");
    let (endpoint, _) = model_server(|body| {
        let answer = json!({ "id": "x", "choices": [{ "message": { "role": "assistant", "content": "hi" } }] });
        let stamp = body.get("stamp").map_or(json!({}), |stamp| json!({ "weight_version": stamp }));
        (200, "application/json", with(&answer, &stamp).to_string())
    });
    let worker = || trainer.ask("POST /admin/workers", &json!({ "url": endpoint, "model_name": "mock" }));
    let (version, named) = ("/admin/weight_version", |version: Value| json!({ "weight_version": version }));
    let (read, write) = (format!("GET {version}"), format!("POST {version}"));
    let call = |more: &Value| {
        assert_eq!(trainer.in_session("s", &with(&question("hi"), more)).status, 200);
        trainer.list("/sessions/s/traces").pop().unwrap()["weight_version"].take()
    };
    let wrong = |body: Value| (write.as_str(), body, 400, json!({ "error": "weight_version must be an integer" }));
    trainer.play(&[wrong(NO), wrong(json!({})), wrong(named(json!("7"))), wrong(named(json!(1.5)))]);
    // It can be set before there is a worker, and holds for later workers.
    trainer.play(&[(&read, NO, 200, named(NO)), (&write, named(json!(7)), 200, named(json!(7)))]);
    worker();
    trainer.play(&[(&read, NO, 200, named(json!(7)))]);
    assert_eq!(call(&json!({})), 7);
    assert_eq!(call(&json!({ "stamp": 12 })), 12, "the engine's word wins");
    trainer.ask(&write, &named(json!(8)));
    worker();
    assert_eq!(call(&json!({})), 8);
}

#[test]
fn workers_are_registered_and_removed() {
    let trainer = Trainer::start("[gateway]\nretries = 0\nprobe_interval_ms = 0\n");
    let (endpoint, requests) = empty_server();
    let base = endpoint.trim_end_matches("/v1");
    let mut listed = Vec::new();
    for (sent, api_path) in [
        // As rLLM's client writes it; the others as people do.
        (json!({ "url": base, "api_path": "/v1", "weight": 1 }), "/v1"),
        (json!({ "url": base, "model_name": "m", "weight": 3 }), "/v1"),
        (json!({ "url": format!("{base}/deep/v2"), "model_name": "m" }), "/deep/v2"),
        (json!({ "url": base, "api_path": "/v3", "model_name": "m" }), "/v3"),
    ] {
        let id = format!("w{}", listed.len());
        let added = json!({ "worker_id": id, "url": base, "api_path": api_path });
        trainer.play(&[("POST /admin/workers", with(&sent, &json!({ "worker_id": id })), 200, added.clone())]);
        let weight = sent["weight"].as_f64().unwrap_or(1.0);
        let more = json!({ "model_name": sent["model_name"], "weight": weight, "healthy": true, "active_requests": 0 });
        listed.push(with(&added, &more));
    }
    let wrong = |body: Value| ("POST /admin/workers", body, 400, json!({ "error": "url is required" }));
    trainer.play(&[
        ("GET /admin/workers", NO, 200, json!(listed)),
        ("GET /health/workers", NO, 200, json!({ "workers": listed, "healthy": 4, "total": 4 })),
        ("DELETE /admin/workers/w1", NO, 200, json!({ "removed": "w1" })),
        ("DELETE /admin/workers/w1", NO, 404, json!({ "error": "Worker w1 not found" })),
        ("DELETE /admin/workers/w2", NO, 200, json!({ "removed": "w2" })),
        ("DELETE /admin/workers/w3", NO, 200, json!({ "removed": "w3" })),
        ("GET /admin/workers", NO, 200, json!(listed[..1])),
        wrong(NO),
        wrong(json!({ "worker_id": "x" })),
        wrong(json!({ "url": "" })),
    ]);
    // A worker without a model gets the model that the agent names.
    trainer.in_session("s", &with(&question("hi"), &json!({ "model": "theirs" })));
    assert_eq!(requests.lock().unwrap().pop().unwrap().1["model"], "theirs");
}
