//! Bodies that come to the gateway in another form than usual: compressed requests.

use crate::support::client::{get, post, post_bytes};
use crate::support::{Bench, Running, eventually, is_exchange, tracewire};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use serde_json::{Value, json};
use std::io::Write;

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
            assert_eq!(span["name"], "chat mock", "{coding}: {span:#}");
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
