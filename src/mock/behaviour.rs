//! How the mock behaves: delays and failures, from its options, a request's `x-mock-*` headers or its query.

use super::tools::MockState;
use axum::Json;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::time::Duration;

/// The behaviour of requests that don't say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct MockOptions {
    /// Before every answer of the LLM routes.
    pub delay: Duration,
    /// Before every chunk of a streamed answer but the first.
    pub chunk_delay: Duration,
    /// Content chunks of a streamed answer, and words of any answer.
    pub chunks: usize,
    /// Write the fields of token ids also when nobody asked for them, as vLLM does.
    pub vllm: bool,
}

impl Default for MockOptions {
    fn default() -> Self {
        Self { delay: Duration::ZERO, chunk_delay: Duration::ZERO, chunks: 10, vllm: false }
    }
}

/// The behaviour of one request.
#[derive(Clone, Debug)]
pub(super) struct Behaviour {
    pub(super) options: MockOptions,
    /// `x-mock-status`: answer with this error instead.
    pub(super) status: Option<u16>,
    /// `x-mock-fail`: how to break.
    pub(super) fail: Option<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection breaks at the start of the body.
    Reset,
    /// The connection breaks half-way through the chunks.
    Truncate,
    /// No answer, ever.
    Stall,
    /// An error event half-way through the chunks.
    ErrorInStream,
}

impl Behaviour {
    pub(super) fn of(options: MockOptions, headers: &HeaderMap, uri: &Uri) -> Self {
        let value = |name: &str| {
            let header = headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            header.or_else(|| query(uri, name))
        };
        let number = |name: &str| value(name).and_then(|digits| digits.parse::<u64>().ok());
        let millis = |name: &str, default| number(name).map_or(default, Duration::from_millis);
        Self {
            options: MockOptions {
                delay: millis("x-mock-delay-ms", options.delay),
                chunk_delay: millis("x-mock-chunk-delay-ms", options.chunk_delay),
                chunks: number("x-mock-chunks")
                    .and_then(|number| usize::try_from(number).ok())
                    .unwrap_or(options.chunks),
                vllm: options.vllm,
            },
            status: number("x-mock-status").and_then(|number| u16::try_from(number).ok()),
            fail: value("x-mock-fail").and_then(|word| match word.as_str() {
                "reset" => Some(Failure::Reset),
                "truncate" => Some(Failure::Truncate),
                "stall" => Some(Failure::Stall),
                "error-in-stream" => Some(Failure::ErrorInStream),
                _ => None,
            }),
        }
    }
}

/// A request with a JSON body to an LLM route.
pub(super) struct Call {
    pub(super) behaviour: Behaviour,
    pub(super) body: Value,
}

impl FromRequest<MockState> for Call {
    type Rejection = Response;

    async fn from_request(request: Request, state: &MockState) -> Result<Self, Response> {
        let behaviour = Behaviour::of(state.options, request.headers(), request.uri());
        let body = Json::<Value>::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        Ok(Self { behaviour, body: body.0 })
    }
}

/// A query value as written.
pub(super) fn query(uri: &Uri, name: &str) -> Option<String> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}
