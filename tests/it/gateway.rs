//! The gateway: how calls are identified, sent to backends, retried, coalesced, paused and limited.

use crate::support::client::{ask, begin, get, post, register_model, send, until_state};
use crate::support::{Bench, Running, endpoint, eventually, is_exchange, read_head};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn chat(text: &str) -> Value {
    json!({ "model": "mock", "messages": [{ "role": "user", "content": text }] })
}

fn streamed(text: &str) -> Value {
    let mut body = chat(text);
    body["stream"] = true.into();
    body
}

fn path(rollout: &str) -> String {
    format!("/rollout/{rollout}/attempt/0/v1/chat/completions")
}

/// The spans of the LLM calls of a rollout that reached a backend, once there are `count`.
fn calls(bench: &Bench, rollout: &str, count: usize) -> Vec<Value> {
    eventually(|| {
        let spans = bench.spans(rollout);
        let calls: Vec<_> = spans
            .into_iter()
            .filter(|span| {
                span["attributes"]["gen_ai.operation.name"] == "chat"
                    && span["attributes"]["tracewire.gateway.backend"].is_string()
            })
            .collect();
        (calls.len() >= count).then_some(calls)
    })
}

/// The response of the mock to a request for token ids.
fn from_mock(bench: &Bench, body: &Value) -> Value {
    let mut body = body.clone();
    body["return_token_ids"] = true.into();
    body["logprobs"] = true.into();
    body.as_object_mut().unwrap().remove("stream");
    post(bench.mock.address("http"), "/v1/chat/completions", &body).json()
}

/// Reads a request with its body off a socket: its head in lower case; empty at the end of the connection.
fn read_request(stream: &mut TcpStream) -> String {
    let head = read_head(stream).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    head
}

/// A model server that answers the first calls with one response each, and all further calls with the last one. Also returns
/// the number of calls.
fn scripted(responses: &'static [(u16, &'static str, &'static str)]) -> (SocketAddr, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let address = endpoint(move |mut stream| {
        loop {
            let head = read_request(&mut stream);
            if head.is_empty() {
                return;
            }
            let (status, content_type, text) = if head.starts_with("get ") {
                (200, "application/json", "{}")
            } else {
                responses[count.fetch_add(1, Ordering::SeqCst).min(responses.len() - 1)]
            };
            let more = if status == 429 { "Retry-After: 0\r\n" } else { "" };
            let response = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\n{more}Content-Length: {}\r\n\r\n{text}",
                text.len()
            );
            if stream.write_all(response.as_bytes()).is_err() {
                return;
            }
        }
    });
    (address, calls)
}

fn register(serve: &Running, address: SocketAddr, more: &Value) {
    let mut backend = json!({ "model": "mock", "url": format!("http://{address}/v1") });
    backend.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let reply = post(serve.address("server"), "/v1/tracewire/backends", &backend);
    assert_eq!(reply.status, 200, "{}", reply.text());
}

const QUICK: &str = "[gateway]\nretry_wait_ms = 1\n";

#[test]
fn token_ids_are_recorded_and_hidden_from_the_agent() {
    let bench = Bench::with_mock(&["--vllm"]);
    let serve = bench.gateway("");
    for (at, body) in [chat("one two three"), streamed("one two three")].iter().enumerate() {
        let rollout = format!("ro-{at}");
        let reply = post(serve.address("server"), &path(&rollout), body);
        assert_eq!(reply.status, 200);
        // vLLM writes them as null if they are not requested.
        assert!(!reply.text().contains("token_ids\":["), "{}", reply.text());
        let from_mock = from_mock(&bench, body);
        let call = &calls(&bench, &rollout, 1)[0];
        assert_eq!(call["attributes"]["prompt_token_ids"], from_mock["prompt_token_ids"]);
        assert_eq!(call["attributes"]["response_token_ids"], from_mock["choices"][0]["token_ids"]);
        assert_eq!(call["attributes"]["tracewire.tokens.status"], "exact");
        assert_eq!(call["attributes"]["tracewire.identity.source"], "url");
        assert_eq!(call["attributes"]["tracewire.gateway.backend"], format!("{}/v1", bench.http()));
    }
}

#[test]
fn streams_are_forwarded_event_by_event() {
    let bench = Bench::new();
    let (serve, gate) = bench.gated_gateway("");
    gate.pass_events(1);
    let mut coming = begin(serve.address("server"), "POST", &path("ro"), &[], &streamed("x").to_string());
    // The backend sends no more until the agent has this.
    coming.line_with("data: ").unwrap();
    gate.open();
    assert!(coming.read().text().contains("[DONE]"));
}

#[test]
fn retryable_responses_are_retried_and_each_try_is_a_span() {
    let bench = Bench::new();
    let serve = bench.gateway_without_backends(QUICK);
    let whole = r#"{"id":"a","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}"#;
    const OK: &str = r#"{"id":"a","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}"#;
    let (address, requests) =
        scripted(&[(503, "text/plain", "busy"), (429, "application/json", "{}"), (200, "application/json", OK)]);
    register(&serve, address, &json!({ "engine": "openai" }));
    let reply = post(serve.address("server"), &path("ro"), &chat("x"));
    assert_eq!((reply.status, reply.text().as_str()), (200, whole));
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    let call = &calls(&bench, "ro", 1)[0];
    assert_eq!(call["attributes"]["http.request.resend_count"], 2);
    let spans = eventually(|| {
        let spans: Vec<_> = bench.spans("ro").into_iter().filter(is_exchange).collect();
        (spans.len() == 3).then_some(spans)
    });
    let tries: Vec<_> = spans.iter().filter(|span| span["parent_id"] == call["span_id"]).collect();
    let statuses: Vec<_> = tries.iter().map(|span| span["attributes"]["http.response.status_code"].clone()).collect();
    assert_eq!(statuses, [503, 429]);
    assert_eq!(tries[1]["attributes"]["http.request.resend_count"], 1);
    assert!(
        tries.iter().all(|span| span["sequence_id"] == call["sequence_id"] && span["status"]["status_code"] == "ERROR")
    );
}

#[test]
fn the_response_of_the_last_try_reaches_the_agent_unchanged() {
    let bench = Bench::new();
    let serve = bench.gateway_without_backends("[gateway]\nretries = 1\nretry_wait_ms = 1\n");
    let (address, requests) = scripted(&[(500, "application/json", r#"{"error":{"message":"no"}}"#)]);
    register(&serve, address, &json!({ "engine": "openai" }));
    let reply = post(serve.address("server"), &path("ro"), &chat("x"));
    assert_eq!((reply.status, reply.text().as_str()), (500, r#"{"error":{"message":"no"}}"#));
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[test]
fn another_backend_answers_when_one_is_down() {
    let bench = Bench::new();
    let serve = bench.gateway(QUICK);
    // The port is closed.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    register(&serve, gone, &json!({ "weight": 100.0 }));
    for at in 0..20 {
        let reply = post(serve.address("server"), &path(&format!("ro-{at}")), &chat("x"));
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let health = get(serve.address("server"), "/v1/tracewire/backends").json();
    let healthy: Vec<_> = health.as_array().unwrap().iter().map(|backend| backend["healthy"].clone()).collect();
    assert_eq!(healthy, [json!(true), json!(false)]);
}

/// A backend that restarts gets all retries. One that never responded has a wrong URL more likely: the agent is told soon.
#[test]
fn a_backend_that_never_responded_gets_few_retries() {
    let tries = |responses_before: usize| {
        let bench = Bench::new();
        let serve =
            bench.gateway_without_backends("[gateway]\nretries = 4\nretry_wait_ms = 1\nprobe_interval_ms = 0\n");
        let count = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&count);
        let address = endpoint(move |mut stream| {
            let is_call = read_request(&mut stream).starts_with("post ");
            if is_call && seen.fetch_add(1, Ordering::SeqCst) < responses_before {
                let body = r#"{"choices":[]}"#;
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ";
                stream.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
            }
        });
        register(&serve, address, &json!({ "engine": "openai" }));
        for _ in 0..responses_before {
            assert_eq!(post(serve.address("server"), &path("ro"), &chat("x")).status, 200);
        }
        let warnings = || get(serve.address("server"), "/readyz").json()["warnings"].to_string();
        assert_eq!(warnings(), "null");
        let reply = post(serve.address("server"), &path("ro-last"), &chat("x"));
        assert_eq!(reply.status, 502, "{}", reply.text());
        assert!(warnings().contains("calls to 1 of 1 backends fail"), "{}", warnings());
        count.load(Ordering::SeqCst)
    };
    assert_eq!((tries(0), tries(1)), (3, 1 + 5));
}

/// A backend that responds to `count` calls, and then listens no more. Also returns the thread that ends then.
fn mortal(address: &str, count: usize) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let listener = std::net::TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    let life = std::thread::spawn(move || {
        for _ in 0..count {
            let (mut stream, _) = listener.accept().unwrap();
            read_request(&mut stream);
            let body = r#"{"choices":[]}"#;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ";
            stream.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
        }
    });
    (address, life)
}

#[test]
fn a_backend_that_is_gone_is_told_within_seconds() {
    let bench = Bench::new();
    let serve = bench.gateway_without_backends("[gateway]\nprobe_interval_ms = 0\n");
    let (address, life) = mortal("127.0.0.1:0", 1);
    register(&serve, address, &json!({ "engine": "openai" }));
    assert_eq!(post(serve.address("server"), &path("ro"), &chat("x")).status, 200);
    life.join().unwrap();
    // The first call waits for it. Those that come later do not.
    for (rollout, limit) in [("ro-first", Duration::from_secs(6)), ("ro-later", Duration::from_secs(2))] {
        let start = Instant::now();
        let reply = post(serve.address("server"), &path(rollout), &chat("x"));
        assert_eq!(reply.status, 502, "{}", reply.text());
        assert!(
            reply.text().contains("unreachable for ") && reply.text().contains("unreachable_wait_ms"),
            "{}",
            reply.text()
        );
        assert!(start.elapsed() < limit, "{rollout} {:?}", start.elapsed());
    }
    let tries = |rollout: &str| {
        bench.spans(rollout).iter().filter(|span| span["attributes"]["tracewire.gateway.backend"].is_string()).count()
    };
    eventually(|| (tries("ro-first") > 2 && tries("ro-later") == 1).then_some(()));
}

/// What a trainer needs that restarts its engine between steps.
#[test]
fn a_call_waits_for_a_backend_that_restarts_if_a_setting_says_so() {
    let bench = Bench::new();
    let settings = "[gateway]\nretries = 1\nretry_wait_ms = 1\nretry_wait_max_ms = 1\nunreachable_wait_ms = 60000\nprobe_interval_ms = 0\n";
    let serve = bench.gateway_without_backends(settings);
    let (address, life) = mortal("127.0.0.1:0", 1);
    register(&serve, address, &json!({ "engine": "openai" }));
    assert_eq!(post(serve.address("server"), &path("ro"), &chat("x")).status, 200);
    life.join().unwrap();
    let server = serve.address("server");
    let call = std::thread::spawn(move || post(server, &path("ro-waiting"), &chat("x")).status);
    eventually(|| {
        let metrics = get(server, "/metrics").text();
        let failed = metrics
            .lines()
            .find_map(|line| line.strip_prefix("tracewire_gateway_failed_tries_total "))
            .unwrap()
            .parse::<u32>();
        (failed.unwrap() >= 4).then_some(())
    });
    let (_, life) = mortal(&address.to_string(), 1);
    assert_eq!(call.join().unwrap(), 200);
    life.join().unwrap();
}

#[test]
fn a_backend_that_breaks_off_before_the_first_byte_is_replaced() {
    let bench = Bench::new();
    let serve = bench.gateway_without_backends(QUICK);
    for head in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"id\":",
    ] {
        let dying = endpoint(move |mut stream| {
            read_head(&mut stream);
            let _ = stream.write_all(head.as_bytes());
        });
        register(&serve, dying, &json!({ "weight": 1000.0, "engine": "openai" }));
    }
    bench.register(&serve, 0);
    let reply = post(serve.address("server"), &path("ro"), &streamed("x"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.text().contains("[DONE]"));
    let call = &calls(&bench, "ro", 1)[0];
    assert_eq!(call["attributes"]["tracewire.outcome"], "complete");
}

#[test]
fn what_a_backend_sent_before_it_broke_off_reaches_the_agent() {
    const EVENTS: [&str; 3] = [
        "data: {\"id\":\"a\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n",
        "data: {\"id\":\"a\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: [DONE]\n\n",
    ];
    let bench = Bench::new();
    let serve = bench.gateway_without_backends(QUICK);
    // The connection is closed without the last chunk: HTTP says that the response broke off.
    let breaking = endpoint(|mut stream| {
        if read_request(&mut stream).starts_with("get ") {
            return;
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunks = EVENTS.map(|event| format!("{:x}\r\n{event}\r\n", event.len())).concat();
        let _ = stream.write_all(format!("{head}{chunks}").as_bytes());
    });
    register(&serve, breaking, &json!({ "engine": "openai" }));
    // Session routes deliver the end of a response after its span is stored. A call with a retry count can be coalesced.
    for path in [path("ro"), "/sessions/s/v1/chat/completions".to_owned()] {
        for headers in [&[][..], &[("x-stainless-retry-count", "0")][..]] {
            let body = streamed(&format!("{path}{headers:?}")).to_string();
            for _ in 0..20 {
                let reply = ask(serve.address("server"), "POST", &path, headers, &body);
                assert_eq!((reply.status, reply.text()), (200, EVENTS.concat()), "{path} {headers:?}");
            }
        }
    }
}

#[test]
fn a_backend_that_rejects_token_id_fields_gets_none() {
    const NO: &str = r#"{"error":{"message":"Unrecognized request argument supplied: return_token_ids","type":"invalid_request_error"}}"#;
    const OK: &str = r#"{"id":"a","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}"#;
    let bench = Bench::new();
    let serve = bench.gateway_without_backends(QUICK);
    let (address, requests) = scripted(&[(400, "application/json", NO), (200, "application/json", OK)]);
    register(&serve, address, &json!({}));
    for _ in 0..2 {
        assert_eq!(post(serve.address("server"), &path("ro"), &chat("x")).status, 200);
    }
    assert_eq!(requests.load(Ordering::SeqCst), 3, "one request with token ids, then none");
}

#[test]
fn a_backend_that_rejects_token_id_fields_does_not_speak_for_another() {
    const NO: &str = r#"{"error":{"message":"Unrecognized request argument supplied: return_token_ids"}}"#;
    const OK: &str = r#"{"id":"a","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}"#;
    let bench = Bench::new();
    let serve = bench.gateway_without_backends(QUICK);
    let (rejecting, _) = scripted(&[(400, "application/json", NO), (503, "text/plain", "busy")]);
    let (other, requests) = scripted(&[(200, "application/json", OK)]);
    register(&serve, rejecting, &json!({ "weight": 1e9 }));
    register(&serve, other, &json!({}));
    assert_eq!(post(serve.address("server"), &path("ro"), &chat("x")).status, 200);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    let backends = get(serve.address("server"), "/v1/tracewire/backends").json();
    assert_eq!(backends[1]["engine"], "auto", "{backends}");
    let call = &calls(&bench, "ro", 1)[0];
    assert_eq!(call["attributes"]["tracewire.tokens.injected"][0], "return_token_ids", "{call}");
}

#[test]
fn bad_requests_of_agents_are_not_retried() {
    const NO: &str = r#"{"error":{"message":"max_tokens is too large","type":"invalid_request_error"}}"#;
    let bench = Bench::new();
    let serve = bench.gateway_without_backends(QUICK);
    let (address, requests) = scripted(&[(400, "application/json", NO)]);
    register(&serve, address, &json!({}));
    let reply = post(serve.address("server"), &path("ro"), &chat("x"));
    assert_eq!((reply.status, reply.text().as_str()), (400, NO));
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[test]
fn a_paused_gateway_holds_calls_until_it_resumes() {
    let bench = Bench::new();
    let serve = bench.gateway("[gateway]\nkeepalive_ms = 20\n");
    let server = serve.address("server");
    post(server, "/proxy/pause", &json!({ "form": "hold", "reason": "weights" }));
    let mut stream = begin(server, "POST", &path("ro-s"), &[], &streamed("x").to_string());
    assert_eq!(stream.line_with(":").as_deref(), Some(": waiting"), "its head is there, and something to hear");
    let whole = std::thread::spawn(move || post(server, &path("ro-w"), &chat("x")));
    let state = get(server, "/proxy/state").json();
    assert_eq!((&state["paused"], &state["inflight"]), (&json!(true), &json!(0)));
    bench.register(&serve, 5);
    post(server, "/proxy/resume", &json!({}));
    assert_eq!(whole.join().unwrap().status, 200);
    assert!(stream.read().text().contains("[DONE]"));
    for rollout in ["ro-s", "ro-w"] {
        let call = &calls(&bench, rollout, 1)[0];
        assert_eq!(call["attributes"]["tracewire.policy.version"], "5");
    }
    assert!(calls(&bench, "ro-s", 1)[0]["attributes"]["tracewire.gateway.held_ms"].as_f64().unwrap() > 10.0);
}

#[test]
fn a_silent_stream_stays_audible() {
    let bench = Bench::new();
    let (serve, gate) = bench.gated_gateway("[gateway]\nkeepalive_ms = 20\n");
    let messages =
        json!({ "model": "mock", "max_tokens": 5, "stream": true, "messages": [{ "role": "user", "content": "x" }] });
    let contents = json!({ "contents": [{ "role": "user", "parts": [{ "text": "x" }] }] });
    for (rollout, path, body, heard) in [
        ("ro-c", "/v1/chat/completions", streamed("x"), ": waiting"),
        ("ro-m", "/v1/messages", messages, "event: ping"),
        ("ro-g", "/v1beta/models/mock:streamGenerateContent?alt=sse", contents, ": waiting"),
    ] {
        gate.pass_events(2);
        let target = format!("/rollout/{rollout}/attempt/0{path}");
        let mut coming = begin(serve.address("server"), "POST", &target, &[], &body.to_string());
        assert!(coming.line_with("data:").is_some(), "{rollout}");
        for _ in 0..2 {
            assert_eq!(coming.line_with(heard).as_deref(), Some(heard), "{rollout}");
        }
        gate.open();
        coming.read();
        let call = &calls(&bench, rollout, 1)[0];
        assert_eq!(call["attributes"]["tracewire.tokens.status"], "exact", "keepalives are not recorded");
    }
}

#[test]
fn a_hold_timeout_is_an_error_in_the_format_of_the_api() {
    let bench = Bench::new();
    let serve = bench.gateway("[gateway]\nkeepalive_ms = 20\nhold_timeout_ms = 1000\npause = \"hold\"\n");
    let server = serve.address("server");
    post(server, "/proxy/pause", &json!({}));
    let reply = post(server, &path("ro"), &chat("x"));
    assert_eq!(reply.status, 503);
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("was paused"), "{}", reply.text());
    let messages =
        json!({ "model": "mock", "max_tokens": 5, "stream": true, "messages": [{ "role": "user", "content": "x" }] });
    let reply = post(server, "/rollout/ro/attempt/0/v1/messages", &messages);
    assert_eq!(reply.status, 200, "its head was sent while it waited");
    assert!(reply.text().contains("event: ping") && reply.text().contains("event: error"), "{}", reply.text());
    let spans = eventually(|| {
        Some(bench.spans("ro")).filter(|spans| spans.iter().filter(|span| is_exchange(span)).count() == 2)
    });
    assert!(
        spans
            .iter()
            .filter(|span| is_exchange(span))
            .all(|span| span["attributes"]["error.type"] == "gateway_hold_timeout")
    );
}

#[test]
fn spans_record_the_token_at_which_the_weights_changed() {
    let bench = Bench::new();
    let (serve, gate) = bench.gated_gateway("");
    let server = serve.address("server");
    gate.pass_events(3);
    let mut coming = begin(server, "POST", &path("ro"), &[], &streamed("x").to_string());
    // The first chunk has the role, the next two a word each.
    for _ in 0..3 {
        coming.line_with("data: ").unwrap();
    }
    register_model(&serve, gate.address, 7);
    gate.open();
    assert!(coming.read().text().contains("[DONE]"));
    let call = &calls(&bench, "ro", 1)[0];
    assert_eq!(call["attributes"]["tracewire.policy.versions"], json!(["0", "7"]));
    let starts = call["attributes"]["tracewire.policy.version_starts"].as_array().unwrap();
    assert_eq!(starts[0], 0);
    assert_eq!(starts[1], 2);
}

#[test]
fn a_hundred_streams_survive_a_weight_update() {
    let bench = Bench::new();
    let (serve, gate) = bench.gated_gateway("[gateway]\nkeepalive_ms = 50\n");
    let server = serve.address("server");
    let stream = |at: usize| std::thread::spawn(move || post(server, &path(&format!("ro-{at}")), &streamed("x")));
    let before: Vec<_> = (0..50).map(stream).collect();
    until_state(server, |state| state["inflight"] == 50);
    post(server, "/proxy/pause", &json!({ "form": "hold" }));
    let after: Vec<_> = (50..100).map(stream).collect();
    gate.open();
    let drained = post(server, "/proxy/drain", &json!({ "timeout_seconds": 60 }));
    assert_eq!((drained.status, &drained.json()["inflight"]), (200, &json!(0)));
    register_model(&serve, gate.address, 1);
    post(server, "/proxy/resume", &json!({}));
    for reply in before.into_iter().chain(after) {
        let reply = reply.join().unwrap();
        assert!(reply.status == 200 && reply.text().contains("[DONE]"), "{}", reply.text());
    }
    for at in 0..100 {
        let call = &calls(&bench, &format!("ro-{at}"), 1)[0];
        let version = if at < 50 { "0" } else { "1" };
        assert_eq!(call["attributes"]["tracewire.policy.version"], version, "rollout {at}");
        assert_eq!(call["attributes"]["tracewire.policy.versions"], Value::Null);
        assert_eq!(call["attributes"]["tracewire.tokens.status"], "exact");
    }
}

#[test]
fn a_policy_that_is_too_far_ahead_is_tagged_or_refused() {
    let bench = Bench::new();
    let serve = bench.gateway("[gateway]\nmax_staleness = 1\n");
    let server = serve.address("server");
    let strict = json!({ "input": 1, "metadata": { "staleness": "refuse" } });
    let strict = post(server, "/v1/agl/rollouts", &strict).json()["rollout_id"].as_str().unwrap().to_owned();
    for (version, status) in [(3, 200), (4, 200), (5, 409)] {
        bench.register(&serve, version);
        assert_eq!(post(server, &path("ro-lax"), &chat("x")).status, 200);
        let reply = post(server, &path(&strict), &chat("x"));
        assert_eq!(reply.status, status, "{}", reply.text());
        assert_eq!(reply.header("x-should-retry"), (status == 409).then_some("false"));
    }
    let tagged: Vec<_> = calls(&bench, "ro-lax", 3)
        .iter()
        .map(|call| call["attributes"]["tracewire.policy.staleness"].clone())
        .collect();
    assert_eq!(tagged, [Value::Null, json!(1), json!(2)]);
}

#[test]
fn retries_get_the_response_of_the_call_they_repeat() {
    let bench = Bench::new();
    let (serve, gate) = bench.gated_gateway("");
    gate.pass_events(1);
    let server = serve.address("server");
    let body = streamed("the same").to_string();
    // The agent hangs up in the middle, and retries.
    let mut first = begin(server, "POST", &path("ro"), &[("x-stainless-retry-count", "0")], &body);
    first.line_with("data: ").unwrap();
    drop(first);
    let mut again = begin(server, "POST", &path("ro"), &[("x-stainless-retry-count", "1")], &body);
    let begins = again.line_with("data: ").unwrap();
    gate.open();
    let again = again.read();
    assert!(again.text().contains("[DONE]"));
    // It retries again after the call has ended.
    let stored = ask(server, "POST", &path("ro"), &[("x-stainless-retry-count", "2")], &body);
    assert!(stored.text().starts_with(&begins) && stored.text().ends_with(&again.text()), "{}", stored.text());
    // Another sample of the same prompt is not a retry.
    let other = ask(server, "POST", &path("ro"), &[("x-stainless-retry-count", "0")], &body);
    assert_eq!(other.status, 200);
    assert_eq!(calls(&bench, "ro", 2).len(), 2, "two calls, whatever was repeated");
    let requests = get(bench.mock.address("http"), "/requests").json();
    let posts = requests
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["method"] == "POST" && one["path"] == "/v1/chat/completions");
    assert_eq!(posts.count(), 2);
    let spans = eventually(|| {
        Some(bench.spans("ro")).filter(|spans| spans.iter().filter(|span| is_exchange(span)).count() == 4)
    });
    let joined: Vec<_> =
        spans.iter().filter_map(|span| span["attributes"]["tracewire.gateway.joined"].as_str()).collect();
    assert_eq!(joined, ["in_flight", "stored"]);
    let call = spans.iter().find(|span| span["attributes"]["gen_ai.operation.name"] == "chat").unwrap();
    assert_eq!(call["attributes"]["tracewire.outcome"], "complete", "the first went on for its retry");
}

#[test]
fn a_repeated_call_after_a_hang_up_is_a_retry() {
    let counted = &[("x-stainless-retry-count", "0")][..];
    // Without a count, only if its agent had nothing of the response.
    for (headers, events) in [(counted, 1), (counted, 0), (&[], 0)] {
        let bench = Bench::new();
        let (serve, gate) = bench.gated_gateway("");
        gate.pass_events(events);
        let server = serve.address("server");
        let body = streamed("the same").to_string();
        let (mut unread, mut begun) = (None, None);
        if events == 0 {
            unread = Some(send(server, "POST", &path("ro"), headers, &body));
        } else {
            begun = Some(begin(server, "POST", &path("ro"), headers, &body));
        }
        if let Some(begun) = &mut begun {
            begun.line_with("data: ").unwrap();
        }
        until_state(server, |state| state["inflight"] == 1);
        // As long as its agent is there, the same call is another sample.
        let mut others = vec![send(server, "POST", &path("ro"), headers, &body)];
        until_state(server, |state| state["inflight"] == 2);
        drop((unread, begun));
        // The hang-up is noticed some time later; calls before that are samples as well.
        eventually(|| {
            others.push(send(server, "POST", &path("ro"), headers, &body));
            get(server, "/metrics").text().contains("tracewire_gateway_joined_total 1").then_some(())
        });
        gate.open();
    }
}

#[test]
fn an_agent_that_has_read_a_part_and_asks_again_gets_another_sample() {
    let bench = Bench::new();
    let (serve, gate) = bench.gated_gateway("");
    let server = serve.address("server");
    let body = streamed("the same").to_string();
    for (rollout, headers) in [("ro-a", &[][..]), ("ro-b", &[("x-stainless-retry-count", "0")][..])] {
        gate.open();
        // All events are read, but not the end of the body.
        let mut first = begin(server, "POST", &path(rollout), headers, &body);
        first.line_with("data: [DONE]").unwrap();
        drop(first);
        assert_eq!(ask(server, "POST", &path(rollout), headers, &body).status, 200);
        assert_eq!(calls(&bench, rollout, 2).len(), 2);
    }
    gate.pass_events(1);
    let mut first = begin(server, "POST", &path("ro-c"), &[], &body);
    first.line_with("data: ").unwrap();
    drop(first);
    // Nothing waits for a retry.
    until_state(server, |state| state["inflight"] == 0);
    gate.open();
    assert_eq!(ask(server, "POST", &path("ro-c"), &[], &body).status, 200);
    assert!(get(server, "/metrics").text().contains("tracewire_gateway_joined_total 0"));
}

#[test]
fn retried_samples_of_one_prompt_stay_separate() {
    let bench = Bench::new();
    let serve = bench.gateway("");
    let server = serve.address("server");
    let sample = |count: &'static str| {
        let ask =
            move || ask(server, "POST", &path("ro"), &[("x-stainless-retry-count", count)], &chat("x").to_string());
        std::thread::spawn(ask)
    };
    post(server, "/proxy/pause", &json!({}));
    let refused: Vec<_> = (0..3).map(|_| sample("0")).collect();
    assert!(refused.into_iter().all(|reply| reply.join().unwrap().status == 429));
    post(server, "/proxy/resume", &json!({}));
    let again: Vec<_> = (0..3).map(|_| sample("1")).collect();
    assert!(again.into_iter().all(|reply| reply.join().unwrap().status == 200));
    assert_eq!(calls(&bench, "ro", 3).len(), 3);
}

#[test]
fn undelivered_responses_are_not_recorded_as_complete() {
    let bench = Bench::new();
    for (rollout, body) in [
        ("ro-s", streamed("x")),
        (
            "ro-m",
            json!({ "model": "mock", "max_tokens": 5, "stream": true, "messages": [{ "role": "user", "content": "x" }] }),
        ),
    ] {
        let path = if rollout == "ro-s" { path(rollout) } else { format!("/rollout/{rollout}/attempt/0/v1/messages") };
        let (serve, gate) = bench.gated_gateway("[gateway]\njoin_window_ms = 500\n");
        let server = serve.address("server");
        gate.pass_events(2);
        let mut first = begin(server, "POST", &path, &[("x-stainless-retry-count", "0")], &body.to_string());
        first.line_with("data: ").unwrap();
        drop(first);
        let call = &calls(&bench, rollout, 1)[0];
        assert_eq!(call["attributes"]["tracewire.aborted_by"], "downstream", "{call:#}");
        assert_ne!(call["attributes"]["tracewire.tokens.status"], "exact");
        until_state(server, |state| state["inflight"] == 0);
    }
}

#[test]
fn weights_that_change_before_the_first_token_are_recorded() {
    let bench = Bench::new();
    let (serve, gate) = bench.gated_gateway("");
    let server = serve.address("server");
    for (version, rollout, body) in [(1, "ro-s", streamed("x")), (2, "ro-w", chat("x"))] {
        gate.pass_events(0);
        let asking = std::thread::spawn(move || post(server, &path(rollout), &body));
        until_state(server, |state| state["inflight"] == 1);
        register_model(&serve, gate.address, version);
        gate.open();
        assert_eq!(asking.join().unwrap().status, 200);
    }
    let attributes = |rollout| calls(&bench, rollout, 1)[0]["attributes"].clone();
    let (stream, whole) = (attributes("ro-s"), attributes("ro-w"));
    assert_eq!(
        (&stream["tracewire.policy.version"], &stream["tracewire.policy.versions"]),
        (&json!("1"), &Value::Null)
    );
    // It is not known which weights sampled which token.
    assert_eq!(whole["tracewire.policy.versions"], json!(["1", "2"]));
    assert_eq!(whole["tracewire.policy.version_starts"], Value::Null);
}

#[test]
fn streams_that_a_shutdown_ends_are_recorded_up_to_there() {
    let bench = Bench::with_mock(&["--chunk-delay-ms", "50", "--chunks", "1000"]);
    let serve = bench.gateway("[shutdown]\ndrain_timeout_ms = 300\n");
    let server = serve.address("server");
    let mut coming: Vec<_> = (0..3)
        .map(|at| {
            begin(
                server,
                "POST",
                &path(&format!("ro-{at}")),
                &[("x-stainless-retry-count", "0")][..at % 2],
                &streamed("x").to_string(),
            )
        })
        .collect();
    for stream in &mut coming {
        stream.line_with("data: ").unwrap();
        stream.line_with("data: ").unwrap();
    }
    post(server, "/proxy/pause", &json!({ "form": "hold" }));
    let held = send(server, "POST", &path("ro-held"), &[], &chat("x").to_string());
    assert_eq!(serve.stop(), Some(0));
    drop(held);
    for (at, stream) in coming.into_iter().enumerate() {
        assert!(stream.read().text().contains("shutting down"));
        let call = &calls(&bench, &format!("ro-{at}"), 1)[0];
        assert_eq!(call["attributes"]["error.type"], "shutting_down");
        assert!(!call["attributes"]["response_token_ids"].as_array().unwrap().is_empty());
    }
}

#[test]
fn meaningless_responses_are_retried_at_another_backend() {
    for (kind, text) in [("text/html", "<html>"), ("application/json", "")] {
        let bench = Bench::new();
        let serve = bench.gateway_without_backends(QUICK);
        let answers: &'static [_] = Box::leak(Box::new([(200, kind, text)]));
        let (address, requests) = scripted(answers);
        register(&serve, address, &json!({ "weight": 1000.0, "engine": "openai" }));
        bench.register(&serve, 0);
        let reply = post(serve.address("server"), &path("ro"), &chat("x"));
        assert_eq!(reply.json()["model"], "mock", "{}", reply.text());
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn the_end_of_a_rollout_ends_its_calls() {
    let bench = Bench::with_mock(&["--chunk-delay-ms", "50", "--chunks", "1000"]);
    let serve = bench.gateway("");
    let server = serve.address("server");
    let id = post(server, "/v1/agl/rollouts", &json!({ "input": 1 })).json()["rollout_id"].as_str().unwrap().to_owned();
    let mut coming = begin(server, "POST", &path(&id), &[], &streamed("x").to_string());
    coming.line_with("data: ").unwrap();
    assert_eq!(post(server, &format!("/v1/agl/rollouts/{id}"), &json!({ "status": "cancelled" })).status, 200);
    let rest = coming.read().text();
    assert!(rest.contains("has ended") && !rest.contains("[DONE]"), "{rest}");
    let call = &calls(&bench, &id, 1)[0];
    assert_eq!(call["attributes"]["tracewire.outcome"], "failed");
    assert_eq!(post(server, &path(&id), &chat("x")).status, 409);
    until_state(server, |state| state["inflight"] == 0);
}

#[test]
fn rollouts_are_held_to_their_budgets() {
    let bench = Bench::new();
    let serve = bench.gateway("[gateway.budget]\ncalls = 2\n");
    let server = serve.address("server");
    for (path, field) in [
        ("/rollout/ro-1/attempt/0/v1/chat/completions", "/error/message"),
        ("/rollout/ro-2/attempt/0/v1/messages", "/error/message"),
        ("/rollout/ro-3/attempt/0/v1beta/models/mock:generateContent", "/error/message"),
    ] {
        let body = match path.rsplit('/').next() {
            Some("messages") => {
                json!({ "model": "m", "max_tokens": 5, "messages": [{ "role": "user", "content": "x" }] })
            }
            Some("completions") => chat("x"),
            _ => json!({ "contents": [{ "role": "user", "parts": [{ "text": "x" }] }] }),
        };
        for expected in [200, 200, 429] {
            let reply = post(server, path, &body);
            assert_eq!(reply.status, expected, "{path} {}", reply.text());
            if expected == 429 {
                let message = reply.json().pointer(field).unwrap().as_str().unwrap().to_owned();
                assert!(message.contains("has made all of its 2 calls"), "{message}");
                assert_eq!(reply.header("x-should-retry"), Some("false"));
            }
        }
    }
    let limited = json!({ "input": 1, "metadata": { "budget": { "tokens": 5 } } });
    let limited = post(server, "/v1/agl/rollouts", &limited).json()["rollout_id"].as_str().unwrap().to_owned();
    assert_eq!(post(server, &path(&limited), &chat("x")).status, 200);
    eventually(|| (post(server, &path(&limited), &chat("x")).status == 429).then_some(()));
}

#[test]
fn errors_have_the_format_of_the_api_and_are_recorded() {
    let bench = Bench::new();
    let serve = bench.gateway_without_backends("[gateway]\nmax_body_bytes = 1000\nretries = 0\n");
    let server = serve.address("server");
    let long = format!("{{\"model\":\"{}\"}}", "x".repeat(2000));
    let cases: &[(&str, &str, u16, &str)] = &[
        ("/rollout/ro/attempt/0/v1/chat/completions", "{}", 503, "No servers available"),
        ("/rollout/ro/attempt/0/v1/chat/completions", "nonsense", 400, "Invalid JSON"),
        ("/rollout/ro/attempt/0/v1/chat/completions", "[]", 503, "No servers available"),
        ("/rollout/ro/attempt/0/v1/chat/completions", &long, 413, "longer than 1000 bytes"),
        ("/rollout/ro/attempt/0/v1/files", "{}", 404, "no LLM API"),
    ];
    for (path, body, status, message) in cases {
        let reply = ask(server, "POST", path, &[], body);
        assert_eq!(reply.status, *status, "{path} {}", reply.text());
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains(message), "{}", reply.text());
    }
    bench.register(&serve, 0);
    let reply = ask(server, "POST", "/rollout/ro/attempt/0/v1/chat/completions", &[], "[]");
    assert_eq!(reply.status, 400, "{}", reply.text());
    let spans = eventually(|| {
        Some(bench.spans("ro")).filter(|spans| spans.iter().filter(|span| is_exchange(span)).count() == cases.len() + 1)
    });
    let errors: Vec<_> = spans.iter().filter_map(|span| span["attributes"]["error.type"].as_str()).collect();
    assert_eq!(
        errors,
        ["no_backend", "call_malformed", "no_backend", "call_too_large", "route_unknown", "call_malformed"]
    );
    for path in [
        "/rollout/x%00y/attempt/0/v1/models",
        "/rollout/%ff/attempt/0/v1/models",
        &format!("/rollout/{}/attempt/0/v1/models", "x".repeat(4096)),
    ] {
        assert_eq!(get(server, path).status, 400, "{path}");
    }
    assert_eq!(get(server, "/rollout/..%2f..%2fetc/attempt/..%2f/v1/models").status, 200, "an id is no path");
    assert_eq!(bench.exchanges("../../etc", 1).len(), 1);
}

#[test]
fn what_can_not_be_translated_is_an_error() {
    let bench = Bench::new();
    let serve = bench.gateway_without_backends("[gateway]\nretries = 0\n");
    let (address, _) = scripted(&[(200, "text/html", "<html>")]);
    register(&serve, address, &json!({ "engine": "openai" }));
    let server = serve.address("server");
    let mut body = json!({ "model": "m", "max_tokens": 5, "messages": [{ "role": "user", "content": "x" }] });
    let reply = post(server, "/rollout/ro/attempt/0/v1/messages", &body);
    assert_eq!((reply.status, &reply.json()["type"]), (502, &json!("error")), "{}", reply.text());
    body["messages"][0]["content"] = json!([{ "type": "document", "source": { "type": "base64" } }]);
    let reply = post(server, "/rollout/ro/attempt/0/v1/messages", &body);
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (400, &json!("invalid_request_error")));
    assert!(reply.text().contains("messages[0].content[0]"), "{}", reply.text());
    let reply = post(server, &path("ro"), &chat("x"));
    assert_eq!((reply.status, reply.header("x-should-retry")), (502, Some("false")), "{}", reply.text());
}

#[test]
fn keys_name_rollouts_and_can_not_be_forged() {
    let bench = Bench::new();
    let settings = "[gateway]\nsigning_key = \"s\"\n[[server.tokens]]\ntoken = \"admin\"\nscopes = [\"admin\"]\n";
    let serve = bench.gateway_without_backends(settings);
    let server = serve.address("server");
    let admin = [("authorization", "Bearer admin")];
    let models = json!([{ "model": "mock", "endpoint": format!("{}/v1", bench.http()) }]).to_string();
    assert_eq!(ask(server, "POST", "/api/models", &admin, &models).status, 201);
    let key = |expires: u64| {
        let body = json!({ "rollout_id": "ro-k", "attempt_id": "at-1", "expires_in_seconds": expires }).to_string();
        ask(server, "POST", "/v1/tracewire/keys", &admin, &body).json()["key"].as_str().unwrap().to_owned()
    };
    let call = |key: &str, path: &str| {
        let bearer = format!("Bearer {key}");
        ask(server, "POST", path, &[("authorization", &bearer)], &chat("x").to_string()).status
    };
    let good = key(0);
    assert_eq!(call(&good, "/v1/chat/completions"), 200);
    assert_eq!(call(&good, "/rollout/ro-k/attempt/at-1/v1/chat/completions"), 200);
    assert_eq!(call(&good, "/rollout/ro-other/attempt/at-1/v1/chat/completions"), 403);
    assert_eq!(call(&good.replace("ro-k", "ro-x"), "/v1/chat/completions"), 401);
    assert_eq!(call("sk-tw-ro-k.at-1", "/v1/chat/completions"), 401);
    assert_eq!(call("sk-proj-other", "/v1/chat/completions"), 401);
    assert_eq!(call("admin", &path("ro-any")), 200);
    // The key is for LLM calls only.
    let bearer = format!("Bearer {good}");
    for (method, path) in [
        ("POST", "/v1/agl/rollouts"),
        ("POST", "/proxy/pause"),
        ("GET", "/proxy/state"),
        ("GET", "/admin/workers"),
        ("GET", "/sessions"),
        ("DELETE", "/sessions/ro-k"),
        ("DELETE", "/api/rollouts/ro-k"),
        ("GET", "/api/rollouts/ro-k/events"),
        ("GET", "/v1/tracewire/backends"),
        ("GET", "/metrics"),
    ] {
        assert_eq!(ask(server, method, path, &[("authorization", &bearer)], "{}").status, 401, "{method} {path}");
    }
    let call = &calls(&bench, "ro-k", 1)[0];
    assert_eq!(
        (&call["attempt_id"], &call["attributes"]["tracewire.identity.source"]),
        (&json!("at-1"), &json!("key"))
    );
}

#[test]
fn an_agent_that_hangs_up_ends_its_call() {
    let bench = Bench::with_mock(&["--chunk-delay-ms", "50", "--chunks", "1000"]);
    let serve = bench.gateway("");
    let server = serve.address("server");
    let mut coming = begin(server, "POST", &path("ro"), &[], &streamed("x").to_string());
    coming.line_with("data: ").unwrap();
    drop(coming);
    let slow = Bench::with_mock(&["--delay-ms", "60000"]);
    slow.register(&serve, 0);
    let removed = format!("/v1/tracewire/backends/{}/v1", bench.http());
    assert_eq!(ask(server, "DELETE", &removed, &[], "").status, 200);
    let waiting = send(server, "POST", &path("ro"), &[], &chat("x").to_string());
    until_state(server, |state| state["inflight"] == 1);
    drop(waiting);
    until_state(server, |state| state["inflight"] == 0);
    let calls = calls(&bench, "ro", 2);
    assert!(calls.iter().all(|call| call["attributes"]["tracewire.aborted_by"] == "downstream"), "{calls:#?}");
}

#[test]
fn models_are_listed_and_aliased() {
    let bench = Bench::new();
    let serve = bench.gateway("[gateway.aliases]\n\"gpt-4o\" = \"mock\"\n");
    let server = serve.address("server");
    let listed = get(server, "/v1/models").json();
    let names: Vec<_> = listed["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(names, ["gpt-4o", "mock"]);
    assert_eq!(get(server, "/rollout/r/attempt/a/v1/models/mock").json()["id"], "mock");
    assert_eq!(get(server, "/v1/models/none").status, 404);
    let mut body = chat("x");
    body["model"] = "gpt-4o".into();
    let reply = post(server, &path("ro"), &body);
    assert_eq!(reply.json()["model"], "mock");
    let call = &calls(&bench, "ro", 1)[0];
    assert_eq!(call["attributes"]["tracewire.gateway.requested_model"], "gpt-4o");
}

#[test]
fn the_key_of_a_backend_is_sent_only_to_it() {
    let bench = Bench::new();
    let serve = bench.gateway_without_backends("[capture]\ninclude_headers = true\ninclude_bodies = true\n");
    let server = serve.address("server");
    register(&serve, bench.mock.address("http"), &json!({ "key": "sk-very-secret-backend-key-1" }));
    let reply = ask(
        server,
        "POST",
        &path("ro"),
        &[("authorization", "Bearer sk-agent-own-key-123456")],
        &chat("x").to_string(),
    );
    assert_eq!(reply.status, 200);
    let requests = get(bench.mock.address("http"), "/requests").text();
    assert!(requests.contains("sk-very-secret-backend-key-1") && !requests.contains("sk-agent-own-key"), "{requests}");
    calls(&bench, "ro", 1);
    let listed = get(server, "/v1/tracewire/backends").text();
    assert!(!listed.contains("secret"), "{listed}");
    assert_eq!(serve.stop(), Some(0));
    for file in std::fs::read_dir(bench.home()).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        assert!(crate::support::find(&bytes, b"very-secret").is_none(), "{}", path.display());
    }
}
