//! Many long LLM calls at once, with far less memory for them than they need: every token id is stored as it was sent, the
//! agent gets its bytes, and nothing stays in use.

use crate::support::client::{Reply, ask, get, register_model};
use crate::support::model_server::{Addresses, read_request, respond};
use crate::support::{Bench, Running, endpoint, eventually};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Barrier, mpsc};

const CALLS: usize = 24;
const PROMPT_IDS: usize = 20_000;
const SAMPLED_IDS: usize = 600;

fn id(call: usize, at: usize) -> usize {
    (call * 7_919 + at * 104_729 + at * at % 977) % 150_000
}

fn prompt_ids(call: usize) -> Vec<usize> {
    (0..PROMPT_IDS).map(|at| id(call, at)).collect()
}

fn sampled_ids(call: usize) -> Vec<usize> {
    (0..SAMPLED_IDS).map(|at| id(call, PROMPT_IDS + at)).collect()
}

/// A logprob that is exact as f32.
fn logprob(at: usize) -> f64 {
    -0.25 - (at % 64) as f64 / 64.0
}

fn logprobs(range: std::ops::Range<usize>) -> Value {
    let token =
        |at| json!({ "token": format!(" t{at}"), "logprob": logprob(at), "bytes": [32, 116], "top_logprobs": [] });
    json!({ "content": range.map(token).collect::<Vec<_>>() })
}

/// The body of a call's answer, as vLLM writes it.
fn answer(call: usize, stream: bool) -> String {
    let usage = json!({ "prompt_tokens": PROMPT_IDS, "completion_tokens": SAMPLED_IDS,
                        "total_tokens": PROMPT_IDS + SAMPLED_IDS });
    let root = |object: &str| {
        json!({ "id": format!("chatcmpl-{call}"), "object": object, "created": 1, "model": "mock",
                "kv_transfer_params": null })
    };
    if !stream {
        let mut body = root("chat.completion");
        body["prompt_token_ids"] = json!(prompt_ids(call));
        body["usage"] = usage;
        body["choices"] = json!([{ "index": 0, "message": { "role": "assistant", "content": "x".repeat(900) },
                                   "finish_reason": "stop", "token_ids": sampled_ids(call),
                                   "logprobs": logprobs(0..SAMPLED_IDS) }]);
        return body.to_string();
    }
    let event = |choices: Value, more: &[(&str, Value)]| {
        let mut chunk = root("chat.completion.chunk");
        chunk["choices"] = choices;
        more.iter().for_each(|(name, value)| chunk[*name] = value.clone());
        format!("data: {chunk}\n\n")
    };
    let first = json!([{ "index": 0, "delta": { "role": "assistant", "content": "" }, "finish_reason": null }]);
    let mut stream = event(first, &[("prompt_token_ids", json!(prompt_ids(call)))]);
    let sampled = sampled_ids(call);
    for from in (0..SAMPLED_IDS).step_by(20) {
        let choice = json!([{ "index": 0, "delta": { "content": " some text" }, "token_ids": sampled[from..from + 20],
                              "logprobs": logprobs(from..from + 20), "finish_reason": null }]);
        stream += &event(choice, &[]);
    }
    stream += &event(json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]), &[]);
    stream += &event(json!([]), &[("usage", usage)]);
    stream + "data: [DONE]\n\n"
}

/// A model server that answers when all calls have arrived, so that all of them are in flight at once.
fn model_server() -> SocketAddr {
    let all_arrived = Arc::new(Barrier::new(CALLS));
    endpoint(move |mut stream| {
        while let Some(request) = read_request(&mut stream) {
            let Some(body) = request else {
                respond(&mut stream, "application/json", r#"{"data":[{"id":"mock"}]}"#);
                continue;
            };
            let request: Value = serde_json::from_slice(&body).unwrap();
            let text = request["messages"][0]["content"].as_str().unwrap();
            let call: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
            assert_eq!(request["return_token_ids"], true);
            all_arrived.wait();
            let streams = request["stream"] == true;
            let kind = if streams { "text/event-stream" } else { "application/json" };
            respond(&mut stream, kind, &answer(call, streams));
        }
    })
}

/// The way of a call to the model server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Proxy,
    Gateway,
}

fn serve(bench: &Bench, more: &str) -> Running {
    let config = bench.home().join("proxy.toml");
    let settings = format!(
        "[capture]\nmemory_budget_bytes = 200000\n{more}\n[[tokens.engines]]\nhosts = [\"127.0.0.1\"]\nengine = \"vllm\"\n"
    );
    std::fs::write(&config, settings).unwrap();
    bench.serve(&["--config", config.to_str().unwrap()])
}

/// Makes a call, and returns the agent's answer.
fn call(at: Addresses, way: Way, number: usize, stream: bool) -> Reply {
    let content = format!("call {number} {}", "a varied word ".repeat(4_000));
    let body = json!({ "model": "mock", "stream": stream, "messages": [{ "role": "user", "content": content }] });
    let (rollout, body) = (format!("ro-{number}"), body.to_string());
    match way {
        Way::Gateway => {
            ask(at.gateway, "POST", &format!("/rollout/{rollout}/attempt/at-1/v1/chat/completions"), &[], &body)
        }
        Way::Proxy => {
            let target = format!("http://{}/v1/chat/completions", at.model);
            ask(at.proxy, "POST", &target, &[("x-rollout-id", &rollout), ("x-attempt-id", "at-1")], &body)
        }
    }
}

/// Makes all calls at once, and returns the agents' answers by call.
fn call_all(at: Addresses, way: Way, stream: bool) -> Vec<String> {
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..CALLS).map(|number| scope.spawn(move || call(at, way, number, stream))).collect();
        let replies = calls.into_iter().map(|call| call.join().unwrap());
        replies.inspect(|reply| assert_eq!(reply.status, 200, "{}", reply.text())).map(|reply| reply.text()).collect()
    })
}

/// What the agent must get: the answer of a server that was not asked for ids.
fn without_ids(call: usize, stream: bool) -> Vec<Value> {
    let strip = |mut json: Value| {
        // vLLM has these fields in every answer, null if they were not asked for.
        let forget = |object: &mut Value, name: &str| {
            if let Some(value) = object.get_mut(name) {
                *value = Value::Null;
            }
        };
        forget(&mut json, "prompt_token_ids");
        for choice in json["choices"].as_array_mut().unwrap() {
            forget(choice, "token_ids");
            forget(choice, "logprobs");
        }
        json
    };
    // It sends the usage at the end of a stream only if that was requested.
    let is_requested = |event: &Value| !event["choices"].as_array().unwrap().is_empty();
    objects(&answer(call, stream), stream).into_iter().filter(is_requested).map(strip).collect()
}

fn objects(text: &str, stream: bool) -> Vec<Value> {
    if !stream {
        return vec![serde_json::from_str(text).unwrap()];
    }
    let events = text.split("\n\n").filter(|event| !event.is_empty() && *event != "data: [DONE]");
    events.map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap()).collect()
}

fn metric(server: &Running, name: &str) -> f64 {
    let text = get(server.address("server"), "/metrics").text();
    let line = text.lines().find(|line| line.starts_with(name) && line[name.len()..].starts_with(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

/// The span of a call, once it is stored.
fn stored(bench: &Bench, call: usize) -> Value {
    bench.exchanges(&format!("ro-{call}"), 1).remove(0)
}

fn check(bench: &Bench, call: usize, answer: &str, stream: bool) {
    assert!(objects(answer, stream) == without_ids(call, stream), "the agent of call {call} got something else");
    let span = stored(bench, call);
    let attributes = &span["attributes"];
    assert_eq!(attributes["tracewire.tokens.status"], "exact", "{}", attributes["tracewire.tokens.reasons"]);
    assert!(attributes["prompt_token_ids"] == json!(prompt_ids(call)), "prompt ids of call {call}");
    assert!(attributes["response_token_ids"] == json!(sampled_ids(call)), "sampled ids of call {call}");
    let expected: Vec<f64> = (0..SAMPLED_IDS).map(logprob).collect();
    assert!(attributes["tracewire.response_logprobs"] == json!(expected), "logprobs of call {call}");
}

#[test]
fn every_id_is_stored_though_memory_is_short() {
    for (way, stream) in [(Way::Proxy, false), (Way::Proxy, true), (Way::Gateway, false), (Way::Gateway, true)] {
        let bench = Bench::new();
        let server = serve(&bench, "");
        let model = model_server();
        register_model(&server, model, 0);
        let answers = call_all(Addresses::of(&server, model), way, stream);
        answers.iter().enumerate().for_each(|(call, answer)| check(&bench, call, answer, stream));
        assert!(metric(&server, "tracewire_spilled_bytes_total") > 1_000_000.0, "{way:?} {stream}");
        assert!(metric(&server, "tracewire_memory_peak_bytes") <= 200_000.0);
        let in_use =
            || metric(&server, "tracewire_memory_bytes{use=\"capture\"}") + metric(&server, "tracewire_spill_bytes");
        eventually(|| (in_use() == 0.0).then_some(()));
        assert!(names(bench.home()).iter().all(|name| !name.contains("spill")), "{:?}", names(bench.home()));
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn what_was_delivered_before_a_kill_is_stored_though_memory_is_short() {
    let bench = Bench::new();
    let server = serve(&bench, "durability = \"commit\"\ncommit_timeout_ms = 60000\n");
    let at = Addresses::of(&server, model_server());
    let (ended, answers) = mpsc::channel();
    for number in 0..CALLS {
        let ended = ended.clone();
        // A call that the kill cuts off panics; only its thread ends.
        std::thread::spawn(move || ended.send((number, call(at, Way::Proxy, number, true).text())));
    }
    drop(ended);
    let mut answers = answers.into_iter().filter(|(_, text)| text.ends_with("data: [DONE]\n\n"));
    let mut delivered: Vec<(usize, String)> = answers.by_ref().take(CALLS / 4).collect();
    server.kill();
    delivered.extend(answers);
    assert!(delivered.len() >= CALLS / 4);
    delivered.iter().for_each(|(number, text)| check(&bench, *number, text, true));
    // The spill file went with the process.
    assert!(names(bench.home()).iter().all(|name| !name.contains("spill")));
}

#[test]
fn a_disk_that_takes_nothing_is_told_and_the_agent_gets_everything() {
    let bench = Bench::new();
    let store = bench.home().join("store");
    std::fs::create_dir(&store).unwrap();
    let config = bench.home().join("proxy.toml");
    std::fs::write(&config, "[capture]\nmemory_budget_bytes = 10000\n").unwrap();
    let db = store.join("traces.db");
    let server = bench.serve(&["--config", config.to_str().unwrap(), "--store", db.to_str().unwrap()]);
    let model = endpoint(|mut stream| {
        read_request(&mut stream);
        respond(&mut stream, "application/json", &answer(1, false));
    });
    // The store has its files open; a new one can't be made any more.
    let moved = bench.home().join("elsewhere");
    std::fs::rename(&store, &moved).unwrap();
    let reply = call(Addresses::of(&server, model), Way::Proxy, 1, false);
    assert_eq!(objects(&reply.text(), false), objects(&answer(1, false), false));
    let ready = eventually(|| {
        Some(get(server.address("server"), "/readyz").json()).filter(|ready| ready["warnings"].is_array())
    });
    assert!(ready["warnings"][0].as_str().unwrap().contains("capture.memory_budget_bytes"), "{ready}");
    assert!(metric(&server, "tracewire_spill_errors_total") >= 1.0);
    std::fs::rename(&moved, &store).unwrap();
    server.stop();
    let show = ["trace", "show", "ro-1", "--format", "json", "--store", db.to_str().unwrap()];
    let output = crate::support::tracewire(bench.home()).args(show).output().unwrap();
    let spans: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let span = spans.iter().find(|span| span["attributes"]["http.request.method"] == "POST").unwrap();
    let cut =
        ["request", "response"].map(|side| span["attributes"][format!("tracewire.capture.{side}_truncated")].clone());
    assert!(cut.contains(&json!("disk")), "{cut:?}");
}
