//! Bodies that come to the gateway in another form than usual: compressed requests, and streams without their last event.

use crate::support::client::{Reply, ask, get, post, post_bytes};
use crate::support::{Bench, Running, endpoint, eventually, is_exchange, read_head, tracewire};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::SocketAddr;

fn path(rollout: &str) -> String {
    format!("/rollout/{rollout}/attempt/at/v1/chat/completions")
}

/// The span of a rollout's only exchange.
fn span(serve: &Running, rollout: &str) -> Value {
    eventually(|| {
        let page = get(serve.address("server"), &format!("/v1/agl/spans?rollout_id={rollout}")).json();
        page["items"].as_array().unwrap().iter().find(|span| is_exchange(span)).cloned()
    })
}

/// A stream of Brotli (RFC 7932 §9.2) with one block that is not compressed.
fn brotli(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len() - 1).unwrap();
    let head = ((length << 4) | (1 << 20)).to_le_bytes();
    [&head[..3], bytes, &[3]].concat()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

type Encode = fn(&[u8]) -> Vec<u8>;

/// Codings as clients name them.
const CODINGS: [(&str, Encode); 6] = [
    ("gzip", gzip),
    ("deflate", zlib),
    ("deflate", raw_deflate),
    ("br", brotli),
    ("zstd", zstd),
    ("br, gzip", |bytes| gzip(&brotli(bytes))),
];

#[test]
fn a_compressed_call_is_recorded_as_any_other() {
    let bench = Bench::with_mock(&["--vllm"]);
    let serve = bench.gateway("[capture]\ninclude_bodies = true\ninclude_headers = true\n");
    for streams in [false, true] {
        let body =
            json!({ "model": "mock", "stream": streams, "messages": [{ "role": "user", "content": "one two" }] });
        let plain = format!("plain-{streams}");
        assert_eq!(post(serve.address("server"), &path(&plain), &body).status, 200);
        let plain = span(&serve, &plain);
        for (at, (coding, encode)) in CODINGS.iter().enumerate() {
            let (rollout, body) = (format!("{at}-{streams}"), encode(body.to_string().as_bytes()));
            let reply = post_bytes(serve.address("server"), &path(&rollout), &[("content-encoding", coding)], &body);
            assert_eq!(reply.status, 200, "{coding}: {}", reply.text());
            let span = span(&serve, &rollout);
            assert_eq!(span["attributes"]["gen_ai.operation.name"], "chat", "{coding}: {span:#}");
            assert_eq!(span["attributes"]["tracewire.tokens.status"], "exact", "{coding}: {span:#}");
            for name in [
                "gen_ai.input.messages",
                "gen_ai.output.messages",
                "gen_ai.request.model",
                "prompt_token_ids",
                "response_token_ids",
                "http.request.body.content",
            ] {
                assert_eq!(span["attributes"][name], plain["attributes"][name], "{coding}: {name}");
                assert!(!span["attributes"][name].is_null(), "{coding}: {name}");
            }
            // The header is the agent's.
            assert_eq!(span["attributes"]["http.request.header.content-encoding"], json!([coding]));
        }
    }
    // A call that no backend gets is recorded in the same way.
    let body = json!({ "model": "mock", "messages": [{ "role": "user", "content": "for none" }] });
    let bench = Bench::new();
    let none = bench.gateway_without_backends("");
    let reply = post_bytes(
        none.address("server"),
        &path("unsent"),
        &[("content-encoding", "gzip")],
        &gzip(body.to_string().as_bytes()),
    );
    assert_ne!(reply.status, 200);
    let messages = span(&none, "unsent")["attributes"]["gen_ai.input.messages"].clone();
    assert!(messages.as_str().is_some_and(|text| text.contains("for none")), "{messages}");
}

#[test]
fn a_compressed_call_is_read_back_from_its_har() {
    let bench = Bench::with_mock(&["--vllm"]);
    let serve = bench.gateway("[capture]\ninclude_bodies = true\ninclude_headers = true\n");
    let body = json!({ "model": "mock", "messages": [{ "role": "user", "content": "one two" }] }).to_string();
    post_bytes(serve.address("server"), &path("ro"), &[("content-encoding", "gzip")], &gzip(body.as_bytes()));
    let before = span(&serve, "ro");
    let har = bench.home().join("ro.har");
    let command = |words: &[&str]| {
        let output = tracewire(bench.home()).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", crate::support::text(&output));
        output.stdout
    };
    let store = bench.home().join("again.db");
    let (har, store) = (har.to_str().unwrap(), store.to_str().unwrap());
    command(&["export", "--all", "--format", "har", "-o", har]);
    command(&["import", har, "--store", store]);
    let spans: Vec<Value> =
        serde_json::from_slice(&command(&["trace", "show", "ro", "--format", "json", "--store", store])).unwrap();
    let after = spans.iter().find(|span| is_exchange(span)).unwrap();
    for name in ["gen_ai.input.messages", "http.request.header.content-encoding"] {
        assert_eq!(after["attributes"][name], before["attributes"][name], "{name}");
    }
}

/// A model server that streams these events, and then ends the body or resets the connection.
fn streaming(events: Vec<String>, framing: &'static str) -> SocketAddr {
    endpoint(move |mut stream| {
        let head = read_head(&mut stream).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        drop(stream.read_exact(&mut vec![0; length.unwrap_or(0)]));
        if head.starts_with("get ") {
            drop(stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
            return;
        }
        let header = if framing == "close" { "" } else { "Transfer-Encoding: chunked\r\n" };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{header}Connection: close\r\n\r\n");
        let chunk = |event: &String| match framing {
            "close" => event.clone(),
            _ => format!("{:x}\r\n{event}\r\n", event.len()),
        };
        let end = if framing == "chunked" { "0\r\n\r\n" } else { "" };
        let body: String = events.iter().map(chunk).collect();
        drop(stream.write_all(format!("{head}{body}{end}").as_bytes()));
    })
}

/// Events of a stream with token ids, up to its finish reason, with the usage.
fn events(is_chat: bool) -> Vec<String> {
    let choice = |mut choice: Value, text: &str| {
        if is_chat {
            choice["delta"] = json!({ "content": text });
            choice["logprobs"] = json!({ "content": [{ "token": "t", "logprob": -0.5 }] });
        } else {
            choice["text"] = text.into();
            choice["logprobs"] = json!({ "tokens": ["t"], "token_logprobs": [-0.5] });
        }
        choice
    };
    let first = json!({ "index": 0, "token_ids": [10], "prompt_token_ids": [1, 2, 3], "finish_reason": null });
    let last = json!({ "index": 0, "token_ids": [11], "finish_reason": "stop" });
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 });
    [
        json!({ "id": "c", "model": "m", "choices": [choice(first, "a")] }),
        json!({ "id": "c", "model": "m", "choices": [choice(last, "b")] }),
        json!({ "id": "c", "model": "m", "choices": [], "usage": usage }),
    ]
    .map(|event| format!("data: {event}\n\n"))
    .to_vec()
}

fn streamed(api: &str) -> Value {
    match api {
        "chat/completions" => {
            json!({ "model": "m", "stream": true, "messages": [{ "role": "user", "content": "hi" }] })
        }
        _ => json!({ "model": "m", "stream": true, "prompt": "hi" }),
    }
}

/// A gateway before a backend of this engine.
fn before(bench: &Bench, engine: &str, backend: SocketAddr) -> Running {
    let backend = format!("backends = [{{ model = \"m\", url = \"http://{backend}/v1\", engine = \"{engine}\" }}]");
    bench.gateway_without_backends(&format!("[gateway]\nretries = 0\n{backend}\n"))
}

fn call(serve: &Running, rollout: &str, api: &str) -> Reply {
    let path = format!("/rollout/{rollout}/attempt/at/v1/{api}");
    ask(serve.address("server"), "POST", &path, &[], &streamed(api).to_string())
}

#[test]
fn a_stream_without_its_last_event_is_complete_after_a_finish_reason_and_a_clean_end() {
    for (engine, api, framing) in [
        ("vllm", "chat/completions", "chunked"),
        ("vllm", "chat/completions", "close"),
        ("vllm", "completions", "chunked"),
        ("transformers", "chat/completions", "chunked"),
        ("sglang", "completions", "chunked"),
        ("openai", "completions", "close"),
    ] {
        let case = format!("{engine} {api} {framing}");
        let bench = Bench::new();
        let backend = streaming(events(api.starts_with("chat")), framing);
        let serve = before(&bench, engine, backend);
        let reply = call(&serve, "ro", api);
        assert_eq!(reply.status, 200, "{case}");
        assert!(reply.text().contains("\"finish_reason\":\"stop\""), "{case}: {}", reply.text());
        let span = span(&serve, "ro");
        assert_eq!(span["attributes"]["tracewire.tokens.status"], "exact", "{case}: {span:#}");
        assert!(span["attributes"]["error.type"].is_null(), "{case}: {span:#}");
        assert_eq!(span["attributes"]["response_token_ids"], json!([10, 11]), "{case}");
    }
}

#[test]
fn a_stream_that_breaks_off_or_has_no_finish_reason_stays_incomplete() {
    let whole = events(true);
    for (events, framing, error) in [
        (whole[..1].to_vec(), "chunked", "incomplete_stream"),
        (whole[..1].to_vec(), "close", "incomplete_stream"),
        (whole.clone(), "chunked without an end", "http_response_incomplete"),
        // The finish reason came in an event that is cut.
        (vec![whole[0].clone(), whole[1][..whole[1].len() - 8].to_owned()], "close", "incomplete_stream"),
    ] {
        let bench = Bench::new();
        let serve = before(&bench, "vllm", streaming(events, framing));
        call(&serve, "ro", "chat/completions");
        let span = span(&serve, "ro");
        assert_ne!(span["attributes"]["tracewire.tokens.status"], "exact", "{framing}: {span:#}");
        let reasons = span["attributes"]["tracewire.tokens.reasons"].to_string();
        assert!(reasons.contains("no_end"), "{framing}: {span:#}");
        assert_eq!(span["attributes"]["error.type"], error, "{framing}: {span:#}");
    }
}
