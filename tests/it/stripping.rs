//! Responses that lose what only Tracewire asked for, through sockets: of any size, cut anywhere, read at any speed, an agent
//! gets what an engine sends that was not asked.

use crate::support::client::{Reply, ask, begin};
use crate::support::model_server::{read_request, respond};
use crate::support::{Bench, Running, endpoint, eventually, read_head};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const BODY: &str = r#"{"model":"m","messages":[]}"#;
const LONG: usize = 50 << 20;

/// What an engine sends.
struct Response {
    content_type: &'static str,
    /// For requests without and with the fields that Tracewire adds.
    bodies: [String; 2],
    /// The size of its chunks; none with a length.
    chunk: Option<usize>,
}

/// An engine that sends this, and counts what it has sent to requests that ask for token ids.
fn engine(response: Response) -> (SocketAddr, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let address = endpoint(move |mut stream| {
        let head = read_head(&mut stream).to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let mut request = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut request).unwrap();
        let is_asked = String::from_utf8(request).unwrap().contains("return_token_ids");
        let body = response.bodies[usize::from(is_asked)].as_bytes();
        let length = match response.chunk {
            Some(_) => "Transfer-Encoding: chunked".to_owned(),
            None => format!("Content-Length: {}", body.len()),
        };
        let kind = response.content_type;
        let mut write = |bytes: &[u8]| {
            let _ = stream.write_all(bytes);
            if is_asked {
                count.fetch_add(bytes.len(), Ordering::Relaxed);
            }
        };
        write(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{length}\r\nConnection: close\r\n\r\n").as_bytes());
        for chunk in body.chunks(response.chunk.unwrap_or(1 << 16)) {
            match response.chunk {
                Some(_) => write(&[format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()),
                None => write(chunk),
            }
        }
        if response.chunk.is_some() {
            write(b"0\r\n\r\n");
        }
    });
    (address, sent)
}

fn serve(bench: &Bench) -> Running {
    serve_with(bench, "max_body_bytes = 100000")
}

fn serve_with(bench: &Bench, capture: &str) -> Running {
    let config = bench.home().join("proxy.toml");
    let tokens = "[tokens]\nengines = [{ hosts = [\"127.0.0.1\"], engine = \"vllm\" }]";
    std::fs::write(&config, format!("{tokens}\n[capture]\n{capture}\n")).unwrap();
    bench.serve(&["--config", config.to_str().unwrap()])
}

/// Compares what the agent gets through the proxy with what it gets without.
fn assert_unchanged(serve: &Running, response: Response) {
    let (target, sent) = engine(response);
    let path = format!("http://{target}/v1/chat/completions");
    let direct = ask(target, "POST", "/v1/chat/completions", &[], BODY);
    assert_eq!(sent.load(Ordering::Relaxed), 0);
    assert_same(&ask(serve.address("proxy"), "POST", &path, &[], BODY), &direct);
    assert!(sent.load(Ordering::Relaxed) > direct.body.len(), "the engine was not asked");
}

fn assert_same(reply: &Reply, expected: &Reply) {
    for name in ["content-length", "content-type", "transfer-encoding"] {
        assert_eq!(reply.header(name), expected.header(name), "{name}");
    }
    assert_eq!(reply.body.len(), expected.body.len());
    // Without the bodies in the message.
    assert!(reply.body == expected.body);
}

/// `count` bytes of token ids, and what is sent instead to those who do not ask for them.
fn ids(count: usize) -> [String; 2] {
    ["null".to_owned(), format!("[1{}]", ",151000".repeat(count / 7))]
}

fn answers(prompt: usize, content: &str, choice: usize) -> [String; 2] {
    let (prompt, choice) = (ids(prompt), ids(choice));
    [0, 1].map(|asked| {
        let (prompt, choice) = (&prompt[asked], &choice[asked]);
        format!(
            r#"{{"id":"c", "prompt_token_ids": {prompt},"choices":[{{"message":{{"content":"{content}"}},"token_ids":{choice}}}]}}"#
        )
    })
}

fn event_of(data: &str) -> String {
    format!("data: {data}\n\n")
}

#[test]
fn a_long_answer_and_a_long_event_lose_only_what_was_added() {
    let bench = Bench::new();
    let serve = serve(&bench);
    for chunk in [None, Some(100_000)] {
        assert_unchanged(
            &serve,
            Response { content_type: "application/json", bodies: answers(LONG / 2, "hi", LONG / 2), chunk },
        );
    }
    let bodies = answers(LONG / 2, "hi", LONG / 2).map(|data| event_of(&data) + "data: [DONE]\n\n");
    assert_unchanged(&serve, Response { content_type: "text/event-stream", bodies, chunk: Some(100_000) });
}

#[test]
fn what_stays_of_a_long_answer_is_held_on_disk_if_memory_is_short() {
    let bench = Bench::new();
    let serve = serve_with(&bench, "memory_budget_bytes = 1000000");
    let bodies = answers(1000, &"word ".repeat(LONG / 5), 1000);
    assert_unchanged(&serve, Response { content_type: "application/json", bodies, chunk: None });
}

#[test]
fn ten_thousand_frames_lose_only_what_was_added() {
    let bench = Bench::new();
    let serve = serve(&bench);
    let bodies = answers(10_000, &"é".repeat(5000), 10_000);
    assert_unchanged(&serve, Response { content_type: "application/json", bodies, chunk: Some(3) });
    let events = answers(20, "é", 20).map(|data| (event_of(&data) + ": ping\r\n\r\n").repeat(300));
    assert_unchanged(&serve, Response { content_type: "text/event-stream", bodies: events, chunk: Some(7) });
}

#[test]
fn an_agent_that_reads_slowly_gets_everything() {
    let bench = Bench::new();
    let serve = serve(&bench);
    for content_type in ["application/json", "text/event-stream"] {
        let bodies = answers(1000, &"word ".repeat(LONG / 50), 1000);
        let bodies = if content_type == "application/json" { bodies } else { bodies.map(|data| event_of(&data)) };
        let expected = bodies[0].clone();
        let (target, sent) = engine(Response { content_type, bodies, chunk: Some(50_000) });
        let path = format!("http://{target}/v1/chat/completions");
        let coming = begin(serve.address("proxy"), "POST", &path, &[], BODY);
        // The agent reads on when the engine has sent much of it.
        eventually(|| (sent.load(Ordering::Relaxed) > 500_000).then_some(()));
        assert!(coming.read().body == expected.as_bytes(), "{content_type}");
    }
}

/// An engine that sends the beginning of an answer, and closes.
fn breaking_off(beginning: &'static str) -> SocketAddr {
    endpoint(move |mut stream: TcpStream| {
        read_head(&mut stream);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n";
        stream.write_all(format!("{head}{beginning}").as_bytes()).unwrap();
    })
}

#[test]
fn an_answer_that_breaks_off_is_cut_short_for_the_agent_too() {
    let bench = Bench::new();
    let serve = serve(&bench);
    let target = breaking_off(r#"{"id":1,"choices":[{"message":{},"token_ids":[1,2,3"#);
    let path = format!("http://{target}/v1/chat/completions");
    let reply = ask(serve.address("proxy"), "POST", &path, &[], BODY);
    assert_eq!(reply.header("content-length"), Some("1000"));
    assert_eq!(reply.text(), r#"{"id":1,"choices":[{"message":{},"token_ids":null"#);
}

/// As llama.cpp answers at `/completion`: it repeats what was asked.
fn llama_cpp(mut stream: TcpStream) {
    if let Some(body) = read_request(&mut stream) {
        let body: Value = serde_json::from_slice(&body.unwrap_or_else(|| b"{}".to_vec())).unwrap();
        let n_probs = body["n_probs"].as_u64().unwrap_or(0);
        let mut answer = json!({"content": "hi", "tokens": [], "generation_settings": {"seed": 7, "n_probs": n_probs}});
        if n_probs > 0 {
            answer["completion_probabilities"] = json!([{"id": 5, "token": "hi", "logprob": -0.5}]);
        }
        if body["return_tokens"] == true && body["stream"] != true {
            answer["tokens"] = json!([5]);
        }
        answer["stop"] = true.into();
        answer["timings"] = json!({});
        match body["stream"] == true {
            true => respond(&mut stream, "text/event-stream", &event_of(&answer.to_string())),
            false => respond(&mut stream, "application/json", &answer.to_string()),
        }
    }
}

/// As vLLM answers: with ids an echo lacks the prompt, and what was not asked for is null.
fn vllm(mut stream: TcpStream) {
    if let Some(body) = read_request(&mut stream) {
        let body: Value = serde_json::from_slice(&body.unwrap_or_else(|| b"{}".to_vec())).unwrap();
        let asked = |name: &str, value: Value| if body[name] == true { value } else { Value::Null };
        let answer = if body.get("input").is_some() {
            let tokens = |ids: [u32; 2]| asked("enable_response_messages", json!([{"tokens": ids}]));
            json!({"id": "r", "object": "response", "status": "completed", "output": [], "input_messages": tokens([1, 2]),
                   "output_messages": tokens([3, 4])})
        } else {
            let echo = body["echo"] == true && body["return_token_ids"] != true;
            let logprobs =
                if body.get("logprobs").is_some() { json!({"token_logprobs": [-0.5, -0.5]}) } else { Value::Null };
            let text = if echo { "the prompt, answered" } else { ", answered" };
            json!({"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": text, "finish_reason": "stop",
                   "logprobs": logprobs, "token_ids": asked("return_token_ids", json!([3, 4])),
                   "prompt_token_ids": asked("return_token_ids", json!([1, 2]))}]})
        };
        respond(&mut stream, "application/json", &answer.to_string());
    }
}

#[test]
fn an_echo_has_its_prompt_and_what_was_not_asked_for_stays_null() {
    let (bench, engine) = (Bench::new(), endpoint(vllm));
    let serve = serve(&bench);
    for (at, (path, body, has_ids)) in [
        ("/v1/completions", json!({"prompt": "the prompt"}), true),
        ("/v1/completions", json!({"prompt": "the prompt", "echo": true}), false),
        ("/v1/responses", json!({"input": "x"}), true),
    ]
    .iter()
    .enumerate()
    {
        let rollout = format!("ro-{at}");
        let through = |address: SocketAddr, target: &str| {
            let headers = [("x-rollout-id", rollout.as_str()), ("content-type", "application/json")];
            ask(address, "POST", target, &headers, &body.to_string()).text()
        };
        let seen = through(serve.address("proxy"), &format!("http://{engine}{path}"));
        assert_eq!(seen, through(engine, path), "{path} {body}");
        let attributes = &bench.exchanges(&rollout, 1)[0]["attributes"];
        assert_eq!(attributes.get("response_token_ids").is_some(), *has_ids, "{path} {body}");
        if !has_ids {
            let told = [&attributes["tracewire.tokens.status"], &attributes["tracewire.tokens.reasons"]];
            assert_eq!(told, [&json!("none"), &json!(["not_requested"])]);
        }
    }
}

#[test]
fn what_llama_cpp_repeats_of_the_request_is_what_the_agent_asked() {
    let (bench, engine) = (Bench::new(), endpoint(llama_cpp));
    let config = bench.home().join("proxy.toml");
    let engines = format!("[tokens]\nengines = [{{ hosts = [\"{engine}\"], engine = \"llama.cpp\" }}]\n");
    std::fs::write(&config, engines).unwrap();
    let serve = bench.serve(&["--config", config.to_str().unwrap()]);
    for (at, more) in
        [json!({}), json!({"stream": true}), json!({"n_probs": 3}), json!({"return_tokens": true})].iter().enumerate()
    {
        let mut body = json!({"prompt": "x"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let rollout = format!("ro-{at}");
        let through = |address: SocketAddr, target: &str| {
            ask(
                address,
                "POST",
                target,
                &[("x-rollout-id", &rollout), ("content-type", "application/json")],
                &body.to_string(),
            )
            .text()
        };
        let url = format!("http://{engine}/completion");
        assert_eq!(through(serve.address("proxy"), &url), through(engine, "/completion"), "{more}");
        assert_eq!(bench.exchanges(&rollout, 1)[0]["attributes"]["response_token_ids"], json!([5]), "{more}");
    }
}

#[test]
fn an_endpoint_that_rejects_the_fields_is_named_as_the_reason() {
    let (bench, asked) = (Bench::new(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let engine = endpoint(move |mut stream| {
        while let Some(body) = read_request(&mut stream) {
            if String::from_utf8(body.unwrap_or_default()).unwrap().contains("return_token_ids") {
                count.fetch_add(1, Ordering::Relaxed);
                let error = r#"{"error":{"message":"return_token_ids is not allowed"}}"#;
                let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n";
                write!(stream, "{head}content-length: {}\r\n\r\n{error}", error.len()).unwrap();
            } else {
                let choice = json!({"index": 0, "finish_reason": "stop", "message": {"content": "hi"}});
                respond(&mut stream, "application/json", &json!({"id": "c", "choices": [choice]}).to_string());
            }
        }
    });
    let serve = serve(&bench);
    let path = format!("http://{engine}/v1/chat/completions");
    let headers = [("x-rollout-id", "ro"), ("content-type", "application/json")];
    for _ in 0..2 {
        assert_eq!(ask(serve.address("proxy"), "POST", &path, &headers, BODY).status, 200);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it is asked once");
    for span in bench.exchanges("ro", 2) {
        let attributes = &span["attributes"];
        let told = [&attributes["tracewire.tokens.status"], &attributes["tracewire.tokens.reasons"]];
        assert_eq!(told, [&json!("none"), &json!(["request_rejected"])]);
    }
}
