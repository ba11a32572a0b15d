//! Many large calls at once, with far less memory than they need: every byte arrives at both ends, and nothing stays in use.

use crate::support::client::{Reply, ask, begin, get, register_model};
use crate::support::model_server::{Addresses, read_request, respond};
use crate::support::{Bench, Running, endpoint, eventually};
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};

const CALLS: usize = 50;
const TEXT_BYTES: usize = 1_000_000;
const PIECE_BYTES: usize = 20_000;

/// A text of letters that JSON need not escape. Its period divides the size of no page, block or piece.
fn text(seed: usize) -> String {
    let period: String = (0..9973).map(|at| char::from(b'a' + ((at * 7 + at / 100 + seed * 11) % 26) as u8)).collect();
    let mut text = period.repeat(TEXT_BYTES / period.len() + 1);
    text.truncate(TEXT_BYTES);
    text
}

/// What a call sends.
fn prompt(call: usize) -> String {
    text(2 * call)
}

/// What it gets.
fn sampled(call: usize) -> String {
    text(2 * call + 1)
}

fn response(call: usize, streams: bool) -> String {
    let ids: Vec<usize> = (0..1000).map(|at| at + call).collect();
    let (prompt_ids, text) = (json!(ids), sampled(call));
    if !streams {
        let choice = json!({ "index": 0, "message": { "role": "assistant", "content": text }, "token_ids": ids,
                             "logprobs": null, "finish_reason": "stop" });
        return json!({ "id": "c", "model": "mock", "prompt_token_ids": prompt_ids, "choices": [choice] }).to_string();
    }
    let event = |choice: Value| format!("data: {}\n\n", json!({ "id": "c", "model": "mock", "choices": [choice] }));
    let pieces = text.as_bytes().chunks(PIECE_BYTES).map(|piece| {
        let content = std::str::from_utf8(piece).unwrap();
        event(json!({ "index": 0, "delta": { "content": content }, "token_ids": [call, 7], "finish_reason": null }))
    });
    let end = event(json!({ "index": 0, "delta": {}, "finish_reason": "stop" }));
    pieces.chain([end, "data: [DONE]\n\n".to_owned()]).collect()
}

/// A model server that responds once `together` calls have arrived. It checks what it gets.
fn model_server(together: usize) -> SocketAddr {
    let arrived = Arc::new(Barrier::new(together));
    endpoint(move |mut stream| {
        while let Some(request) = read_request(&mut stream) {
            let Some(body) = request else {
                respond(&mut stream, "application/json", r#"{"data":[{"id":"mock"}]}"#);
                continue;
            };
            let body: Value = serde_json::from_slice(&body).unwrap();
            let call: usize = body["seed"].as_u64().unwrap().try_into().unwrap();
            // Translation makes a part of it.
            let content = &body["messages"][0]["content"];
            let text = content.as_str().or_else(|| content[0]["text"].as_str()).unwrap_or_default();
            let is_right = text == prompt(call) && body["return_token_ids"] == true;
            arrived.wait();
            let streams = body["stream"] == true;
            let kind = if streams { "text/event-stream" } else { "application/json" };
            respond(&mut stream, kind, &if is_right { response(call, streams) } else { "wrong".to_owned() });
        }
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Proxy,
    Gateway,
    /// The gateway, by another API than the backend has.
    Translated,
}

fn call(at: Addresses, way: Way, number: usize, streams: bool, retry_count: &str) -> Reply {
    let (rollout, retry) = (format!("ro-{number}"), ("x-stainless-retry-count", retry_count));
    let messages = json!([{ "role": "user", "content": prompt(number) }]);
    let mut body = json!({ "model": "mock", "seed": number, "stream": streams, "messages": messages });
    match way {
        Way::Proxy => {
            let target = format!("http://{}/v1/chat/completions", at.model);
            ask(at.proxy, "POST", &target, &[("x-rollout-id", &rollout)], &body.to_string())
        }
        Way::Gateway => {
            let path = format!("/rollout/{rollout}/attempt/0/v1/chat/completions");
            ask(at.gateway, "POST", &path, &[retry], &body.to_string())
        }
        Way::Translated => {
            body = json!({ "contents": [{ "role": "user", "parts": [{ "text": prompt(number) }] }],
                           "generationConfig": { "seed": number } });
            let method = if streams { "streamGenerateContent?alt=sse" } else { "generateContent" };
            let path = format!("/rollout/{rollout}/attempt/0/v1beta/models/mock:{method}");
            ask(at.gateway, "POST", &path, &[retry], &body.to_string())
        }
    }
}

/// Checks that a reply is whole, and loses nothing but the token ids that the agent did not ask for.
fn check(reply: &Reply, way: Way, number: usize, streams: bool) {
    let text = reply.text();
    let end = &text[text.len().saturating_sub(100)..];
    assert_eq!(reply.status, 200, "{end}");
    if let Some(length) = reply.header("content-length") {
        assert_eq!(length.parse(), Ok(reply.body.len()));
    }
    assert!(!text.contains("token_ids\":["), "{way:?} {streams}: {end}");
    let objects: Vec<Value> = match streams {
        true => text
            .split("\n\n")
            .filter_map(|event| serde_json::from_str(event.trim().strip_prefix("data: ")?).ok())
            .collect(),
        false => vec![reply.json()],
    };
    let piece = |object: &Value| {
        let choice = &object["choices"][0];
        let parts = [&choice["message"]["content"], &choice["delta"]["content"]];
        let translated = &object["candidates"][0]["content"]["parts"][0]["text"];
        parts.iter().find_map(|part| part.as_str()).or(translated.as_str()).unwrap_or_default().to_owned()
    };
    let received: String = objects.iter().map(piece).collect();
    assert!(received == sampled(number), "{way:?} {streams} {number}: {} bytes, {end}", received.len());
}

fn serve(bench: &Bench, budget: usize, more: &str) -> Running {
    let config = bench.home().join("proxy.toml");
    let settings = format!(
        "[capture]\nmemory_budget_bytes = {budget}\n[gateway]\njoin_window_ms = 1000\nretry_wait_ms = 10\n{more}\n\
         [[tokens.engines]]\nhosts = [\"127.0.0.1\"]\nengine = \"vllm\"\n"
    );
    std::fs::write(&config, settings).unwrap();
    bench.serve(&["--config", config.to_str().unwrap()])
}

fn metrics(server: &Running, prefix: &str) -> f64 {
    let text = get(server.address("server"), "/metrics").text();
    let found = text.lines().filter(|line| line.starts_with(prefix));
    found.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

fn nothing_stays_in_use(server: &Running) {
    let in_use = || metrics(server, "tracewire_memory_bytes{") + metrics(server, "tracewire_spill_bytes ");
    eventually(|| (in_use() == 0.0).then_some(()));
}

#[test]
fn every_byte_arrives_though_memory_is_short() {
    let ways = [Way::Proxy, Way::Gateway, Way::Translated];
    for (way, streams) in ways.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let bench = Bench::new();
        let server = serve(&bench, 1 << 20, "");
        let at = Addresses::of(&server, model_server(CALLS));
        register_model(&server, at.model, 0);
        std::thread::scope(|scope| {
            let calls: Vec<_> =
                (0..CALLS).map(|number| scope.spawn(move || call(at, way, number, streams, "0"))).collect();
            let replies = calls.into_iter().map(|call| call.join().unwrap());
            replies.enumerate().for_each(|(number, reply)| check(&reply, way, number, streams));
        });
        assert!(metrics(&server, "tracewire_spilled_bytes_total ") > 10_000_000.0, "{way:?} {streams}");
        assert!(metrics(&server, "tracewire_memory_peak_bytes ") <= f64::from(1 << 20), "{way:?} {streams}");
        // What is recorded is in use until it is stored.
        let in_use = || {
            metrics(&server, "tracewire_memory_bytes{") - metrics(&server, "tracewire_memory_bytes{use=\"capture\"}")
        };
        eventually(|| (in_use() == 0.0).then_some(()));
    }
}

#[test]
fn every_byte_arrives_though_memory_is_short_and_the_disk_takes_nothing() {
    let ways = [Way::Proxy, Way::Gateway, Way::Translated];
    for (way, streams) in ways.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let bench = Bench::new();
        let config = bench.home().join("none.toml");
        let settings =
            "[capture]\nmemory_budget_bytes = 10000\n[[tokens.engines]]\nhosts = [\"127.0.0.1\"]\nengine = \"vllm\"\n";
        std::fs::write(&config, settings).unwrap();
        let store = bench.home().join("store");
        std::fs::create_dir(&store).unwrap();
        let db = store.join("traces.db");
        let server = bench.serve(&["--config", config.to_str().unwrap(), "--store", db.to_str().unwrap()]);
        let at = Addresses::of(&server, model_server(1));
        register_model(&server, at.model, 0);
        // The store has its files open; a new one can't be made any more.
        std::fs::rename(&store, bench.home().join("elsewhere")).unwrap();
        for number in 0..2 {
            check(&call(at, way, number, streams, "0"), way, number, streams);
        }
        assert!(metrics(&server, "tracewire_spill_errors_total ") >= 1.0);
        let warnings = get(server.address("server"), "/readyz").json()["warnings"].clone();
        assert!(warnings[0].as_str().unwrap().contains("capture.memory_budget_bytes"), "{warnings}");
        nothing_stays_in_use(&server);
    }
}

#[test]
fn a_request_is_in_memory_once() {
    for way in [Way::Proxy, Way::Gateway] {
        let bench = Bench::new();
        let server = serve(&bench, 100 << 20, "");
        let (arrived, has_arrived) = mpsc::channel();
        let (arrived, go) = (Mutex::new(arrived), Arc::new(Barrier::new(2)));
        let may_respond = Arc::clone(&go);
        let model = endpoint(move |mut stream| {
            while let Some(request) = read_request(&mut stream) {
                let Some(body) = request else {
                    respond(&mut stream, "application/json", r#"{"data":[{"id":"mock"}]}"#);
                    continue;
                };
                arrived.lock().unwrap().send(body.len()).unwrap();
                may_respond.wait();
                respond(&mut stream, "application/json", &response(0, false));
            }
        });
        let at = Addresses::of(&server, model);
        register_model(&server, model, 0);
        std::thread::scope(|scope| {
            let call = scope.spawn(move || call(at, way, 0, false, "0"));
            let sent = has_arrived.recv().unwrap() as f64;
            let held = metrics(&server, "tracewire_memory_bytes{");
            assert!(held > 0.9 * sent && held < 1.1 * sent, "{way:?}: {held} of {sent} bytes");
            go.wait();
            check(&call.join().unwrap(), way, 0, false);
        });
        let content = bench.exchanges("ro-0", 1)[0]["attributes"]["gen_ai.input.messages"].to_string();
        assert!(content.contains(&prompt(0)), "{way:?}: the prompt is not recorded");
        nothing_stays_in_use(&server);
    }
}

#[test]
fn a_retry_gets_a_response_that_memory_has_no_room_for() {
    let bench = Bench::new();
    let server = serve(&bench, 100_000, "");
    let at = Addresses::of(&server, model_server(1));
    register_model(&server, at.model, 0);
    check(&call(at, Way::Gateway, 7, false, "0"), Way::Gateway, 7, false);
    check(&call(at, Way::Gateway, 7, false, "1"), Way::Gateway, 7, false);
    assert_eq!(metrics(&server, "tracewire_gateway_joined_total "), 1.0);
    nothing_stays_in_use(&server);
    let span = bench.exchanges("ro-7", 2).remove(1);
    assert_eq!(span["attributes"]["tracewire.outcome"], "complete", "{span}");
    assert_eq!(span["attributes"]["tracewire.gateway.joined"], "stored", "{span}");
}

#[test]
fn a_response_that_broke_off_leaves_no_trace_in_the_record_of_the_next() {
    let bench = Bench::new();
    let config = bench.home().join("proxy.toml");
    std::fs::write(&config, "[capture]\ninclude_bodies = true\n[gateway]\nretry_wait_ms = 10\n").unwrap();
    let server = bench.serve(&["--config", config.to_str().unwrap()]);
    let (tries, whole) = (AtomicUsize::new(0), response(3, false));
    let expected = whole.clone();
    let model = endpoint(move |mut stream| {
        while let Some(request) = read_request(&mut stream) {
            if request.is_none() {
                respond(&mut stream, "application/json", r#"{"data":[{"id":"mock"}]}"#);
            } else if tries.fetch_add(1, Ordering::Relaxed) == 0 {
                let length = whole.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&whole.as_bytes()[..length / 2]);
                return;
            } else {
                respond(&mut stream, "application/json", &whole);
            }
        }
    });
    register_model(&server, model, 0);
    let body = json!({ "model": "mock", "messages": [{ "role": "user", "content": "hi" }] }).to_string();
    let reply = begin(server.address("server"), "POST", "/rollout/ro/attempt/0/v1/chat/completions", &[], &body).read();
    check(&reply, Way::Gateway, 3, false);
    let span = eventually(|| {
        let spans = bench.spans("ro").into_iter();
        spans.into_iter().find(|span| span["attributes"]["gen_ai.operation.name"] == "chat" && is_complete(span))
    });
    let attributes = &span["attributes"];
    assert_eq!(attributes["http.response.body.size"], expected.len());
    assert!(attributes["http.response.body.content"] == expected.as_str(), "the recorded body is another");
    assert_eq!(attributes["http.request.resend_count"], 1);
}

fn is_complete(span: &Value) -> bool {
    span["attributes"]["tracewire.outcome"] == "complete"
}
