//! The REST contracts of others' trainers, as their clients use them: Agent Lightning's (1.0) and that of rLLM's gateway.
//!
//! Every answer is compared whole. Only what a clock wrote is taken out before, once it is seen to be a time.

use crate::support::client::{Reply, ask, get, post, send, until_state};
use crate::support::{Bench, Running, endpoint, eventually, read_head, read_to_end};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, mpsc};

/// A call has one try. The model is the one that a trainer configures.
const ONE_TRY: &str = "[gateway]\nmodel = \"mock\"\nretries = 0\n";

/// Whoever trains, and its agents.
struct Trainer {
    server: SocketAddr,
    _serve: Running,
}

impl Trainer {
    fn new(bench: &Bench, settings: &str) -> Self {
        let serve = bench.gateway_without_backends(settings);
        Self { server: serve.address("server"), _serve: serve }
    }

    /// With the mock as the only server of the model.
    fn with_mock(bench: &Bench) -> Self {
        let trainer = Self::new(bench, ONE_TRY);
        trainer.serve_by(&format!("{}/v1", bench.http()));
        trainer
    }

    /// Has calls go to this server only, whose weights are of version 2.
    fn serve_by(&self, endpoint: &str) {
        self.send("DELETE", "/api/models", &Value::Null);
        let models = json!([{ "model": "mock", "endpoint": endpoint, "version": 2 }]);
        let (status, echo) = self.post("/api/models", &models);
        assert!(matches!(status, 200 | 201) && echo == models, "{status} {echo}");
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let reply = ask(self.server, method, path, &[], &if body.is_null() { String::new() } else { body.to_string() });
        (reply.status, if reply.body.is_empty() { Value::Null } else { reply.json() })
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send("POST", path, body)
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, &Value::Null)
    }

    /// Creates a rollout.
    fn create(&self, rollout: &str) -> Value {
        let (status, created) = self.post("/api/rollouts", &json!([{ "rollout_id": rollout, "input": {} }]));
        assert_eq!(status, 201, "{created}");
        created[0].clone()
    }

    /// A rollout as it is now.
    fn rollout(&self, rollout: &str) -> Value {
        self.get(&format!("/api/rollouts/{rollout}")).1["rollout"].take()
    }

    fn patch(&self, rollout: &str, body: &Value) -> (u16, Value) {
        self.send("PATCH", &format!("/api/rollouts/{rollout}"), body)
    }

    /// An agent's call of chat completions, by its first attempt.
    fn call(&self, rollout: &str, mode: &str, body: &Value) -> Reply {
        post(self.server, &call_path(rollout, mode, "chat/completions"), body)
    }

    fn report(&self, rollout: &str, attempt: &str, body: &Value) -> (u16, Value) {
        self.post(&format!("/api/rollouts/{rollout}/attempt/{attempt}/events"), body)
    }

    fn events(&self, rollout: &str, query: &str) -> Vec<Value> {
        let (status, events) = self.get(&format!("/api/rollouts/{rollout}/events{query}"));
        assert_eq!(status, 200, "{events}");
        events.as_array().unwrap().clone()
    }

    /// A rollout's only event, without what a clock wrote. It may be a moment behind an answer that is no answer.
    fn event(&self, rollout: &str) -> Value {
        let mut events = eventually(|| Some(self.events(rollout, "")).filter(|events| !events.is_empty()));
        assert_eq!(events.len(), 1, "{events:#?}");
        timeless_event(events.remove(0))
    }
}

fn call_path(rollout: &str, mode: &str, path: &str) -> String {
    format!("/proxy/rollout/{rollout}/attempt/0/mode/{mode}/openai/v1/{path}")
}

/// Seconds since 1970, in this century.
fn is_time(value: &Value) -> bool {
    value.as_f64().is_some_and(|seconds| (1.7e9..4.2e9).contains(&seconds))
}

/// A rollout without what a clock wrote.
fn timeless(mut rollout: Value) -> Value {
    let status = rollout["status"].as_object_mut().unwrap();
    let (created, updated) = (status.remove("created_at").unwrap(), status.remove("updated_at").unwrap());
    assert!(is_time(&created) && is_time(&updated) && created.as_f64() <= updated.as_f64(), "{created} {updated}");
    rollout
}

/// An event without what a clock wrote.
fn timeless_event(mut event: Value) -> Value {
    assert!(is_time(&event.as_object_mut().unwrap().remove("timestamp").unwrap()));
    if event["event_type"] == "model_request" {
        let latency = event["data"].as_object_mut().unwrap().remove("latency_ms").unwrap();
        assert!(latency.as_f64().is_some_and(|ms| (0.0..60_000.0).contains(&ms)), "{latency}");
    }
    event
}

/// The status of a rollout, without what a clock wrote: state, job, attempt, error, version.
fn status_of((state, job, attempt, error, version): (&str, Value, Value, Value, u64)) -> Value {
    json!({ "state": state, "k8s_job_name": job, "last_attempt_id": attempt, "error_message": error, "version": version })
}

/// A rollout that was just created.
fn fresh(rollout: &str, input: &Value) -> Value {
    json!({
        "rollout_id": rollout,
        "input": input,
        "is_train": true,
        "config": { "timeout_seconds": 3600, "local": null, "k8s": null },
        "metadata": { "batch_idx": null, "sample_idx_in_batch": null },
        "status": status_of(("queuing", Value::Null, Value::Null, Value::Null, 1)),
    })
}

/// A call's event as the contract has it.
fn model_request(rollout: &str, endpoint: &str, request: &Value, (http_status, response): (u16, &Value)) -> Value {
    json!({ "event_type": "model_request", "rollout_id": rollout, "attempt_id": "0", "data": {
        "model": "mock",
        "model_version": 2,
        "request": request,
        "response": response,
        "server": { "model": "mock", "endpoint": endpoint, "version": 2 },
        "http_status": http_status,
        "status": if http_status < 400 { "ok" } else { "error" },
        "retry_count": 0,
        "usage": response["usage"],
        "finish_reason": response["choices"][0]["finish_reason"],
    } })
}

/// An error of a schema, as FastAPI says it.
fn assert_schema_error((status, body): &(u16, Value), what: &str) {
    let problem = &body["detail"][0];
    let is_whole = problem["loc"].is_array() && problem["msg"].is_string() && problem["type"].is_string();
    assert!(*status == 422 && is_whole, "{what}: {status} {body}");
}

fn question(text: &str) -> Value {
    json!({ "messages": [{ "role": "user", "content": text }] })
}

/// A body with further fields, which win.
fn with(body: &Value, more: &Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// What a chat is asked for in train mode.
fn in_training(body: &Value) -> Value {
    with(body, &json!({ "model": "mock", "temperature": 1.0, "return_token_ids": true, "logprobs": true }))
}

/// What a model's server was asked: heads and bodies.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// A model's server: its base URL, and what it was asked. It answers calls with a status, a type and a body.
fn model_server(answer: impl Fn(&Value) -> (u16, &'static str, String) + Send + Sync + 'static) -> (String, Asked) {
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    let address = endpoint(move |mut stream| {
        let head = read_head(&mut stream).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        // Whether it is there is asked with GET.
        let is_call = head.starts_with("post ");
        let (status, kind, text) = if is_call { answer(&body) } else { (200, "application/json", "{}".to_owned()) };
        if is_call {
            noted.lock().unwrap().push((head, body));
        }
        let head = format!("HTTP/1.1 {status} So\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n", text.len());
        let _ = write!(stream, "{head}connection: close\r\n\r\n{text}");
    });
    (format!("http://{address}/v1"), asked)
}

/// A URL where nobody listens.
fn nobody() -> String {
    format!("http://{}/v1", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

#[test]
fn models_are_registered_changed_and_cleared() {
    let bench = Bench::new();
    let trainer = Trainer::new(&bench, ONE_TRY);
    assert_eq!(trainer.get("/healthz"), (200, json!({ "status": "ok" })));
    let endpoint = format!("{}/v1", bench.http());
    trainer.create("ro");
    for (sent, version) in [(json!({}), 0), (json!({ "version": 5 }), 5), (json!({ "version": 3 }), 3)] {
        let model = with(&json!({ "model": "mock", "endpoint": endpoint }), &sent);
        let echo = with(&model, &json!({ "version": version }));
        assert_eq!(trainer.post("/api/models", &json!([model])), (201, json!([echo])));
        trainer.call("ro", "train", &question("hi"));
        let data = trainer.events("ro", "").pop().unwrap()["data"].take();
        assert_eq!((&data["model_version"], &data["server"]), (&json!(version), &echo));
    }
    for wrong in [json!({}), json!([{ "model": "mock" }]), json!([{ "model": "mock", "endpoint": 1 }]), Value::Null] {
        assert_schema_error(&trainer.post("/api/models", &wrong), &wrong.to_string());
    }
    assert_eq!(trainer.send("DELETE", "/api/models", &Value::Null), (200, json!({ "status": "ok" })));
    assert_eq!(trainer.call("ro", "train", &question("hi")).status, 503);
}

#[test]
fn rollouts_are_created_once_and_listed_in_their_order() {
    let bench = Bench::new();
    let trainer = Trainer::new(&bench, ONE_TRY);
    let config = json!({ "timeout_seconds": 60, "local": {}, "k8s": { "job_template": "t" } });
    let second = json!({ "input": "text", "is_train": false, "config": config,
                         "metadata": { "batch_idx": 3, "tag": [1] }, "unknown": 1 });
    let first = json!({ "rollout_id": "z-first", "input": { "q": [1, null] } });
    let new = json!([first, second, { "rollout_id": "a-last", "input": null }]);
    let (status, created) = trainer.post("/api/rollouts", &new);
    assert_eq!(status, 201, "{created}");
    let given = created[1]["rollout_id"].as_str().unwrap();
    assert!(given.len() == 32 && given.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{given}");
    let config = json!({ "timeout_seconds": 60, "local": { "agent_class": null, "env_map": {} },
                         "k8s": { "job_template": "t" } });
    let metadata = json!({ "batch_idx": 3, "sample_idx_in_batch": null, "tag": [1] });
    let second = json!({ "is_train": false, "config": config, "metadata": metadata });
    assert_eq!(timeless(created[0].clone()), fresh("z-first", &first["input"]));
    assert_eq!(timeless(created[1].clone()), with(&fresh(given, &json!("text")), &second));
    assert_eq!(timeless(created[2].clone()), fresh("a-last", &Value::Null));

    for wrong in [
        json!({}),
        json!([{}]),
        json!([{ "input": 1, "is_train": [] }]),
        json!([{ "input": 1, "config": { "timeout_seconds": "x" } }]),
        json!([{ "input": 1, "rollout_id": 5 }]),
        Value::Null,
    ] {
        assert_schema_error(&trainer.post("/api/rollouts", &wrong), &wrong.to_string());
    }

    // Attempts are in the order of their first events.
    for attempt in ["9", "1", "9"] {
        assert_eq!(trainer.report("z-first", attempt, &json!({ "event_type": "note" })).0, 200);
    }
    let again = json!([{ "rollout_id": "z-first", "input": "other", "is_train": false }]);
    assert_eq!(trainer.post("/api/rollouts", &again), (201, json!([created[0]])));
    let one = json!({ "rollout": created[0], "attempts": ["9", "1"] });
    assert_eq!(trainer.get("/api/rollouts/z-first"), (200, one));
    let unknown = json!({ "detail": "Rollout not found: other" });
    assert_eq!(trainer.get("/api/rollouts/other"), (404, unknown));

    let running = trainer.patch("a-last", &json!({ "status": { "state": "running" } })).1;
    for (query, expected) in [
        ("state_in=queuing", json!([created[0], created[1]])),
        ("state_in=running", json!([running])),
        ("state_in=running&state_in=queuing", json!([created[0], created[1], running])),
        ("state_in=running&state_in=queuing&limit=2", json!([created[0], created[1]])),
        ("state_in=failed&state_in=succeeded", json!([])),
    ] {
        assert_eq!(trainer.get(&format!("/api/rollouts?{query}")), (200, expected), "{query}");
    }
    for wrong in ["", "limit=1", "state_in=cancelled", "state_in=queuing&state_in=Running", "state_in=queuing&limit=x"]
    {
        assert_schema_error(&trainer.get(&format!("/api/rollouts?{wrong}")), wrong);
    }
}

#[test]
fn what_is_null_is_as_what_is_not_there() {
    let bench = Bench::new();
    let trainer = Trainer::new(&bench, ONE_TRY);
    let nulls = json!([{ "rollout_id": null, "input": 1, "config": null, "metadata": null }]);
    let (status, created) = trainer.post("/api/rollouts", &nulls);
    assert_eq!(status, 201, "{created}");
    let id = created[0]["rollout_id"].as_str().unwrap();
    assert_eq!(timeless(created[0].clone()), fresh(id, &json!(1)));
    for nothing in [json!({}), json!({ "status": null })] {
        assert_eq!(trainer.patch(id, &nothing), (200, created[0].clone()));
    }
}

#[test]
fn states_follow_each_other_one_way() {
    const STATES: [&str; 4] = ["queuing", "running", "succeeded", "failed"];
    const ALLOWED: [(&str, &str); 4] =
        [("queuing", "running"), ("queuing", "failed"), ("running", "succeeded"), ("running", "failed")];
    let bench = Bench::new();
    let trainer = Trainer::new(&bench, ONE_TRY);
    for (from, way) in STATES.iter().zip([&[] as &[&str], &["running"], &["running", "succeeded"], &["failed"]]) {
        for to in STATES {
            let id = format!("{from}-{to}");
            trainer.create(&id);
            let go = |state: &str| trainer.patch(&id, &json!({ "status": { "state": state } }));
            way.iter().for_each(|state| assert_eq!(go(state).0, 200));
            let before = trainer.rollout(&id);
            let (status, answer) = go(to);
            let mut expected = timeless(before.clone());
            if ALLOWED.contains(&(from, to)) {
                expected["status"]["state"] = json!(to);
                expected["status"]["version"] = json!(way.len() + 2);
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
fn a_patch_writes_what_it_names() {
    let bench = Bench::new();
    let trainer = Trainer::new(&bench, ONE_TRY);
    let text = |text: &str| json!(text);
    let mut before = trainer.create("ro");
    let (queuing, no) = ("queuing", Value::Null);
    for (body, status, expected) in [
        (json!({ "status": {} }), 200, (queuing, no.clone(), no.clone(), no.clone(), 1)),
        (
            json!({ "status": { "k8s_job_name": "job", "error_message": "bad" }, "other": 1 }),
            200,
            (queuing, text("job"), no.clone(), text("bad"), 2),
        ),
        (json!({ "status": { "k8s_job_name": null } }), 200, (queuing, no.clone(), no.clone(), text("bad"), 3)),
        (json!({ "status": {}, "other": 1 }), 200, (queuing, no.clone(), no.clone(), text("bad"), 3)),
        (json!({ "status": { "state": null } }), 409, (queuing, no.clone(), no.clone(), text("bad"), 3)),
        (json!({ "status": { "state": "cancelled" } }), 422, (queuing, no.clone(), no.clone(), text("bad"), 3)),
        (json!({ "status": { "state": "running", "x": 1 } }), 422, (queuing, no.clone(), no.clone(), text("bad"), 3)),
        (json!({ "status": { "error_message": 1 } }), 422, (queuing, no.clone(), no.clone(), text("bad"), 3)),
        (
            json!({ "status": { "state": "running", "last_attempt_id": "7" } }),
            200,
            ("running", no.clone(), text("7"), text("bad"), 4),
        ),
        (
            json!({ "status": { "last_attempt_id": null, "error_message": null } }),
            200,
            ("running", no.clone(), no.clone(), no, 5),
        ),
    ] {
        let answer = trainer.patch("ro", &body);
        let after = trainer.rollout("ro");
        let is_written = after["status"]["version"] != before["status"]["version"];
        let later = after["status"]["updated_at"].as_f64() > before["status"]["updated_at"].as_f64();
        assert_eq!((answer.0, later), (status, is_written), "{body}: {}", answer.1);
        assert_eq!(timeless(after.clone())["status"], status_of(expected), "{body}");
        match status {
            200 => assert_eq!(answer.1, after, "{body}"),
            422 => assert_schema_error(&answer, &body.to_string()),
            _ => assert!(answer.1["detail"].as_str().unwrap().starts_with("Rollout ro: cannot transition queuing ->")),
        }
        before = after;
    }
    let unknown = trainer.patch("other", &json!({ "status": { "state": "running" } }));
    assert_eq!(unknown, (404, json!({ "detail": "Rollout not found: other" })));
}

#[test]
fn a_call_is_made_as_its_mode_says() {
    let bench = Bench::new();
    let (endpoint, asked) = model_server(|_| (200, "application/json", "{}".to_owned()));
    let own = format!("{ONE_TRY}include_log_probs = false\n[gateway.train]\ntemperature = 0.5\n");
    let sent = json!({ "model": "theirs", "temperature": 0.1, "logprobs": false, "return_token_ids": false, "x": [1] });
    let (chat, plain) = ("chat/completions", "completions");
    for (settings, mode, path, expected) in [
        (ONE_TRY, "train", chat, json!({ "temperature": 1.0, "logprobs": true })),
        // The contract's `true` is the number 1 to an engine, and a type error to another.
        (ONE_TRY, "train", plain, json!({ "temperature": 1.0, "logprobs": 1 })),
        (ONE_TRY, "val", chat, json!({ "temperature": 0.7 })),
        (ONE_TRY, "val", plain, json!({ "temperature": 0.7 })),
        (&own, "train", chat, json!({ "temperature": 0.5 })),
        (&own, "val", chat, json!({ "temperature": 0.7 })),
    ] {
        let trainer = Trainer::new(&bench, settings);
        trainer.serve_by(&format!("{endpoint}/"));
        let id = format!("{mode}-{path}-{}", settings.len()).replace('/', "-");
        trainer.create(&id);
        assert_eq!(post(trainer.server, &call_path(&id, mode, path), &sent).status, 200);
        let (head, body) = asked.lock().unwrap().pop().unwrap();
        let expected = with(&with(&sent, &json!({ "model": "mock", "return_token_ids": true })), &expected);
        assert_eq!(body, expected, "{id}");
        assert!(head.starts_with(&format!("post /v1/{path} http/1.1\r\n")), "{head}");
        assert_eq!(trainer.event(&id)["data"]["request"], expected);
    }
}

#[test]
fn no_field_of_an_agents_header_goes_on() {
    let bench = Bench::new();
    let (endpoint, asked) = model_server(|_| (200, "application/json", "{}".to_owned()));
    let trainer = Trainer::new(&bench, ONE_TRY);
    trainer.serve_by(&endpoint);
    trainer.create("ro");
    let names = ["authorization", "x-api-key", "cookie", "traceparent", "x-session-id", "x-stainless-lang"];
    let fields: Vec<_> = names.iter().map(|name| (*name, "agents-own")).collect();
    let path = call_path("ro", "train", "chat/completions");
    assert_eq!(ask(trainer.server, "POST", &path, &fields, "{}").status, 200);
    let head = asked.lock().unwrap().pop().unwrap().0;
    assert!(!head.contains("agents-own") && head.contains("content-type: application/json\r\n"), "{head}");
}

#[test]
fn an_answer_comes_whole_and_its_event_has_all_of_it() {
    let bench = Bench::new();
    let trainer = Trainer::with_mock(&bench);
    let (mock, endpoint) = (bench.mock.address("http"), format!("{}/v1", bench.http()));
    let completion = json!({ "prompt": "go on", "max_tokens": 5 });
    let as_completion = json!({ "model": "mock", "temperature": 1.0, "return_token_ids": true, "logprobs": 1 });
    for (path, sent, request) in [
        ("chat/completions", question("say something to me"), in_training(&question("say something to me"))),
        ("completions", completion.clone(), with(&completion, &as_completion)),
    ] {
        let id = path.replace('/', "-");
        trainer.create(&id);
        let given = post(mock, &format!("/v1/{path}"), &request).json();
        let choice = &given["choices"][0];
        assert!(!choice["token_ids"].as_array().unwrap().is_empty());
        let reply = post(trainer.server, &call_path(&id, "train", path), &sent);
        assert_eq!((reply.status, reply.json()), (200, given.clone()));
        assert_eq!(trainer.event(&id), model_request(&id, &endpoint, &request, (200, &given)));
        let prompt = given.get("prompt_token_ids").unwrap_or(&choice["prompt_token_ids"]);
        let logprobs = choice["logprobs"]["content"].as_array();
        let logprobs = logprobs.map(|all| all.iter().map(|one| one["logprob"].clone()).collect::<Vec<_>>());
        let triplet = json!({ "prompt_token_ids": prompt, "response_token_ids": choice["token_ids"],
            "response_log_probs": logprobs, "server": { "model": "mock", "version": 2 }, "http_status": 200,
            "status": "ok" });
        assert_eq!(trainer.events(&id, "?format=triplet")[0]["data"], triplet);
    }
}

#[test]
fn what_is_wrong_with_a_call_is_said_in_order() {
    let bench = Bench::new();
    let trainer = Trainer::new(&bench, &format!("{ONE_TRY}[[server.tokens]]\ntoken = \"k\"\n"));
    let (key, bearer) = (&[("x-api-key", "k")] as &[_], &[("authorization", "Bearer k")] as &[_]);
    let reply = ask(trainer.server, "POST", "/api/rollouts", key, "[{\"rollout_id\":\"ro\",\"input\":1}]");
    assert_eq!(reply.status, 201);
    assert_eq!(ask(trainer.server, "POST", "/proxy/pause", bearer, "{}").status, 200);
    let chat = "chat/completions";
    let detail = |text: &str| json!({ "detail": text });
    let no_key = detail("Invalid or missing API key");
    let refused = |headers: &[(&str, &str)], (rollout, mode, path): (&str, &str, &str), body: &str| {
        let reply = ask(trainer.server, "POST", &call_path(rollout, mode, path), headers, body);
        (reply.status, reply.json())
    };
    let mut wrong = Vec::new();
    for (headers, named, body, status, text) in [
        (&[] as &[_], ("no", "test", "files"), "{", 401, no_key.clone()),
        (&[("authorization", "bearer k")], ("no", "test", "files"), "{", 401, no_key.clone()),
        (&[("x-api-key", "x")], ("no", "test", "files"), "{", 401, no_key),
        (key, ("no", "test", "files"), "{", 404, detail("Unsupported proxy mode: test")),
        (bearer, ("no", "val", "files"), "{", 404, detail("Unsupported upstream path: files")),
        (bearer, ("no", "val", "models"), "{", 404, detail("Unsupported upstream path: models")),
        (bearer, ("ro", "val", "responses"), "{}", 404, detail("Unsupported upstream path: responses")),
        (bearer, ("ro", "train", "messages"), "{}", 404, detail("Unsupported upstream path: messages")),
        (bearer, ("no", "val", chat), "{", 404, detail("Rollout not found: no")),
        (bearer, ("ro", "val", chat), "{", 400, detail("Invalid JSON in request body")),
        (bearer, ("ro", "train", chat), "", 503, detail("No servers available for model 'mock'")),
    ] {
        let answer = refused(headers, named, body);
        if answer != (status, text.clone()) {
            wrong.push(format!("{named:?} {body:?}: {answer:?}, not {status} {text}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let model = "[{\"model\":\"mock\",\"endpoint\":\"http://127.0.0.1:1/v1\"}]";
    ask(trainer.server, "POST", "/api/models", key, model);
    assert_eq!(refused(key, ("ro", "train", chat), "{\"stream\":true}").0, 429, "a pause is said before all else");
    assert_eq!(get(trainer.server, "/healthz").status, 200);
    let events = ask(trainer.server, "GET", "/api/rollouts/ro/events", key, "").json();
    assert_eq!(events, json!([]), "what was never sent is no event");
}

#[test]
fn a_rollout_that_nobody_created_is_not_made_by_a_call() {
    let bench = Bench::new();
    let trainer = Trainer::with_mock(&bench);
    for _ in 0..2 {
        let reply = trainer.call("late", "train", &question("hi"));
        assert_eq!((reply.status, reply.json()), (404, json!({ "detail": "Rollout not found: late" })));
    }
    // A call of another rollout is stored after it.
    trainer.create("ro");
    trainer.call("ro", "train", &question("hi"));
    trainer.event("ro");
    let refused = trainer.report("late", "0", &json!({ "event_type": "note" }));
    assert_eq!(refused, (404, json!({ "detail": "Rollout not found: late" })));
    assert_eq!(trainer.get("/api/rollouts?state_in=running"), (200, json!([])));
    assert_eq!(timeless(trainer.create("late")), fresh("late", &json!({})));
}

#[test]
fn a_rollout_that_has_ended_may_still_call() {
    let bench = Bench::new();
    let trainer = Trainer::with_mock(&bench);
    trainer.create("ro");
    assert_eq!(trainer.patch("ro", &json!({ "status": { "state": "failed" } })).0, 200);
    assert_eq!(trainer.report("ro", "0", &json!({ "event_type": "note" })).0, 200);
    let reply = trainer.call("ro", "train", &question("hi"));
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[test]
fn a_pause_refuses_new_calls_and_lets_others_end() {
    let bench = Bench::new();
    let trainer = Trainer::new(&bench, ONE_TRY);
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let (endpoint, _) = model_server(move |_| {
        let _ = wait.lock().unwrap().recv();
        (200, "application/json", "{}".to_owned())
    });
    trainer.serve_by(&endpoint);
    trainer.create("ro");
    let state = |paused: bool, seconds: u64, reason: Option<&str>, inflight: u64| {
        let state = json!({ "paused": paused, "retry_after_seconds": seconds, "reason": reason, "inflight": inflight });
        (200, state)
    };
    let get_state = || trainer.get("/proxy/state");
    assert_eq!(get_state(), state(false, 5, None, 0));
    let path = call_path("ro", "train", "chat/completions");
    let mut waiting = send(trainer.server, "POST", &path, &[], &question("hi").to_string());
    until_state(trainer.server, |state| state["inflight"] == 1);

    for wrong in [Value::Null, json!([]), json!({ "retry_after_seconds": "x" }), json!({ "reason": 1 })] {
        assert_schema_error(&trainer.post("/proxy/pause", &wrong), &wrong.to_string());
    }
    for (body, seconds, reason) in [
        (json!({}), 5, None),
        (json!({ "retry_after_seconds": 9, "reason": "weights" }), 9, Some("weights")),
        (json!({ "retry_after_seconds": 7, "reason": null, "other": 1 }), 7, None),
    ] {
        assert_eq!(trainer.post("/proxy/pause", &body), state(true, seconds, reason, 1));
        let reply = trainer.call("ro", "train", &with(&question("hi"), &json!({ "stream": true })));
        assert_eq!((reply.status, reply.json()), (429, json!({ "error": "gateway paused", "reason": reason })));
        let fields = ["retry-after", "x-agl-paused", "content-type"].map(|name| reply.header(name).unwrap().to_owned());
        assert_eq!(fields, [seconds.to_string(), "true".to_owned(), "application/json".to_owned()]);
    }
    // The call was given to these weights before they changed.
    let newer = json!([{ "model": "mock", "endpoint": endpoint, "version": 9 }]);
    trainer.post("/api/models", &newer);
    go.send(()).unwrap();
    let answer = read_to_end(&mut waiting);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    until_state(trainer.server, |state| state["inflight"] == 0);
    let request = in_training(&question("hi"));
    assert_eq!(trainer.event("ro"), model_request("ro", &endpoint, &request, (200, &json!({}))));

    for _ in 0..2 {
        assert_eq!(trainer.post("/proxy/resume", &Value::Null), state(false, 7, None, 0));
    }
    assert_eq!(get_state(), state(false, 7, None, 0));
    go.send(()).unwrap();
    assert_eq!(trainer.call("ro", "val", &question("hi")).status, 200);
}

#[test]
fn events_are_those_of_one_attempt() {
    let bench = Bench::new();
    let trainer = Trainer::new(&bench, ONE_TRY);
    trainer.create("ro");
    let reward = json!({ "value": 1.5, "source": "agent", "message": "well done", "reason": null });
    let event = |attempt: &str, kind: &str, data: &Value| json!({ "event_type": kind, "rollout_id": "ro", "attempt_id": attempt, "data": data });
    for (attempt, kind, data) in
        [("7", "note", json!({ "a": [{}] })), ("7", "reward", reward.clone()), ("7", "reward", json!({ "other": 1 }))]
    {
        let (status, answer) = trainer.report("ro", attempt, &json!({ "event_type": kind, "data": data }));
        assert_eq!((status, timeless_event(answer)), (200, event(attempt, kind, &data)));
    }
    assert_eq!(trainer.events("ro", ""), [] as [Value; 0], "without a named attempt it is attempt 0");
    assert_eq!(trainer.report("ro", "0", &json!({ "event_type": "note" })).0, 200);
    let timeless =
        |query: &str| -> Vec<Value> { trainer.events("ro", query).into_iter().map(timeless_event).collect() };
    assert_eq!(timeless(""), [event("0", "note", &json!({}))]);
    trainer.patch("ro", &json!({ "status": { "last_attempt_id": "7" } }));
    let (note, first) = (event("7", "note", &json!({ "a": [{}] })), event("7", "reward", &reward));
    let last = event("7", "reward", &json!({ "other": 1 }));
    let shown = json!({ "value": 1.5, "source": "agent", "reason": null });
    let of_triplets = [event("7", "reward", &shown), event("7", "reward", &json!({ "value": null }))];
    for (query, expected) in [
        ("", vec![note.clone(), first.clone(), last.clone()]),
        ("?format=other", vec![note.clone(), first.clone(), last.clone()]),
        ("?event_type=reward", vec![first, last]),
        ("?event_type=model_request", vec![]),
        ("?format=triplet&event_type=note", vec![note]),
        ("?event_type=reward&format=triplet", of_triplets.to_vec()),
    ] {
        assert_eq!(timeless(query), expected, "{query}");
    }
    let unknown = (404, json!({ "detail": "Rollout not found: other" }));
    assert_eq!(trainer.report("other", "0", &json!({ "event_type": "note" })), unknown);
    assert_eq!(trainer.get("/api/rollouts/other/events"), unknown);
    for wrong in [json!({}), json!({ "event_type": 1 }), json!({ "event_type": "x", "data": [] }), Value::Null] {
        assert_schema_error(&trainer.report("ro", "0", &wrong), &wrong.to_string());
    }
}

#[test]
fn what_a_server_answers_is_an_event_whatever_it_is() {
    let bench = Bench::new();
    let trainer = Trainer::new(&bench, ONE_TRY);
    let request = in_training(&question("hi"));
    let (json_type, page) = ("application/json; charset=utf-8", "<html>no</html>");
    let error = json!({ "error": { "message": "bad" } });
    let stamped = json!({ "weight_version": "default", "choices": [{ "finish_reason": "", "token_ids": [3],
        "prompt_token_ids": [1], "logprobs": { "token_logprobs": [-0.5] } }], "usage": [1] });
    for (at, (status, kind, text, response)) in [
        (400, json_type, error.to_string(), error.clone()),
        (429, json_type, error.to_string(), error.clone()),
        (500, json_type, error.to_string(), error),
        (200, "text/html", page.to_owned(), json!({})),
        (403, "text/html", page.to_owned(), json!({})),
        (503, "text/plain", "{}{".to_owned(), json!({})),
        (200, json_type, stamped.to_string(), stamped),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("ro-{at}");
        let (endpoint, asked) = model_server(move |_| (status, kind, text.clone()));
        trainer.serve_by(&endpoint);
        trainer.create(&id);
        let reply = trainer.call(&id, "train", &question("hi"));
        assert_eq!((reply.status, reply.json(), asked.lock().unwrap().len()), (status, response.clone(), 1), "{id}");
        assert!(reply.header("content-type").unwrap().starts_with("application/json"), "{reply:?}");
        let mut expected = model_request(&id, &endpoint, &request, (status, &response));
        // What is no object is no usage, and an empty word no reason.
        (expected["data"]["usage"], expected["data"]["finish_reason"]) = (Value::Null, Value::Null);
        assert_eq!(trainer.event(&id), expected);
        let triplet = &trainer.events(&id, "?format=triplet")[0]["data"];
        assert_eq!(triplet.get("error"), response.get("error"), "{triplet}");
        let ids = if at == 6 { json!([[1], [3], [-0.5]]) } else { json!([[], [], null]) };
        let fields = ["prompt_token_ids", "response_token_ids", "response_log_probs"].map(|name| &triplet[name]);
        assert_eq!(json!(fields), ids, "{triplet}");
    }
}

#[test]
fn a_server_that_is_not_there_is_a_502_and_an_event() {
    let bench = Bench::new();
    let trainer = Trainer::new(&bench, ONE_TRY);
    let endpoint = nobody();
    trainer.serve_by(&endpoint);
    trainer.create("ro");
    let reply = trainer.call("ro", "train", &question("hi"));
    assert_eq!((reply.status, reply.json()), (502, json!({ "detail": "Upstream model server request failed" })));
    let expected = model_request("ro", &endpoint, &in_training(&question("hi")), (502, &json!({})));
    assert_eq!(trainer.event("ro"), expected);
}

#[test]
fn a_call_that_is_tried_again_is_one_event() {
    let bench = Bench::new();
    let trainer = Trainer::new(&bench, "[gateway]\nmodel = \"mock\"\nretries = 2\nretry_wait_ms = 1\n");
    let times = Mutex::new([503, 408].into_iter());
    let (endpoint, asked) =
        model_server(move |_| (times.lock().unwrap().next().unwrap_or(200), "application/json", "{}".to_owned()));
    trainer.serve_by(&endpoint);
    trainer.create("ro");
    assert_eq!(trainer.call("ro", "train", &question("hi")).status, 200);
    assert_eq!(asked.lock().unwrap().len(), 3);
    let mut expected = model_request("ro", &endpoint, &in_training(&question("hi")), (200, &json!({})));
    expected["data"]["retry_count"] = json!(2);
    assert_eq!(trainer.event("ro"), expected);
}

#[test]
fn a_stream_is_taken_and_its_event_has_the_ids() {
    let bench = Bench::new();
    let trainer = Trainer::with_mock(&bench);
    trainer.create("ro");
    let reply = trainer.call("ro", "train", &with(&question("say something"), &json!({ "stream": true })));
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")));
    let text = reply.text();
    let chunks: Vec<Value> =
        text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    let of_choices = |name: &str| -> Vec<Value> {
        chunks.iter().flat_map(|chunk| chunk["choices"][0][name].as_array().cloned().unwrap_or_default()).collect()
    };
    let (ids, event) = (of_choices("token_ids"), trainer.event("ro"));
    assert!(!ids.is_empty() && text.trim_end().ends_with("data: [DONE]"), "{text}");
    let response = &event["data"]["response"];
    assert_eq!(response["choices"][0]["token_ids"], json!(ids));
    assert_eq!(response["prompt_token_ids"], chunks[0]["prompt_token_ids"]);
    assert_eq!((&event["data"]["http_status"], &event["data"]["status"]), (&json!(200), &json!("ok")));
    let triplet = &trainer.events("ro", "?format=triplet")[0]["data"];
    assert_eq!(triplet["response_token_ids"], json!(ids));
    assert_eq!(triplet["response_log_probs"].as_array().map(Vec::len), Some(ids.len()));
}

#[test]
fn samples_of_one_prompt_are_all_kept() {
    let bench = Bench::new();
    let trainer = Trainer::with_mock(&bench);
    trainer.create("ro");
    let answers = ["hi", "other", "hi"].map(|text| trainer.call("ro", "train", &question(text)).json());
    assert_eq!(trainer.report("ro", "0", &json!({ "event_type": "reward", "data": { "value": 1 } })).0, 200);
    let prompts = |query: &str| -> Vec<Value> {
        let events = trainer.events("ro", query);
        events.iter().map(|event| event["data"]["prompt_token_ids"].clone()).collect()
    };
    let [first, other, last] = answers.each_ref().map(|answer| answer["prompt_token_ids"].clone());
    assert!(first == last && first != other);
    let all = [first, other.clone(), last.clone(), Value::Null];
    assert_eq!(prompts("?format=triplet"), all);
    // Agent Lightning's own way.
    assert_eq!(prompts("?format=triplet&dedup=last"), [other, last, Value::Null]);

    trainer.create("best-of-two");
    let reply = trainer.call("best-of-two", "train", &with(&question("hi"), &json!({ "n": 2 }))).json();
    let choices = &trainer.event("best-of-two")["data"]["response"]["choices"];
    assert_eq!((choices, choices.as_array().map(Vec::len)), (&reply["choices"], Some(2)));
    assert!(choices[1]["token_ids"].as_array().is_some_and(|ids| !ids.is_empty()), "{choices}");
}

#[test]
fn what_has_ended_is_read_page_by_page() {
    let bench = Bench::new();
    let trainer = Trainer::new(&bench, ONE_TRY);
    let mut items = Vec::new();
    for (at, (input, data_id, is_train)) in [
        (json!({ "data_id": "d", "instance_id": "i" }), "d", true),
        (json!({ "instance_id": 7 }), "7", false),
        (json!({ "data_id": 12 }), "12", true),
        (json!({}), "", true),
        (json!("data_id"), "", true),
        (json!({ "data_id": null, "instance_id": "b" }), "b", true),
    ]
    .into_iter()
    .enumerate()
    {
        // Later ones are earlier in a list by name.
        let id = format!("ro-{}", 9 - at);
        trainer.post("/api/rollouts", &json!([{ "rollout_id": id, "input": input, "is_train": is_train }]));
        let state = if at % 2 == 0 { "succeeded" } else { "failed" };
        for state in ["running", state] {
            assert_eq!(trainer.patch(&id, &json!({ "status": { "state": state } })).0, 200);
        }
        items.push(json!({ "rollout_id": id, "state": state, "data_id": data_id, "is_train": is_train }));
    }
    trainer.create("queuing");
    let page = |query: &str, items: &[Value], next_after: usize| {
        let expected = json!({ "items": items, "next_after": next_after, "total_terminal": 6 });
        assert_eq!(trainer.get(&format!("/api/rollouts/terminal{query}")), (200, expected), "{query}");
    };
    page("?after=1&limit=2", &items[1..3], 3);
    page("?after=5&limit=2", &items[5..], 6);
    page("?after=6", &[], 6);
    page("?after=99", &[], 99);
    page("?after=-3&limit=0", &items[..1], 1);
    page("", &items, 6);
    for wrong in ["after=x", "limit=x", "limit=1.5"] {
        assert_schema_error(&trainer.get(&format!("/api/rollouts/terminal?{wrong}")), wrong);
    }
    for id in ["ro-8", "ro-8", "never"] {
        assert_eq!(trainer.send("DELETE", &format!("/api/rollouts/{id}"), &Value::Null), (204, Value::Null));
    }
    page("?after=1&limit=2", &items[2..3], 3);
    let gone = (404, json!({ "detail": "Rollout not found: ro-8" }));
    assert_eq!((trainer.get("/api/rollouts/ro-8"), trainer.get("/api/rollouts/ro-8/events")), (gone.clone(), gone));
}

/// A gateway as rLLM's trainer sees it, with the mock as its worker.
fn with_worker(bench: &Bench) -> Trainer {
    let trainer = Trainer::new(bench, "[gateway]\nretries = 0\n");
    let worker = json!({ "url": bench.http(), "model_name": "mock", "worker_id": "w" });
    assert_eq!(trainer.post("/admin/workers", &worker).0, 200);
    trainer
}

fn in_session(trainer: &Trainer, session: &str, body: &Value) -> Reply {
    post(trainer.server, &format!("/sessions/{session}/v1/chat/completions"), body)
}

fn traces(trainer: &Trainer, session: &str) -> Vec<Value> {
    let (status, traces) = trainer.get(&format!("/sessions/{session}/traces"));
    assert_eq!(status, 200, "{traces}");
    traces.as_array().unwrap().clone()
}

#[test]
fn sessions_are_made_told_of_and_deleted() {
    let bench = Bench::new();
    let trainer = with_worker(&bench);
    let made = json!({ "session_id": "s", "url": "/sessions/s/v1" });
    let new = json!({ "session_id": "s", "metadata": { "k": [1] } });
    assert_eq!(trainer.post("/sessions", &new), (200, made));
    for body in ["", "{}", "no JSON", "{\"session_id\":null}"] {
        let reply = ask(trainer.server, "POST", "/sessions", &[], body);
        let id = reply.json()["session_id"].as_str().unwrap().to_owned();
        let made = json!({ "session_id": id, "url": format!("/sessions/{id}/v1") });
        assert_eq!((reply.status, reply.json(), id.len() >= 32), (200, made, true), "{body}");
        assert_eq!(trainer.send("DELETE", &format!("/sessions/{id}"), &Value::Null), (200, json!({ "deleted": 0 })));
    }
    let told = |session: &str| {
        let (status, mut info) = trainer.get(&format!("/sessions/{session}"));
        assert!(is_time(&info.as_object_mut().unwrap().remove("created_at").unwrap()));
        (status, info)
    };
    let info = |session: &str, count: u64, metadata: Value| json!({ "session_id": session, "trace_count": count, "metadata": metadata });
    assert_eq!(told("s"), (200, info("s", 0, json!({ "k": [1] }))));
    // The second is made by its call.
    for session in ["s", "s", "implicit"] {
        assert_eq!(in_session(&trainer, session, &question("hi")).status, 200);
    }
    assert_eq!(get(trainer.server, "/sessions/s/v1/models").status, 200);
    assert_eq!(trainer.post("/admin/flush", &Value::Null), (200, json!({ "status": "flushed" })));
    let expected = [info("s", 2, json!({ "k": [1] })), info("implicit", 1, json!({}))];
    assert_eq!([told("s").1, told("implicit").1], expected);
    let mut list = trainer.get("/sessions").1.as_array().unwrap().clone();
    list.iter_mut().for_each(|one| assert!(is_time(&one.as_object_mut().unwrap().remove("created_at").unwrap())));
    list.sort_by_key(|one| one["session_id"] == "implicit");
    assert_eq!(list, expected, "the models that an agent lists are no trace");
    let count = |query: &str| trainer.get(&format!("/sessions?{query}")).1.as_array().unwrap().len();
    assert_eq!([count("limit=1"), count("since=0"), count("since=4000000000")], [1, 2, 0]);

    let unknown = (404, json!({ "error": "Session no not found" }));
    assert_eq!((trainer.get("/sessions/no"), traces(&trainer, "no")), (unknown, vec![]));
    let deleted = |count: u64| (200, json!({ "deleted": count }));
    let many = |ids: &[&str]| trainer.post("/sessions/batch_delete", &json!({ "session_ids": ids }));
    assert_eq!(trainer.send("DELETE", "/sessions/no", &Value::Null), deleted(0));
    assert_eq!(many(&["s", "no", "implicit"]), deleted(3));
    assert_eq!((many(&[]), trainer.get("/sessions")), (deleted(0), (200, json!([]))));
}

#[test]
fn traces_are_what_the_worker_gave() {
    let bench = Bench::new();
    let trainer = with_worker(&bench);
    assert_eq!(trainer.post("/admin/weight_version", &json!({ "weight_version": 7 })).0, 200);
    let asked = with(&question("say something to me"), &json!({ "model": "mock", "top_p": 0.5 }));
    let asking = with(&asked, &json!({ "return_token_ids": true, "logprobs": true }));
    let given = post(bench.mock.address("http"), "/v1/chat/completions", &asking).json();
    let choice = &given["choices"][0];
    let logprobs: Vec<&Value> =
        choice["logprobs"]["content"].as_array().unwrap().iter().map(|token| &token["logprob"]).collect();

    // The agent sees what it would without us.
    let seen = in_session(&trainer, "s", &asked).json();
    assert!(seen["prompt_token_ids"].is_null() && seen["choices"][0]["token_ids"].is_null(), "{seen}");
    assert!(seen["choices"][0]["logprobs"].is_null(), "{seen}");
    assert_eq!((&seen["choices"][0]["message"], &seen["usage"]), (&choice["message"], &given["usage"]));
    let seen = in_session(&trainer, "s", &with(&asked, &json!({ "logprobs": true }))).json();
    assert_eq!(seen["choices"][0]["logprobs"], choice["logprobs"], "it asked for them");

    let mut traces = traces(&trainer, "s");
    assert_eq!(traces.len(), 2);
    for trace in &traces {
        let id = trace["trace_id"].as_str().unwrap();
        assert_eq!(trainer.get(&format!("/traces/{id}")), (200, trace.clone()));
    }
    let ids = |traces: &[Value]| traces.iter().map(|trace| trace["trace_id"].clone()).collect::<Vec<_>>();
    let times: Vec<f64> = traces.iter().map(|trace| trace["timestamp"].as_f64().unwrap()).collect();
    for (query, expected) in [
        ("limit=1".to_owned(), &traces[..1]),
        (format!("since={}", f64::midpoint(times[0], times[1])), &traces[1..]),
        ("since=4000000000".to_owned(), &traces[2..]),
    ] {
        let found = trainer.get(&format!("/sessions/s/traces?{query}")).1;
        assert_eq!(ids(found.as_array().unwrap()), ids(expected), "{query}");
    }
    let query = json!({ "session_ids": ["no", "s"] });
    assert_eq!(trainer.post("/traces/query", &query), (200, json!(traces)));
    assert_eq!(trainer.get("/traces/no"), (404, json!({ "error": "Trace no not found" })));

    let trace = traces[0].as_object_mut().unwrap();
    for name in ["timestamp", "latency_ms", "trace_id", "raw_request"] {
        let value = trace.remove(name).unwrap();
        match name {
            "timestamp" => assert!(is_time(&value), "{value}"),
            "latency_ms" => assert!(value.as_f64().is_some_and(|ms| ms > 0.0), "{value}"),
            "raw_request" => asked.as_object().unwrap().iter().for_each(|(name, sent)| assert_eq!(value[name], *sent)),
            _ => assert!(value.is_string()),
        }
    }
    let expected = json!({ "session_id": "s", "model": "mock", "messages": asked["messages"],
        "prompt_token_ids": given["prompt_token_ids"], "response_message": choice["message"],
        "completion_token_ids": choice["token_ids"], "logprobs": logprobs, "routing_matrices": null,
        "finish_reason": "stop", "weight_version": 7, "metadata": {}, "raw_response": given,
        "token_counts": { "prompt": given["usage"]["prompt_tokens"], "completion": given["usage"]["completion_tokens"] } });
    assert_eq!(json!(trace), expected);
}

#[test]
fn a_sessions_sampling_parameters_win() {
    let bench = Bench::new();
    let (endpoint, asked) = model_server(|_| (200, "application/json", "{}".to_owned()));
    let trainer = Trainer::new(&bench, "[gateway]\nretries = 0\n");
    trainer.post("/admin/workers", &json!({ "url": endpoint, "model_name": "mock" }));
    let params =
        json!({ "temperature": 0.3, "max_tokens": 9, "stop": ["x"], "ignore_eos": true, "stop_token_ids": [1] });
    trainer.post("/sessions", &json!({ "session_id": "s", "sampling_params": params }));
    let sent = with(&question("hi"), &json!({ "model": "mock", "temperature": 1.5, "max_tokens": 100, "top_p": 0.5 }));
    let asks = json!({ "logprobs": true, "return_token_ids": true });
    let asks_not = json!({ "logprobs": false, "return_token_ids": false });
    for (session, sent, expected) in [
        ("other", sent.clone(), with(&sent, &asks)),
        ("other", with(&sent, &asks_not), with(&sent, &asks_not)),
        ("s", sent.clone(), with(&with(&sent, &asks), &params)),
    ] {
        assert_eq!(in_session(&trainer, session, &sent).status, 200);
        let mut body = asked.lock().unwrap().pop().unwrap().1;
        // Ours: without it an engine may leave the list out.
        body.as_object_mut().unwrap().remove("top_logprobs");
        assert_eq!(body, expected, "{session}");
    }
}

#[test]
fn a_sessions_id_may_hold_slashes() {
    let bench = Bench::new();
    let trainer = with_worker(&bench);
    for (session, encoded) in [("task/hello:7", "task%2Fhello:7"), ("v1/x", "v1%2Fx"), ("a/v1b", "a%2Fv1b")] {
        assert_eq!(in_session(&trainer, session, &question("hi")).status, 200);
        let traces = traces(&trainer, encoded);
        assert_eq!((traces.len(), &traces[0]["session_id"]), (1, &json!(session)));
        let id = traces[0]["trace_id"].as_str().unwrap();
        assert_eq!(trainer.get(&format!("/traces/{id}")), (200, traces[0].clone()), "its client does not encode it");
        assert_eq!(trainer.send("DELETE", &format!("/sessions/{encoded}"), &Value::Null).1, json!({ "deleted": 1 }));
    }
    // The shortest id that leaves a tail wins: this one is `s`, and there is no such path below /v1.
    assert_eq!(in_session(&trainer, "s/v1", &question("hi")).status, 404);
}

#[test]
fn the_weights_version_is_the_gateways() {
    let bench = Bench::new();
    let trainer = Trainer::new(&bench, "[gateway]\nretries = 0\n");
    let (endpoint, _) = model_server(|body| {
        let stamp = if body["stamp"] == true { json!({ "weight_version": 12 }) } else { json!({}) };
        let answer = json!({ "id": "x", "choices": [{ "message": { "role": "assistant", "content": "hi" } }] });
        (200, "application/json", with(&answer, &stamp).to_string())
    });
    let add = || trainer.post("/admin/workers", &json!({ "url": endpoint, "model_name": "mock" }));
    let version = |version: Value| (200, json!({ "weight_version": version }));
    let seen = |more: Value| {
        assert_eq!(in_session(&trainer, "s", &with(&question("hi"), &more)).status, 200);
        traces(&trainer, "s").pop().unwrap()["weight_version"].take()
    };
    assert_eq!(trainer.get("/admin/weight_version"), version(Value::Null));
    // It is known before there is a worker, and whoever comes later has it.
    assert_eq!(trainer.post("/admin/weight_version", &json!({ "weight_version": 7 })), version(json!(7)));
    assert_eq!(trainer.get("/admin/weight_version"), version(json!(7)));
    add();
    assert_eq!((trainer.get("/admin/weight_version"), seen(json!({}))), (version(json!(7)), json!(7)));
    assert_eq!(seen(json!({ "stamp": true })), 12, "the engine's word wins");
    trainer.post("/admin/weight_version", &json!({ "weight_version": 8 }));
    add();
    assert_eq!(seen(json!({})), 8);
    for wrong in [json!({}), json!({ "weight_version": "7" }), json!({ "weight_version": 1.5 }), Value::Null] {
        let (status, body) = trainer.post("/admin/weight_version", &wrong);
        assert!(status == 400 && body["error"].is_string() && body.as_object().unwrap().len() == 1, "{wrong}: {body}");
    }
    assert_eq!(trainer.get("/admin/weight_version"), version(json!(8)));
}

#[test]
fn workers_come_and_go() {
    let bench = Bench::new();
    let trainer = Trainer::new(&bench, "[gateway]\nretries = 0\nprobe_interval_ms = 0\n");
    let (endpoint, asked) = model_server(|_| (200, "application/json", "{}".to_owned()));
    let base = endpoint.trim_end_matches("/v1");
    assert_eq!(trainer.get("/health"), (200, json!({ "status": "ok" })));
    assert_eq!(trainer.get("/admin/workers"), (200, json!([])));
    let mut listed = Vec::new();
    for (sent, api_path, model, weight) in [
        // As its client says it.
        (json!({ "url": base, "api_path": "/v1", "weight": 1 }), "/v1", Value::Null, 1),
        (json!({ "url": base, "model_name": "m", "weight": 3 }), "/v1", json!("m"), 3),
        (json!({ "url": format!("{base}/deep/v2"), "model_name": "m" }), "/deep/v2", json!("m"), 1),
        (json!({ "url": base, "api_path": "/v3", "model_name": "m" }), "/v3", json!("m"), 1),
    ] {
        let id = format!("w{}", listed.len());
        let (status, added) = trainer.post("/admin/workers", &with(&sent, &json!({ "worker_id": id })));
        assert_eq!((status, added), (200, json!({ "worker_id": id, "url": base, "api_path": api_path })));
        listed.push(json!({ "worker_id": id, "url": base, "api_path": api_path, "model_name": model,
            "weight": f64::from(weight), "healthy": true, "active_requests": 0 }));
    }
    assert_eq!(trainer.get("/admin/workers"), (200, json!(listed)));
    let health = json!({ "workers": listed, "healthy": 4, "total": 4 });
    assert_eq!(trainer.get("/health/workers"), (200, health));
    for id in ["w1", "w2", "w3"] {
        let path = format!("/admin/workers/{id}");
        assert_eq!(trainer.send("DELETE", &path, &Value::Null), (200, json!({ "removed": id })));
        let unknown = json!({ "error": format!("Worker {id} not found") });
        assert_eq!(trainer.send("DELETE", &path, &Value::Null), (404, unknown));
    }
    assert_eq!(trainer.get("/admin/workers"), (200, json!(listed[..1])));
    // A worker without a model is asked for the agent's.
    in_session(&trainer, "s", &with(&question("hi"), &json!({ "model": "theirs" })));
    assert_eq!(asked.lock().unwrap().pop().unwrap().1["model"], "theirs");
    for wrong in [json!({}), json!({ "url": "" }), json!({ "worker_id": "x" }), Value::Null] {
        assert_eq!(trainer.post("/admin/workers", &wrong), (400, json!({ "error": "url is required" })), "{wrong}");
    }
    assert_eq!(trainer.post("/admin/reload", &Value::Null), (200, json!({ "status": "ok" })));
}
