//! How the mock responds to one request: its delays and failures, from the options, `x-mock-*` headers or the query.

use super::options::MockOptions;
use super::state::MockState;
use axum::Json;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value as JsonValue;
use std::time::Duration;

/// Delays and failures of one response.
#[derive(Clone, Debug)]
pub(super) struct Behavior {
    pub(super) options: MockOptions,
    /// `x-mock-status`: respond with this error instead.
    pub(super) status: Option<u16>,
    /// `x-mock-fail`: how to fail.
    pub(super) fail: Option<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection breaks at the start of the body.
    Reset,
    /// The connection breaks halfway through the chunks.
    Truncate,
    /// There is never a response.
    Stall,
    /// An error event halfway through the chunks.
    ErrorInStream,
}

impl Behavior {
    pub(super) fn of_request(options: MockOptions, headers: &HeaderMap, uri: &Uri) -> Self {
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
pub(super) struct LlmRequest {
    pub(super) behavior: Behavior,
    pub(super) body: JsonValue,
}

impl FromRequest<MockState> for LlmRequest {
    type Rejection = Response;

    async fn from_request(request: Request, state: &MockState) -> Result<Self, Response> {
        let behavior = Behavior::of_request(state.options, request.headers(), request.uri());
        let body = Json::<JsonValue>::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        Ok(Self { behavior, body: body.0 })
    }
}

/// The value of a query parameter, without percent-decoding.
pub(super) fn query(uri: &Uri, name: &str) -> Option<String> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}
