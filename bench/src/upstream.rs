//! The endpoint of the benchmark: answers that are ready before they are asked for, over TLS, HTTP/1.1 and HTTP/2;
//! and in the shape of vLLM's, over HTTP/1.1 without TLS.

use crate::long;
use crate::tls::Ca;
use anyhow::Result;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the endpoint answers.
pub type Answer = BoxBody<Bytes, Infallible>;

/// Serves for ever; prints its address first.
pub async fn serve(ca: &Ca) -> Result<()> {
    let acceptor = TlsAcceptor::from(ca.server(&[b"h2", b"http/1.1"])?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    crate::say_ready(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http2().max_concurrent_streams(1000).initial_stream_window_size(4 << 20);
            let serving =
                builder.serve_connection(TokioIo::new(stream), service_fn(|request| answer(request, Shape::Bare)));
            drop(serving.await);
        });
    }
}

/// As `serve`, without TLS, as vLLM answers when it is asked for ids and log-probabilities.
pub async fn serve_plain() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    crate::say_ready(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, Shape::Vllm));
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

/// How model calls are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// With what is measured.
    Bare,
    /// With all that clients of vLLM look at.
    Vllm,
}

/// How many model calls there have been.
static CALLS: AtomicU64 = AtomicU64::new(0);

async fn answer(request: Request<Incoming>, shape: Shape) -> Result<Response<Answer>, hyper::Error> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let number = |name: &str| wished(&query, name);
    let builder = Response::builder();
    let answer = match request.uri().path() {
        CHAT => {
            CALLS.fetch_add(1, Ordering::Relaxed);
            let head = head_of(request.into_body()).await?;
            let wish = wish_of(&head);
            if let Some(order) = long::Order::of_wish(&wish) {
                return Ok(long::respond(order, &head).await.unwrap_or_default_answer());
            }
            let number = |name: &str| wished(&wish, name);
            let (chunks, interval) = (number("chunks"), Duration::from_millis(number("interval_ms")));
            let (prompt_ids, delay_ms) = (number("prompt_ids"), number("delay_ms"));
            if delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            }
            match (chunks, prompt_ids) {
                (0, 0) => builder.header("content-type", "application/json").body(Full::new(next_json(shape)).boxed()),
                (0, count) => {
                    builder.header("content-type", "application/json").body(Full::new(long_json(count)).boxed())
                }
                _ => builder.header("content-type", "text/event-stream").body(events(chunks, interval, shape)),
            }
        }
        "/v1/models" => {
            let models = Bytes::from_static(MODELS.as_bytes());
            builder.header("content-type", "application/json").body(Full::new(models).boxed())
        }
        CALLS_SO_FAR => builder.body(Full::new(Bytes::from(CALLS.load(Ordering::Relaxed).to_string())).boxed()),
        "/upload" => {
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                frame?;
            }
            builder.body(Full::new(Bytes::from_static(b"ok")).boxed())
        }
        _ => {
            let (size, chunk) = (number("size"), zeros());
            builder.header("content-length", size).body(download(size, chunk))
        }
    };
    Ok(answer.unwrap_or_default_answer())
}

/// Reads a body and keeps its beginning.
async fn head_of(mut body: Incoming) -> Result<Vec<u8>, hyper::Error> {
    let mut head = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        head.extend_from_slice(&data[..data.len().min(HEAD_BYTES - head.len())]);
    }
    Ok(head)
}

/// What a call's `user` asks for; gateways pass that on, and no query.
fn wish_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let wish = text.split("\"user\":\"").nth(1).and_then(|rest| rest.split('"').next());
    wish.unwrap_or_default().to_owned()
}

/// A number of a wish, or 0.
pub fn wished(wish: &str, name: &str) -> u64 {
    let pairs = wish.split('&');
    pairs.filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok()).next().unwrap_or(0)
}

/// A wish and what it stands behind.
const HEAD_BYTES: usize = 4096;

/// Where models are called.
pub const CHAT: &str = "/v1/chat/completions";

/// Says how many model calls there have been.
pub const CALLS_SO_FAR: &str = "/calls";
const MODELS: &str = r#"{"object":"list","data":[{"id":"bench","object":"model","owned_by":"vllm"}]}"#;

trait OrDefault {
    fn unwrap_or_default_answer(self) -> Response<Answer>;
}

impl OrDefault for Result<Response<Answer>, hyper::http::Error> {
    fn unwrap_or_default_answer(self) -> Response<Answer> {
        self.unwrap_or_else(|_| Response::new(Full::new(Bytes::new()).boxed()))
    }
}

/// A chat completion with token ids and logprobs, 9 kB, of an id and first token of its own: no two are the same.
fn next_json(shape: Shape) -> Bytes {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut text = BytesMut::from(&json(shape)[..]);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    text[ID_AT..ID_AT + 8].copy_from_slice(format!("{:08}", number % 100_000_000).as_bytes());
    text.freeze()
}

fn json(shape: Shape) -> Bytes {
    static BODIES: [OnceLock<Bytes>; 2] = [OnceLock::new(), OnceLock::new()];
    // What LiteLLM can't do without takes the place of some tokens.
    let (body, tokens, top, total) = match shape {
        Shape::Bare => (&BODIES[0], 120_u32, "", ""),
        Shape::Vllm => (&BODIES[1], 100, ",\"top_logprobs\":[]", ",\"total_tokens\":200"),
    };
    body.get_or_init(|| {
        let (mut ids, mut logprobs, mut text) = (String::new(), String::new(), String::new());
        for token in 0..tokens {
            let comma = if token > 0 { "," } else { "" };
            let (id, logprob) = (token * 7919 % 151_000, f64::from(token * 31 % 97) / -37.0);
            let _ = write!(ids, "{comma}{id}");
            let _ = write!(logprobs, "{comma}{{\"token\":\"w{token}\",\"logprob\":{logprob:.6},\"bytes\":null{top}}}");
            let _ = write!(text, "word{token} ");
        }
        Bytes::from(format!(
            "{{\"id\":\"chatcmpl-00000000\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"bench\",\"choices\":[{{\
             \"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},\"finish_reason\":\"stop\",\
             \"token_ids\":[{ids}],\"logprobs\":{{\"content\":[{logprobs}]}}}}],\"prompt_token_ids\":[{ids}],\
             \"usage\":{{\"prompt_tokens\":{tokens},\"completion_tokens\":{tokens}{total}}}}}"
        ))
    })
    .clone()
}

/// A chat completion with this many prompt ids, and 4,096 response ids and logprobs; no two are the same.
fn long_json(prompt_ids: u64) -> Bytes {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let ids =
        |count: u64| (0..count).map(|id| ((id + number) * 7919 % 151_000).to_string()).collect::<Vec<_>>().join(",");
    let logprob =
        |token: u64| format!("{{\"token\":\"w{token}\",\"logprob\":-0.{:06},\"bytes\":null}}", token * 31 + number);
    let logprobs = (0..LONG_ANSWER_TOKENS).map(logprob).collect::<Vec<_>>().join(",");
    Bytes::from(format!(
        "{{\"id\":\"chatcmpl-{number}\",\"model\":\"bench\",\"prompt_token_ids\":[{}],\"choices\":[{{\"index\":0,\
         \"message\":{{\"role\":\"assistant\",\"content\":\"x\"}},\"finish_reason\":\"stop\",\"token_ids\":[{}],\
         \"logprobs\":{{\"content\":[{logprobs}]}}}}],\
         \"usage\":{{\"prompt_tokens\":{prompt_ids},\"completion_tokens\":{LONG_ANSWER_TOKENS}}}}}",
        ids(prompt_ids),
        ids(LONG_ANSWER_TOKENS)
    ))
}

const LONG_ANSWER_TOKENS: u64 = 4096;

/// `chunks` events, each with the time at which it was made, in microseconds.
fn events(chunks: u64, interval: Duration, shape: Shape) -> Answer {
    let made = stream::unfold(0, move |number| async move {
        if number == chunks && shape == Shape::Vllm {
            return Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(LAST_EVENTS.as_bytes()))), number + 1));
        }
        if number >= chunks {
            return None;
        }
        if !interval.is_zero() {
            tokio::time::sleep(interval).await;
        } else {
            tokio::task::yield_now().await;
        }
        Some((Ok(Frame::data(Bytes::from(event(number, shape)))), number + 1))
    });
    BodyExt::boxed(StreamBody::new(Box::pin(made)))
}

fn event(number: u64, shape: Shape) -> String {
    let at = micros();
    if shape == Shape::Bare {
        return format!(
            "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"at\":{at},\"choices\":[{{\"index\":0,\
             \"delta\":{{\"content\":\"word{number} \"}},\"token_ids\":[{number}],\"finish_reason\":null}}]}}\n\n"
        );
    }
    let prompt = if number == 0 { ",\"prompt_token_ids\":[1,2,3,4,5,6,7,8]" } else { "" };
    let role = if number == 0 { "\"role\":\"assistant\"," } else { "" };
    format!(
        "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"bench\",\"at\":{at},\
         \"choices\":[{{\"index\":0,\"delta\":{{{role}\"content\":\"word{number} \"}},\"logprobs\":{{\"content\":[{{\"token\":\
         \"word{number} \",\"logprob\":-0.5,\"bytes\":null,\"top_logprobs\":[]}}]}},\"finish_reason\":null,\"token_ids\":\
         [{number}]}}]{prompt}}}\n\n"
    )
}

/// What vLLM ends a stream with.
const LAST_EVENTS: &str = concat!(
    "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"bench\",",
    "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n",
    "data: [DONE]\n\n"
);

/// Microseconds since 1970.
pub fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(0)
}

/// Where the number stands.
const ID_AT: usize = 16;

fn zeros() -> Bytes {
    static CHUNK: OnceLock<Bytes> = OnceLock::new();
    CHUNK.get_or_init(|| BytesMut::zeroed(64 * 1024).freeze()).clone()
}

fn download(size: u64, chunk: Bytes) -> Answer {
    let chunk = Arc::new(chunk);
    let made = stream::unfold(size, move |left| {
        let chunk = Arc::clone(&chunk);
        async move {
            let length = left.min(chunk.len() as u64);
            let frame = chunk.slice(..usize::try_from(length).ok()?);
            (length > 0).then(|| (Ok::<_, Infallible>(Frame::data(frame)), left - length))
        }
    });
    BodyExt::boxed(StreamBody::new(Box::pin(made)))
}
