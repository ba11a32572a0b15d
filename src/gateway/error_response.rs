//! Responses for errors of the gateway itself, in the format of the API that the agent called.

use super::pause::Pause;
use super::routing::ApiSurface;
use crate::error::{ErrorKind, ProxyError};
use crate::llm::api::{ApiCall, ApiErrorKind, ErrorShape};
use crate::llm::provider::error_shape;
use crate::upstream::{Body, body};
use crate::wire::redact::Redactor;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

/// The format of error responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorFormat {
    /// `{"detail": …}`, as in Agent Lightning 1.0.
    Detail,
    /// The format of an LLM API.
    Api(ErrorShape),
}

impl ErrorFormat {
    /// The format for a route; that of OpenAI if the path is that of no API.
    pub(super) fn of(surface: ApiSurface, call: Option<&ApiCall>) -> Self {
        match surface {
            ApiSurface::V1 => Self::Detail,
            _ => Self::Api(call.map_or(ErrorShape::OpenAi, |call| call.api.error_shape)),
        }
    }

    /// The format for a path of a host with an unknown API.
    pub(super) fn of_unknown(surface: ApiSurface, host: &str, path: &str) -> Self {
        match surface {
            ApiSurface::V1 => Self::Detail,
            _ => Self::Api(error_shape(host, path)),
        }
    }

    /// The response to a call that its caller may not make.
    pub(super) fn refusal(self, status: StatusCode, cause: &str) -> Response<Body> {
        let cause = without_secrets(cause);
        let text = match self {
            Self::Detail => json!({ "detail": cause }).to_string().into_bytes(),
            Self::Api(shape) => {
                shape.body(status.as_u16(), ApiErrorKind::of_status(status.as_u16()), &format!("tracewire: {cause}"))
            }
        };
        let mut response = json_response(status, text);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        response
    }

    /// An error as an event, for a stream that has begun.
    pub(super) fn event(self, status: StatusCode, message: &str) -> Bytes {
        self.stream_shape().event(ApiErrorKind::of_status(status.as_u16()), message).into()
    }

    /// The bytes that keep a silent stream from timing out, between two events.
    pub(super) fn keepalive(self) -> Bytes {
        Bytes::from_static(self.stream_shape().keepalive())
    }

    fn stream_shape(self) -> ErrorShape {
        match self {
            Self::Api(shape) => shape,
            Self::Detail => ErrorShape::OpenAi,
        }
    }

    /// An error as a response.
    pub(super) fn response(self, error: &ProxyError) -> Response<Body> {
        let status = error.status();
        let text = match self {
            Self::Detail => json!({ "detail": detail(error) }).to_string().into_bytes(),
            Self::Api(shape) => shape.body(status.as_u16(), api_kind(error), &message(error)),
        };
        let mut response = json_response(status, text);
        let headers = response.headers_mut();
        if !is_retryable(error.kind) {
            // Without it, the SDKs of OpenAI and Anthropic retry 409 and 429.
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            // RFC 9110 §15.5.22: what is spoken here.
            headers.insert(header::UPGRADE, HeaderValue::from_static("HTTP/1.1"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        if let Ok(status) = HeaderValue::from_str(&format!("tracewire; error={}", error.kind.as_str())) {
            headers.insert("proxy-status", status);
        }
        response
    }

    /// The response of a paused gateway: 429, with the headers of Agent Lightning 1.0.
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

/// The error that is recorded for a call that a paused gateway refuses.
pub(super) fn pause_error(pause: &Pause) -> ProxyError {
    let reason = pause.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    ProxyError::new(ErrorKind::GatewayPaused, "", format!("the gateway is paused{reason}"))
}

/// The message of an error: what happened, why, and what to do.
pub(super) fn message(error: &ProxyError) -> String {
    without_secrets(&format!("tracewire: {error}; {}", error.fix()))
}

fn json_response(status: StatusCode, text: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The text of Agent Lightning 1.0, where it has one for this error.
fn detail(error: &ProxyError) -> String {
    match error.status() {
        StatusCode::GATEWAY_TIMEOUT => "Upstream model server timed out".to_owned(),
        StatusCode::BAD_GATEWAY => "Upstream model server request failed".to_owned(),
        _ => without_secrets(&error.cause),
    }
}

/// A message that may repeat a part of the request.
fn without_secrets(message: &str) -> String {
    Redactor::of_messages().text(message).into_owned()
}

/// The kind that clients of an API know.
fn api_kind(error: &ProxyError) -> ApiErrorKind {
    match error.kind {
        ErrorKind::PreviousResponseNotFound => ApiErrorKind::PreviousResponseNotFound,
        _ => ApiErrorKind::of_status(error.status().as_u16()),
    }
}

fn is_retryable(kind: ErrorKind) -> bool {
    use ErrorKind::{BackendAnswerUnread, BudgetSpent, PolicyStale, RolloutEnded};
    !matches!(kind, RolloutEnded | BudgetSpent | PolicyStale | BackendAnswerUnread)
}
