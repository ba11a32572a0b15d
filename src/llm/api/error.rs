//! Errors in the shape that each API has for them.
//!
//! It does not decide what is an error; that is the caller's.

use crate::llm::json_object::{object, text_of, write_data, write_event};
use crate::wire::json::{Json, parse};

/// The shape of an API's errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorShape {
    /// `{"error": {"message", "type", "param", "code"}}`
    OpenAi,
    /// `{"type": "error", "error": {"type", "message"}}`
    Anthropic,
    /// `{"error": {"code", "message", "status"}}`
    Google,
}

/// What went wrong. Every API has a word of its own for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiErrorKind {
    /// The request is wrong.
    InvalidRequest,
    /// The response that the request continues does not exist.
    PreviousResponseNotFound,
    /// The credential is missing, wrong, or not enough.
    Authentication,
    /// The path or the model does not exist.
    NotFound,
    /// Too many requests.
    RateLimit,
    /// The server has no capacity for now.
    Overloaded,
    /// The response took too long.
    Timeout,
    /// Any other fault of the server.
    Api,
}

impl ApiErrorKind {
    /// The kind that a response's status stands for.
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Authentication,
            404 => Self::NotFound,
            429 => Self::RateLimit,
            408 | 504 => Self::Timeout,
            503 | 529 => Self::Overloaded,
            400..=499 => Self::InvalidRequest,
            _ => Self::Api,
        }
    }

    fn anthropic(self) -> &'static str {
        match self {
            Self::InvalidRequest | Self::PreviousResponseNotFound => "invalid_request_error",
            Self::Authentication => "authentication_error",
            Self::NotFound => "not_found_error",
            Self::RateLimit => "rate_limit_error",
            Self::Overloaded => "overloaded_error",
            Self::Timeout => "timeout_error",
            Self::Api => "api_error",
        }
    }

    fn openai(self) -> &'static str {
        match self {
            Self::InvalidRequest | Self::PreviousResponseNotFound | Self::NotFound => "invalid_request_error",
            Self::Authentication => "authentication_error",
            Self::RateLimit => "rate_limit_error",
            Self::Overloaded => "service_unavailable_error",
            Self::Timeout => "timeout_error",
            Self::Api => "server_error",
        }
    }

    /// OpenAI's `param` and `code`, where clients act on them.
    fn openai_detail(self) -> Option<(&'static str, &'static str)> {
        (self == Self::PreviousResponseNotFound).then_some(("previous_response_id", "previous_response_not_found"))
    }

    /// The code with which a response of OpenAI's Responses API fails.
    pub(in crate::llm) fn openai_response_code(self) -> &'static str {
        match self {
            Self::InvalidRequest | Self::PreviousResponseNotFound => "invalid_prompt",
            Self::RateLimit => "rate_limit_exceeded",
            _ => "server_error",
        }
    }

    /// Google's word, and the status that fits it.
    fn google(self) -> (u16, &'static str) {
        match self {
            Self::InvalidRequest | Self::PreviousResponseNotFound => (400, "INVALID_ARGUMENT"),
            Self::Authentication => (401, "UNAUTHENTICATED"),
            Self::NotFound => (404, "NOT_FOUND"),
            Self::RateLimit => (429, "RESOURCE_EXHAUSTED"),
            Self::Overloaded => (503, "UNAVAILABLE"),
            Self::Timeout => (504, "DEADLINE_EXCEEDED"),
            Self::Api => (500, "INTERNAL"),
        }
    }
}

impl ErrorShape {
    /// An error as the body of a response with this status.
    pub(crate) fn body(self, status: u16, kind: ApiErrorKind, message: &str) -> Vec<u8> {
        let body = match self {
            Self::OpenAi => openai_error(kind, message),
            Self::Anthropic => anthropic_error(kind, message),
            Self::Google => google_error(Some(status), kind, message),
        };
        text_of(&body).into_bytes()
    }

    /// An error as a server-sent event of a stream: its status was sent before. OpenAI's completions have no event for
    /// it: an object with `error` is what servers send.
    pub(crate) fn event(self, kind: ApiErrorKind, message: &str) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::OpenAi => write_data(&openai_error(kind, message), &mut out),
            Self::Anthropic => write_event(&anthropic_error(kind, message), &mut out),
            Self::Google => write_data(&google_error(None, kind, message), &mut out),
        }
        out
    }

    /// What a stream may have between two events to show that it is alive: Anthropic's `ping`, which its clients count as an
    /// event; a comment elsewhere, which readers of event streams ignore (WHATWG HTML §9.2.6).
    pub(crate) fn keepalive(self) -> &'static [u8] {
        match self {
            Self::Anthropic => b"event: ping\ndata: {\"type\": \"ping\"}\n\n",
            Self::OpenAi | Self::Google => b": waiting\n\n",
        }
    }
}

/// The message of an error's body, in whatever shape; of a body in no shape, its beginning.
pub(crate) fn error_message(body: &[u8]) -> String {
    let json = parse(body).unwrap_or_default();
    let error = if json.has("error") { json.get("error") } else { &json };
    match error.any(&["message", "detail"]).text().or_else(|| error.text()) {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(body).chars().take(MAX_MESSAGE_CHARS).collect(),
    }
}

const MAX_MESSAGE_CHARS: usize = 500;

fn openai_error(kind: ApiErrorKind, message: &str) -> Json<'_> {
    let (param, code) = kind.openai_detail().unzip();
    let error = object! { "message": message, "type": kind.openai(), "param": param, "code": code };
    object! {"error": error}
}

fn anthropic_error(kind: ApiErrorKind, message: &str) -> Json<'_> {
    object! {"type": "error", "error": object! {"type": kind.anthropic(), "message": message}}
}

/// Google's error; without a status, with the one that fits the kind.
pub(in crate::llm) fn google_error(status: Option<u16>, kind: ApiErrorKind, message: &str) -> Json<'_> {
    let (fitting, word) = kind.google();
    let code = i64::from(status.unwrap_or(fitting));
    object! {"error": object! {"code": code, "message": message, "status": word}}
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn messages_are_found_in_every_shape() {
        for (body, expected) in [
            (r#"{"error":{"message":"m","type":"t"}}"#, "m"),
            (r#"{"type":"error","error":{"message":"m"}}"#, "m"),
            (r#"{"error":"m"}"#, "m"),
            (r#"{"message":"m","object":"error"}"#, "m"),
            (r#"{"detail":"m"}"#, "m"),
            (r#"{"error":{"code":1}}"#, r#"{"error":{"code":1}}"#),
            ("<html>", "<html>"),
        ] {
            assert_eq!(error_message(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn every_api_has_its_own_words() {
        let body = |shape: ErrorShape| {
            serde_json::from_slice::<Value>(&shape.body(429, ApiErrorKind::of_status(429), "slow")).unwrap()
        };
        assert_eq!(
            body(ErrorShape::Anthropic),
            json!({"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}})
        );
        let error = json!({"message": "slow", "type": "rate_limit_error", "param": null, "code": null});
        assert_eq!(body(ErrorShape::OpenAi), json!({"error": error}));
        let error = json!({"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"});
        assert_eq!(body(ErrorShape::Google), json!({"error": error}));
        let event = |shape: ErrorShape| String::from_utf8(shape.event(ApiErrorKind::Api, "x")).unwrap();
        assert_eq!(
            event(ErrorShape::Anthropic),
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"x\"}}\n\n"
        );
        assert!(
            event(ErrorShape::OpenAi).starts_with("data: {\"error\":{\"message\":\"x\",\"type\":\"server_error\",")
        );
        assert!(event(ErrorShape::Google).starts_with("data: {\"error\":{\"code\":500,"));
    }
}
