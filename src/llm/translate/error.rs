//! Errors in the shape that a client's dialect has for them.
//!
//! It must not decide what is an error.

use super::Client;
use super::value::{object, text_of, write_data, write_event};
use crate::wire::json::Json;

/// An error in place of a whole answer. `kind` is one of `invalid_request`, `authentication`, `not_found`,
/// `rate_limit`, `overloaded`, `timeout` and `api`, which every dialect has its own words for.
pub(crate) fn error_body(client: Client, status: u16, kind: &str, message: &str) -> Vec<u8> {
    let body = match client {
        Client::Messages => messages_error(kind, message),
        Client::Responses => {
            let error = object! {
                "message": message, "type": openai_type(kind), "param": None::<bool>, "code": None::<bool>,
            };
            object! {"error": error}
        }
        Client::Gemini => gemini_error(Some(status), kind, message),
    };
    text_of(&body).into_bytes()
}

/// The same within a stream, where no status can be given any more. For Gemini it is an event, no element of a list.
pub(crate) fn error_event(client: Client, kind: &str, message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    match client {
        Client::Messages => write_event(&messages_error(kind, message), &mut out),
        Client::Responses => write_event(&responses_event(kind, message), &mut out),
        Client::Gemini => write_data(&gemini_error(None, kind, message), &mut out),
    }
    out
}

fn messages_error<'a>(kind: &str, message: &'a str) -> Json<'a> {
    let kind = match kind {
        "invalid_request" => "invalid_request_error",
        "authentication" => "authentication_error",
        "not_found" => "not_found_error",
        "rate_limit" => "rate_limit_error",
        "overloaded" => "overloaded_error",
        "timeout" => "timeout_error",
        _ => "api_error",
    };
    object! {"type": "error", "error": object! {"type": kind, "message": message}}
}

fn openai_type(kind: &str) -> &'static str {
    match kind {
        "invalid_request" | "not_found" => "invalid_request_error",
        "authentication" => "authentication_error",
        "rate_limit" => "rate_limit_error",
        "overloaded" => "service_unavailable_error",
        "timeout" => "timeout_error",
        _ => "server_error",
    }
}

/// The code that a response fails with.
pub(super) fn openai_code(kind: &str) -> &'static str {
    match kind {
        "invalid_request" => "invalid_prompt",
        "rate_limit" => "rate_limit_exceeded",
        _ => "server_error",
    }
}

/// An error in a stream of OpenAI responses, before anything else.
pub(super) fn responses_event<'a>(kind: &str, message: &'a str) -> Json<'a> {
    object! {
        "type": "error",
        "sequence_number": 0_i64,
        "code": openai_code(kind),
        "message": message,
        "param": None::<bool>,
    }
}

/// Google's error; without a status, the one that fits.
pub(super) fn gemini_error<'a>(status: Option<u16>, kind: &str, message: &'a str) -> Json<'a> {
    let (fitting, word) = match kind {
        "invalid_request" => (400, "INVALID_ARGUMENT"),
        "authentication" => (401, "UNAUTHENTICATED"),
        "not_found" => (404, "NOT_FOUND"),
        "rate_limit" => (429, "RESOURCE_EXHAUSTED"),
        "overloaded" => (503, "UNAVAILABLE"),
        "timeout" => (504, "DEADLINE_EXCEEDED"),
        _ => (500, "INTERNAL"),
    };
    let code = i64::from(status.unwrap_or(fitting));
    object! {"error": object! {"code": code, "message": message, "status": word}}
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn every_dialect_has_its_own_words() {
        let body = |client| serde_json::from_slice::<Value>(&error_body(client, 429, "rate_limit", "slow")).unwrap();
        assert_eq!(
            body(Client::Messages),
            json!({"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}})
        );
        let error = json!({"message": "slow", "type": "rate_limit_error", "param": null, "code": null});
        assert_eq!(body(Client::Responses), json!({"error": error}));
        let error = json!({"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"});
        assert_eq!(body(Client::Gemini), json!({"error": error}));
        let event = |client| String::from_utf8(error_event(client, "api", "x")).unwrap();
        assert_eq!(
            event(Client::Messages),
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"x\"}}\n\n"
        );
        assert!(event(Client::Responses).starts_with("event: error\ndata: {\"type\":\"error\","));
        assert!(event(Client::Gemini).starts_with("data: {\"error\":{\"code\":500,"));
    }
}
