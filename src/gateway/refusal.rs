//! Errors of the gateway become responses here, in the shape that the client's API has for them.

use super::pause::Pause;
use super::routing::ApiSurface;
use crate::error::{ErrorKind, ProxyError};
use crate::llm::api::{ApiCall, ApiErrorKind, ErrorShape};
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
    Api(ErrorShape),
}

impl Shape {
    /// The shape for a route; for one that can't be read, that of OpenAI.
    pub(super) fn of(contract: ApiSurface, call: Option<&ApiCall>) -> Self {
        match contract {
            ApiSurface::V1 => Self::Detail,
            _ => Self::Api(call.map_or(ErrorShape::OpenAi, |call| call.api.error_shape)),
        }
    }

    /// An error as an event of a stream.
    pub(super) fn event(self, status: StatusCode, message: &str) -> Bytes {
        let shape = match self {
            Self::Api(shape) => shape,
            Self::Detail => ErrorShape::OpenAi,
        };
        shape.event(ApiErrorKind::of_status(status.as_u16()), message).into()
    }

    /// An error as a whole answer.
    pub(super) fn response(self, error: &ProxyError) -> Response<Body> {
        let status = error.status();
        let text = match self {
            Self::Detail => json!({ "detail": detail(error) }).to_string().into_bytes(),
            Self::Api(shape) => shape.body(status.as_u16(), ApiErrorKind::of_status(status.as_u16()), &message(error)),
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
            Self::Api(_) => self.response(&error),
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
