//! Every way a body can end, seen by the tee.

use super::TeeBody;
use crate::capture::settings::{Durability, WhenFull};
use crate::capture::{CaptureQueue, CaptureSettings, CommitStatus, ExchangeStart, Recorder};
use crate::error::{ErrorKind, ProxyError, Side};
use crate::shared_state::SequenceLease;
use crate::trace::exchange::{
    ConnectionFacts, Direction, ExchangeKind, Identity, IdentitySource, Message, MessageOpcode, Outcome, RawEnd,
    RequestHead, ResponseHead, TraceContext, Truncation,
};
use crate::trace::{AttemptId, RolloutId, SpanId, TraceId};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Method, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Body, Frame};
use proptest::prelude::*;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

type Frames = Vec<Result<Frame<Bytes>, std::io::Error>>;

fn exchange_start() -> ExchangeStart {
    let (rollout_id, attempt_id) = (RolloutId::from("ro-1"), AttemptId::from("at-1"));
    ExchangeStart {
        trace: TraceContext {
            trace_id: TraceId::of_attempt(&rollout_id, &attempt_id),
            span_id: SpanId::from_random(1),
            parent_id: SpanId::from_random(2),
            parent_is_remote: false,
            otel_state: None,
        },
        identity: Identity { rollout_id, attempt_id, sequence_id: 1, source: IdentitySource::Binding, conflict: None },
        kind: ExchangeKind::Http,
        request: RequestHead {
            method: Method::GET,
            scheme: "http",
            host: "example.com".into(),
            port: 80,
            target: "/".into(),
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
        },
        connection: ConnectionFacts::default(),
        started: Instant::now(),
        is_required: false,
        records_bodies: false,
        sequence: SequenceLease::default(),
    }
}

fn recorder(max_body_bytes: u64) -> (Recorder, CaptureQueue) {
    Recorder::with_one_queue(
        CaptureSettings { include_bodies: true, max_body_bytes, ..CaptureSettings::default() },
        std::env::temp_dir(),
    )
}

fn error_of(error: &std::io::Error) -> ProxyError {
    ProxyError::from_source(ErrorKind::HttpResponseIncomplete, "example.com", error)
}

fn tee<B: Body<Data = Bytes> + Unpin>(
    body: B,
    recorder: &Recorder,
    error_of: fn(&B::Error) -> ProxyError,
) -> TeeBody<B> {
    TeeBody::new(body, recorder.start_now(exchange_start()), Direction::Response, error_of, |_| false)
}

fn frames(parts: Frames) -> impl Body<Data = Bytes, Error = std::io::Error> + Unpin {
    let mut parts = parts.into_iter();
    StreamBody::new(futures_stream(move || parts.next()))
}

/// A stream of the items that a closure returns.
fn futures_stream<T>(next: impl FnMut() -> Option<T> + Unpin) -> impl futures_core::Stream<Item = T> + Unpin {
    struct Next<F>(F);
    impl<T, F: FnMut() -> Option<T> + Unpin> futures_core::Stream for Next<F> {
        type Item = T;
        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T>> {
            Poll::Ready((self.0)())
        }
    }
    Next(next)
}

fn data(text: &'static str) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// The recorded bytes of a body.
fn recorded(body: &crate::trace::exchange::Body) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(content) = &body.content {
        content.read_from(0, &mut |piece| bytes.extend_from_slice(piece)).unwrap();
    }
    bytes
}

#[tokio::test]
async fn an_empty_body_completes() {
    let (recorder, mut queue) = recorder(100);
    let body = tee(Empty::<Bytes>::new(), &recorder, |never| match *never {});
    body.collect().await.unwrap();
    assert!(matches!(queue.recv().await.unwrap().exchange.outcome, Outcome::Complete));
}

#[tokio::test]
async fn a_worker_that_gathers_is_woken_by_an_awaited_exchange_and_by_a_queue_that_fills() {
    let error = ProxyError::new(ErrorKind::HttpResponseIncomplete, "example.com", "on purpose");
    for (durability, waking) in [(Durability::Async, 3), (Durability::Commit, 1)] {
        let settings = CaptureSettings { queue_exchanges: 4, durability, ..CaptureSettings::default() };
        let (recorder, mut queue) = Recorder::with_one_queue(settings, std::env::temp_dir());
        for round in 0..2 {
            let mut batch = Vec::new();
            queue.drain_into(&mut batch, 10);
            assert_eq!(batch.len(), 3 * round, "{durability:?}");
            for delivered in 1..=3 {
                recorder.start_now(exchange_start()).fail(&error);
                let is_woken = queue.early().now_or_never().is_some();
                assert_eq!(is_woken, delivered >= waking, "{durability:?}, {delivered} of round {round}");
            }
        }
    }
}

#[tokio::test]
async fn a_plain_body_completes_with_its_last_declared_byte() {
    let (recorder, mut queue) = recorder(100);
    let mut body = tee(Full::new(Bytes::from_static(b"hello")), &recorder, |never| match *never {});
    body.frame().await.unwrap().unwrap();
    // The reader does not poll again.
    let exchange = queue.try_recv().unwrap().exchange;
    assert!(matches!(exchange.outcome, Outcome::Complete) && exchange.response_body.complete);
    assert_eq!(recorded(&exchange.response_body), b"hello");
    drop(body);
    assert!(queue.try_recv().is_err(), "delivered once");
}

#[tokio::test]
async fn trailers_end_a_body_and_pass() {
    let (recorder, mut queue) = recorder(100);
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    let body = tee(frames(vec![data("x"), Ok(Frame::trailers(trailers.clone()))]), &recorder, error_of);
    assert_eq!(body.collect().await.unwrap().trailers(), Some(&trailers));
    assert_eq!(queue.recv().await.unwrap().exchange.response_body.trailers, Some(trailers));
}

#[tokio::test]
async fn a_body_dropped_early_is_an_abort_by_the_agent() {
    let (recorder, mut queue) = recorder(100);
    let mut body = tee(frames(vec![data("a"), data("b")]), &recorder, error_of);
    body.frame().await.unwrap().unwrap();
    drop(body);
    let exchange = queue.recv().await.unwrap().exchange;
    assert!(matches!(exchange.outcome, Outcome::Aborted { by: Side::Downstream }));
    assert_eq!(exchange.response_body.size_bytes, 1);
}

#[tokio::test]
async fn an_error_fails_the_exchange_and_passes() {
    let (recorder, mut queue) = recorder(100);
    let body = tee(frames(vec![data("a"), Err(std::io::Error::other("cut"))]), &recorder, error_of);
    assert!(body.collect().await.is_err());
    assert!(matches!(queue.recv().await.unwrap().exchange.outcome, Outcome::Failed { .. }));
}

#[tokio::test]
async fn over_the_cap_the_body_passes_whole_and_is_marked() {
    let (recorder, mut queue) = recorder(4);
    let body = tee(frames(vec![data("abc"), data("def"), data("ghi")]), &recorder, error_of);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "abcdefghi");
    let body = queue.recv().await.unwrap().exchange.response_body;
    assert_eq!((recorded(&body), body.size_bytes), (b"abcd".to_vec(), 9));
    assert_eq!(body.truncated, Some(Truncation::BodyLimit));
}

#[tokio::test]
async fn a_call_is_whole_though_its_recorded_body_is_cut_and_counted() {
    let (recorder, mut queue) = recorder(100_000);
    let mut start = exchange_start();
    (start.request.method, start.request.target) = (Method::POST, "/v1/chat/completions".into());
    let recording = recorder.start_now(start);
    let request = Full::new(Bytes::from_static(b"{}"));
    let request = TeeBody::new(request, recording.clone(), Direction::Request, |never| match *never {}, |_| false);
    request.collect().await.unwrap();
    recording.response(ResponseHead { status: StatusCode::OK, version: Version::HTTP_11, headers: HeaderMap::new() });
    let part: &'static str = "x".repeat(60_000).leak();
    let response = frames(vec![data("{\"id\":\""), data(part), data(part), data("\"}")]);
    TeeBody::new(response, recording, Direction::Response, error_of, |_| false).collect().await.unwrap();
    let captured = queue.recv().await.unwrap();
    let body = &captured.exchange.response_body;
    let raw_end = RawEnd { at: 100_000, why: Truncation::BodyLimit };
    assert_eq!((body.size_bytes, body.truncated, body.raw_end), (120_009, None, Some(raw_end)));
    assert_eq!((recorded(body).len(), captured.begun.is_some()), (100_000, true));
    assert_eq!(recorder.counters().truncated.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_message_without_memory_for_its_payload_is_counted() {
    let settings = CaptureSettings { include_bodies: true, memory_budget_bytes: 4, ..CaptureSettings::default() };
    let (recorder, mut queue) = Recorder::with_one_queue(settings, std::env::temp_dir());
    let recording = recorder.start_now(exchange_start());
    for (opcode, payload) in
        [(MessageOpcode::Text, b"abc"), (MessageOpcode::Text, b"def"), (MessageOpcode::Close, b"\x03\xe8x")]
    {
        recording.message(Message {
            direction: Direction::Request,
            at: Duration::ZERO,
            opcode,
            size_bytes: 3,
            payload: payload.to_vec(),
            compressed: false,
            complete: true,
        });
    }
    drop(recording);
    let messages = queue.recv().await.unwrap().exchange.messages.recorded;
    let payloads: Vec<&[u8]> = messages.iter().map(|message| message.payload.as_slice()).collect();
    assert_eq!(payloads, [b"abc" as &[u8], b"", b"\x03\xe8"]);
    assert_eq!(recorder.counters().truncated.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[tokio::test]
async fn beyond_the_budget_a_body_is_spilled_and_beyond_the_disk_it_is_cut() {
    let settings = CaptureSettings { include_bodies: true, memory_budget_bytes: 2, ..CaptureSettings::default() };
    let folder = tempfile::tempdir().unwrap();
    let (recorder, mut queue) = Recorder::with_one_queue(settings.clone(), folder.path().to_owned());
    tee(frames(vec![data("ab"), data("c"), data("d")]), &recorder, error_of).collect().await.unwrap();
    let captured = queue.recv().await.unwrap();
    let body = &captured.exchange.response_body;
    assert_eq!((recorded(body), body.truncated), (b"abcd".to_vec(), None));
    drop(captured);
    assert_eq!((recorder.memory().budget().left_bytes(), recorder.memory().spill().spilled_bytes()), (2, 0));
    let (recorder, mut queue) = Recorder::with_one_queue(settings, folder.path().join("missing"));
    tee(frames(vec![data("ab"), data("c"), data("d")]), &recorder, error_of).collect().await.unwrap();
    let body = queue.recv().await.unwrap().exchange.response_body;
    assert_eq!((recorded(&body), body.size_bytes, body.truncated), (b"ab".to_vec(), 4, Some(Truncation::Spill)));
    assert_eq!((recorder.memory().budget().left_bytes(), recorder.memory().spill().errors()), (0, 1));
}

#[tokio::test]
async fn a_full_queue_lets_traffic_pass_and_counts() {
    let (recorder, _queue) = Recorder::with_one_queue(
        CaptureSettings { queue_exchanges: 1, ..CaptureSettings::default() },
        std::env::temp_dir(),
    );
    let first = recorder.start_now(exchange_start());
    let body = tee(frames(vec![data("abc")]), &recorder, error_of);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
    assert_eq!(recorder.counters().dropped.load(std::sync::atomic::Ordering::Relaxed), 1);
    drop(first);
}

/// Only if the settings let it, and not for ever.
#[tokio::test(start_paused = true)]
async fn a_request_waits_for_room_in_the_queue() {
    let required = || ExchangeStart { is_required: true, ..exchange_start() };
    for (when_full, start, waits) in [
        (WhenFull::Auto, required(), true),
        (WhenFull::Auto, exchange_start(), false),
        (WhenFull::Wait, exchange_start(), true),
        (WhenFull::Pass, required(), false),
    ] {
        let settings = CaptureSettings { queue_exchanges: 1, when_full, ..CaptureSettings::default() };
        let (recorder, mut queue) = Recorder::with_one_queue(settings, std::env::temp_dir());
        let count = |counter: &AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        let first = recorder.start_now(exchange_start());
        assert!(recorder.is_full());
        let second = recorder.start(start);
        tokio::pin!(second);
        let in_time = tokio::time::timeout(Duration::from_secs(59), &mut second).await;
        assert_eq!(in_time.is_err(), waits);
        let counters = recorder.counters();
        assert_eq!((count(&counters.waiting), count(&counters.dropped)), (u64::from(waits), u64::from(!waits)));
        if waits {
            drop(first);
            queue.recv().await.unwrap();
            assert!(second.await.is_on());
            // Nothing makes room this time: it passes unrecorded after a minute.
            let late = ExchangeStart { is_required: true, ..exchange_start() };
            let _held = recorder.start_now(exchange_start());
            assert!(!recorder.start(late).await.is_on());
            assert_eq!((count(&counters.waiting), count(&counters.waited)), (0, 2));
        }
    }
}

async fn until_pending<B: Body<Data = Bytes> + Unpin>(body: &mut TeeBody<B>) -> usize {
    let mut seen = 0;
    while tokio::time::timeout(Duration::from_millis(1), body.frame()).await.is_ok() {
        seen += 1;
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn the_last_frame_of_a_durable_response_waits_for_the_commit() {
    let settings = CaptureSettings { durability: Durability::Commit, ..CaptureSettings::default() };
    let (recorder, mut queue) = Recorder::with_one_queue(settings, std::env::temp_dir());
    let parts = vec![data("data: 1\n\n"), data("data: [DONE]\n\n")];
    let recording = recorder.start_now(exchange_start());
    let mut body =
        TeeBody::new(frames(parts), recording, Direction::Response, error_of, |data| data.ends_with(b"[DONE]\n\n"));
    assert_eq!(until_pending(&mut body).await, 1, "all but the terminal frame pass at once");
    let captured = queue.try_recv().unwrap();
    captured.committed.unwrap().send(CommitStatus::Committed).unwrap();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "data: [DONE]\n\n");
    assert_eq!(recorder.counters().commit_missed.load(std::sync::atomic::Ordering::Relaxed), 0);
}

/// The frames that pass, and the error behind them.
async fn passed<B: Body<Data = Bytes> + Unpin>(mut body: TeeBody<B>) -> (Vec<u8>, Option<B::Error>) {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend(frame.into_data().unwrap_or_default()),
            Err(error) => return (bytes, Some(error)),
        }
    }
    (bytes, None)
}

fn durable(parts: Frames, recorder: &Recorder) -> TeeBody<impl Body<Data = Bytes, Error = std::io::Error> + Unpin> {
    let recording = recorder.start_now(exchange_start());
    TeeBody::new(frames(parts), recording, Direction::Response, error_of, |data| data.starts_with(b"data: [DONE]"))
}

#[tokio::test(start_paused = true)]
async fn a_last_frame_before_an_error_is_delivered_before_the_error() {
    let settings = CaptureSettings { durability: Durability::Commit, ..CaptureSettings::default() };
    let (recorder, mut queue) = Recorder::with_one_queue(settings, std::env::temp_dir());
    let parts = vec![data("data: 1\n\n"), data("data: [DONE]\n"), data("\n"), Err(std::io::Error::other("reset"))];
    let (bytes, error) = passed(durable(parts, &recorder)).await;
    assert_eq!(bytes, b"data: 1\n\ndata: [DONE]\n\n");
    assert_eq!(error.unwrap().to_string(), "reset");
    assert!(matches!(queue.recv().await.unwrap().exchange.outcome, Outcome::Failed { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_goes_on_after_its_last_frame_is_not_held() {
    let settings = CaptureSettings { durability: Durability::Commit, ..CaptureSettings::default() };
    let (recorder, _queue) = Recorder::with_one_queue(settings, std::env::temp_dir());
    let more: &'static str = "x".repeat(20_000).leak();
    let mut sent = vec![data("data: [DONE]\n\n"), data(more)].into_iter();
    let body = StreamBody::new(futures_util::stream::poll_fn(move |_| match sent.next() {
        Some(frame) => Poll::Ready(Some(frame)),
        None => Poll::Pending,
    }));
    let recording = recorder.start_now(exchange_start());
    let mut body =
        TeeBody::new(body, recording, Direction::Response, error_of, |data| data.starts_with(b"data: [DONE]"));
    assert_eq!(until_pending(&mut body).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_never_comes_is_waited_for_and_counted() {
    let settings = CaptureSettings { durability: Durability::Commit, ..CaptureSettings::default() };
    let (recorder, _queue) = Recorder::with_one_queue(settings, std::env::temp_dir());
    let body = tee(frames(vec![data("x")]), &recorder, error_of);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "x");
    assert_eq!(recorder.counters().commit_missed.load(std::sync::atomic::Ordering::Relaxed), 1);
}

proptest! {
    #[test]
    fn any_chunking_passes_unchanged_and_is_recorded_whole(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 0..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (recorder, mut queue) = recorder(1 << 20);
            let parts = chunks.iter().map(|chunk| Ok(Frame::data(Bytes::from(chunk.clone())))).collect();
            let passed = tee(frames(parts), &recorder, error_of).collect().await.unwrap().to_bytes();
            let recorded = queue.recv().await.unwrap().exchange.response_body;
            assert_eq!(passed, chunks.concat());
            assert_eq!(self::recorded(&recorded), chunks.concat());
        });
    }
}
