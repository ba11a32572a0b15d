//! Errors of the gateway become responses here, in the shape that the client's API has for them.

use super::pause::Pause;
use super::routing::{Api, ApiSurface};
use crate::error::{ErrorKind, ProxyError};
use crate::llm::translate::{Client, error_body, error_event};
use crate::upstream::{Body, body};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

/// Which shape an error has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Agent Lightning 1.0: `{"detail": …}`.
    Detail,
    /// That of an API.
    Dialect(Client),
}

impl Shape {
    /// The shape for a route; for one that can't be read, that of OpenAI.
    pub(super) fn of(contract: ApiSurface, api: Option<&Api>) -> Self {
        match (contract, api) {
            (ApiSurface::V1, _) => Self::Detail,
            (_, Some(Api::Messages | Api::CountTokens)) => Self::Dialect(Client::Messages),
            (_, Some(Api::Gemini { .. })) => Self::Dialect(Client::Gemini),
            _ => Self::Dialect(Client::Responses),
        }
    }

    /// An error as an event of a stream.
    pub(super) fn event(self, status: StatusCode, message: &str) -> Bytes {
        match self {
            Self::Dialect(Client::Messages) => error_event(Client::Messages, kind_of(status), message).into(),
            Self::Dialect(Client::Gemini) => error_event(Client::Gemini, kind_of(status), message).into(),
            // Chat completions have no event of their own for it: an object with `error`, and the end of the stream.
            _ => {
                let error = error_body(Client::Responses, status.as_u16(), kind_of(status), message);
                [b"data: ", error.as_slice(), b"\n\n"].concat().into()
            }
        }
    }

    /// An error as a whole answer.
    pub(super) fn response(self, error: &ProxyError) -> Response<Body> {
        let status = error.status();
        let text = match self {
            Self::Detail => json!({ "detail": detail(error) }).to_string().into_bytes(),
            Self::Dialect(client) => error_body(client, status.as_u16(), kind_of(status), &message(error)),
        };
        let mut response = json_response(status, text);
        let headers = response.headers_mut();
        if !is_worth_a_retry(error.kind) {
            // The SDKs of OpenAI and Anthropic would try 409 and 429 again.
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if let Ok(status) = HeaderValue::from_str(&format!("tracewire; error={}", error.kind.as_str())) {
            headers.insert("proxy-status", status);
        }
        response
    }

    /// The answer of a paused gateway: 429 as Agent Lightning 1.0 has it, in the API's own shape elsewhere.
    pub(super) fn paused(self, pause: &Pause) -> Response<Body> {
        let error = pause_error(pause);
        let mut response = match self {
            Self::Detail => {
                let text = json!({ "error": "gateway paused", "reason": pause.reason }).to_string();
                json_response(error.status(), text.into_bytes())
            }
            Self::Dialect(_) => self.response(&error),
        };
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(pause.retry_after_seconds));
        headers.insert("x-agl-paused", HeaderValue::from_static("true"));
        response
    }
}

/// What a paused gateway is recorded as.
pub(super) fn pause_error(pause: &Pause) -> ProxyError {
    let why = pause.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    ProxyError::new(ErrorKind::GatewayPaused, "", format!("the gateway is paused{why}"))
}

/// What an error says to people.
pub(super) fn message(error: &ProxyError) -> String {
    format!("tracewire: {error}; {}", error.fix())
}

fn json_response(status: StatusCode, text: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Agent Lightning's words where it has some.
fn detail(error: &ProxyError) -> String {
    match error.status() {
        StatusCode::GATEWAY_TIMEOUT => "Upstream model server timed out".to_owned(),
        StatusCode::BAD_GATEWAY => "Upstream model server request failed".to_owned(),
        _ => error.cause.clone(),
    }
}

fn is_worth_a_retry(kind: ErrorKind) -> bool {
    use ErrorKind::{BackendAnswerUnread, BudgetSpent, PolicyStale, RolloutEnded};
    !matches!(kind, RolloutEnded | BudgetSpent | PolicyStale | BackendAnswerUnread)
}

/// The dialect-neutral word for a status.
pub(super) fn kind_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "authentication",
        404 => "not_found",
        429 => "rate_limit",
        408 | 504 => "timeout",
        503 | 529 => "overloaded",
        400..=499 => "invalid_request",
        _ => "api",
    }
}
