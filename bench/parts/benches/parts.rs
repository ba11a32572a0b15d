//! What Tracewire does for every exchange, part by part: `cargo bench --manifest-path bench/parts/Cargo.toml`.

use bytes::Bytes;
use divan::Bencher;
use http_body_util::{BodyExt, Full};
use std::sync::Arc;
use std::time::Instant;
use tracewire::internals::{CaptureSettings, Captured, ExchangeStart, Recorder, TeeBody};
use tracewire::internals::{HttpExchangeView, read};
use tracewire::internals::{Relations, SpanOptions, build_spans};
use tracewire::internals::SequenceLease;
use tracewire::store::Store;
use tracewire::store::sqlite::{SqliteOptions, SqliteStore};
use tracewire::internals::{CertAuthority, LeafCache, LeafKey};
use tracewire::trace::exchange::{
    ConnectionFacts, Direction, ExchangeKind, Identity, IdentitySource, RequestHead, ResponseHead, TraceContext,
};
use tracewire::trace::{Span, SpanId, TraceId};
use tracewire::internals::Redactor;
use tracewire::internals::Events;
use tracewire::internals::{Change, Changes, change};

// As the program has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    tracewire::internals::install_provider();
    divan::main();
}

/// A certificate for a name that has none yet, with its TLS settings.
#[divan::bench]
fn leaf_for_a_new_name(bencher: Bencher) {
    let cache = LeafCache::new(CertAuthority::ephemeral("bench").unwrap()).unwrap();
    bencher
        .with_inputs(|| format!("h{}.test", fastrand::u64(..)))
        .bench_refs(|name| cache.server_config(name, &[b"http/1.1"], LeafKey::P256).unwrap());
}

/// The same for a name that has one.
#[divan::bench]
fn leaf_for_a_known_name(bencher: Bencher) {
    let cache = LeafCache::new(CertAuthority::ephemeral("bench").unwrap()).unwrap();
    bencher.bench(|| cache.server_config("known.test", &[b"http/1.1"], LeafKey::P256).unwrap());
}

/// A body of 9 kB that passes and is kept.
#[divan::bench]
fn tee(bencher: Bencher) {
    let runtime = runtime();
    let (recorder, mut queue) = Recorder::with_one_queue(CaptureSettings { include_bodies: true, ..CaptureSettings::default() }, std::env::temp_dir());
    let body = Bytes::from(json());
    bencher.bench_local(|| {
        runtime.block_on(async {
            let recording = recorder.start_now(exchange_start());
            let tee = TeeBody::new(
                Full::new(body.clone()),
                recording,
                Direction::Response,
                |never| match *never {},
                |_| false,
            );
            let collected = tee.collect().await.unwrap();
            (collected.to_bytes(), queue.recv().await)
        })
    });
}

/// A span with headers and bodies, redacted.
#[divan::bench]
fn span(bencher: Bencher) {
    let options = options();
    let mut relations = Relations::default();
    bencher.with_inputs(|| captured().exchange).bench_local_refs(|exchange| build_spans(exchange, None, &mut relations, &options).span);
}

/// The redaction of 9 kB of JSON.
#[divan::bench]
fn redaction(bencher: Bencher) {
    let (redactor, text) = (Redactor::default(), json());
    bencher.bench(|| redactor.body(Some("application/json"), "/v1/chat/completions", &text).len());
}

/// A chat answer of 9 kB with 200 prompt ids, 100 response ids and 100 logprobs, read into a call.
#[divan::bench]
fn read_answer(bencher: Bencher) {
    let answer = answer();
    bencher.bench(|| read(&seen(&answer)));
}

/// The same as a span: read, proved, written, redacted.
#[divan::bench]
fn span_of_answer(bencher: Bencher) {
    let (options, answer) = (SpanOptions { include_bodies: false, ..options() }, answer());
    let mut relations = Relations::default();
    bencher
        .with_inputs(|| {
            let mut exchange = captured().exchange;
            exchange.request_body.content = Some(Box::new(REQUEST.to_vec()));
            exchange.response_body.content = Some(Box::new(answer.clone()));
            exchange
        })
        .bench_local_refs(|exchange| build_spans(exchange, None, &mut relations, &options).span);
}

/// The answer of 9 kB without what an agent did not request.
#[divan::bench]
fn strip_answer(bencher: Bencher) {
    let answer = answer();
    bencher.bench(|| change(&answer, &token_ids()));
}

/// 8 MB of token ids and of routed experts, removed.
#[divan::bench(args = ["ids", "experts"])]
fn strip_long_answer(bencher: Bencher, what: &str) {
    let (part, count) = if what == "ids" { ("151000", 1 << 20) } else { ("[[17,3,120,55],[2,61,8,99]]", 1 << 18) };
    let answer = format!(r#"{{"id":"c","choices":[{{"token_ids":[{}]}}]}}"#, vec![part; count].join(","));
    bencher
        .counter(divan::counter::BytesCount::new(answer.len()))
        .bench(|| change(answer.as_bytes(), &token_ids()));
}

fn token_ids() -> Changes {
    Changes {
        root: vec![("prompt_token_ids", Change::Null)],
        choice: vec![("token_ids", Change::Null), ("logprobs", Change::Null)],
        ..Changes::default()
    }
}

/// The events of 1 MB of a stream, found.
#[divan::bench]
fn sse_events(bencher: Bencher) {
    let stream = stream();
    bencher.counter(divan::counter::BytesCount::new(stream.len())).bench(|| Events::new(&stream).count());
}

/// The same stream, read into a call.
#[divan::bench]
fn read_stream(bencher: Bencher) {
    let stream = stream();
    bencher.counter(divan::counter::BytesCount::new(stream.len())).bench(|| read(&seen(&stream)));
}

/// An answer with 128k prompt ids and 4k response ids and logprobs, read into a call.
#[divan::bench(sample_count = 20)]
fn read_long_answer(bencher: Bencher) {
    let ids = |count: u32| (0..count).map(|id| (id * 7919 % 151_000).to_string()).collect::<Vec<_>>().join(",");
    let logprobs = vec![r#"{"token":"w","logprob":-0.5,"bytes":[119],"top_logprobs":[]}"#; 4096].join(",");
    let answer = format!(
        r#"{{"prompt_token_ids":[{}],"choices":[{{"index":0,"message":{{"role":"assistant","content":"x"}},"token_ids":[{}],"logprobs":{{"content":[{logprobs}]}}}}]}}"#,
        ids(128 * 1024),
        ids(4096)
    );
    bencher.bench(|| read(&seen(answer.as_bytes())));
}

/// 256 spans with bodies, encoded and committed.
#[divan::bench(sample_count = 20)]
fn append_256(bencher: Bencher) {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let store = {
        let _entered = runtime.enter();
        SqliteStore::open(&folder.path().join("traces.db"), SqliteOptions::default()).unwrap()
    };
    let span = build_spans(&mut captured().exchange, None, &mut Relations::default(), &options()).span;
    bencher
        .with_inputs(|| (0..256).map(|_| Arc::new(another(&span))).collect::<Vec<_>>())
        .bench_local_values(|spans| runtime.block_on(store.append(spans)).unwrap());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn options() -> SpanOptions {
    SpanOptions { include_headers: true, include_bodies: true, llm_content: true, max_body_bytes: 8 << 20, ..SpanOptions::default() }
}

/// The same span under another id, with another body.
fn another(span: &Span) -> Span {
    let mut span = span.clone();
    span.span_id = SpanId::from_random(fastrand::u64(1..)).to_string();
    span.set("http.response.body.content", format!("{} {}", fastrand::u64(..), json()));
    span
}

/// An exchange as the recorder delivers it.
fn captured() -> Captured {
    let runtime = runtime();
    let (recorder, mut queue) = Recorder::with_one_queue(CaptureSettings { include_bodies: true, ..CaptureSettings::default() }, std::env::temp_dir());
    runtime.block_on(async {
        let recording = recorder.start_now(exchange_start());
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", http::HeaderValue::from_static("application/json"));
        recording.response(ResponseHead { status: http::StatusCode::OK, version: http::Version::HTTP_11, headers });
        let body = Full::new(Bytes::from(json()));
        let tee = TeeBody::new(body, recording, Direction::Response, |never| match *never {}, |_| false);
        tee.collect().await.unwrap();
        queue.recv().await.unwrap()
    })
}

fn exchange_start() -> ExchangeStart {
    let (rollout, attempt) = ("ro-bench".into(), "at-bench".into());
    let trace = TraceContext {
        trace_id: TraceId::of_attempt(&rollout, &attempt),
        span_id: SpanId::from_random(fastrand::u64(1..)),
        parent_id: SpanId::of_attempt_root(&rollout, &attempt),
        parent_is_remote: false,
        otel_state: None,
    };
    let source = IdentitySource::Headers;
    ExchangeStart {
        identity: Identity { rollout_id: rollout, attempt_id: attempt, sequence_id: 1, source, conflict: None },
        trace,
        kind: ExchangeKind::Http,
        request: RequestHead {
            method: http::Method::POST,
            scheme: "https",
            host: "api.example".into(),
            port: 443,
            target: "/v1/chat/completions".into(),
            version: http::Version::HTTP_11,
            headers: http::HeaderMap::new(),
        },
        connection: ConnectionFacts::default(),
        started: Instant::now(),
        is_required: false,
        records_bodies: false,
        sequence: SequenceLease::default(),
    }
}

/// A chat completion with token ids and logprobs, 9 kB.
fn json() -> String {
    let logprobs: Vec<String> = (0..180)
        .map(|token| format!("{{\"token\":\"w{token}\",\"logprob\":-0.{token:06},\"bytes\":null}}"))
        .collect();
    let ids: Vec<String> = (0..180).map(|token| (token * 7919 % 151_000).to_string()).collect();
    format!("{{\"choices\":[{{\"token_ids\":[{}],\"logprobs\":{{\"content\":[{}]}}}}]}}", ids.join(","), logprobs.join(","))
}

const REQUEST: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"What is 2+2?"}],"return_token_ids":true}"#;

static NO_FIELDS: std::sync::LazyLock<http::HeaderMap> = std::sync::LazyLock::new(http::HeaderMap::new);

fn seen(response: &[u8]) -> HttpExchangeView<'_> {
    HttpExchangeView {
        host: "vllm",
        port: 8000,
        target: "/v1/chat/completions",
        request_headers: &NO_FIELDS,
        request_body: REQUEST,
        status: Some(200),
        response_headers: &NO_FIELDS,
        response_body: response,
    }
}

fn answer() -> Vec<u8> {
    let ids = |count: u32| (0..count).map(|id| (id * 7919 % 151_000).to_string()).collect::<Vec<_>>().join(",");
    let logprobs = vec![r#"{"token":"w","logprob":-0.51234567,"bytes":[119],"top_logprobs":[]}"#; 100].join(",");
    format!(
        r#"{{"id":"chatcmpl-1","model":"m","prompt_token_ids":[{}],"choices":[{{"index":0,"message":{{"role":"assistant","content":"{}"}},"token_ids":[{}],"logprobs":{{"content":[{logprobs}]}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":200,"completion_tokens":100}}}}"#,
        ids(200),
        "word ".repeat(60),
        ids(100)
    )
    .into_bytes()
}

fn stream() -> Vec<u8> {
    let event = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"},\"token_ids\":[1234],\"finish_reason\":null}]}\n\n";
    event.repeat((1 << 20) / event.len()).into_bytes()
}
