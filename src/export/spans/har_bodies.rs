//! The bodies and WebSocket messages of a HAR entry, as far as they are recorded.

use super::span_facts::text;
use crate::trace::semconv as names;
use crate::trace::span::Event;
use crate::trace::{Span, Timestamp, Value};
use serde_json::{Value as JsonValue, json};

/// The `content` of a response.
pub(super) fn content(span: &Span, headers: &[(&str, &str)], transferred: i64) -> JsonValue {
    let mut content = json!({ "size": transferred.max(0), "mimeType": media_type(headers) });
    let comment = match (text(span, names::HTTP_RESPONSE_BODY_CONTENT), text(span, names::RESPONSE_BODY_BASE64)) {
        (Some(body), _) => {
            content["size"] = body.len().into();
            content["text"] = body.into();
            None
        }
        (None, Some(base64)) => {
            content["size"] = (base64.trim_end_matches('=').len() * 3 / 4).into();
            content["text"] = base64.into();
            content["encoding"] = "base64".into();
            None
        }
        (None, None) if transferred > 0 => Some(NOT_RECORDED.to_owned()),
        (None, None) => None,
    };
    let truncated = text(span, names::CAPTURE_RESPONSE_TRUNCATED).map(|limit| format!("cut at {limit}"));
    if let Some(comment) = truncated.or(comment) {
        content["comment"] = comment.into();
    }
    content
}

/// The `postData` of a request. `None` if it has no body.
pub(super) fn post_data(span: &Span, headers: &[(&str, &str)]) -> Option<JsonValue> {
    let mut data = json!({ "mimeType": media_type(headers) });
    match (text(span, names::HTTP_REQUEST_BODY_CONTENT), text(span, names::REQUEST_BODY_BASE64)) {
        (Some(body), _) => data["text"] = body.into(),
        (None, Some(base64)) => {
            data["text"] = base64.into();
            // HAR 1.2 has no such field, but tools read it.
            data["encoding"] = "base64".into();
        }
        (None, None) => {
            let size = span.attributes.get(names::HTTP_REQUEST_BODY_SIZE).and_then(Value::as_int);
            size.filter(|size| *size > 0)?;
            data["text"] = "".into();
            data["comment"] = NOT_RECORDED.into();
        }
    }
    if let Some(limit) = text(span, names::CAPTURE_REQUEST_TRUNCATED) {
        data["comment"] = format!("cut at {limit}").into();
    }
    Some(data)
}

const NOT_RECORDED: &str = "the body was not recorded; set capture.include_bodies = true";

/// The media type that a `Content-Type` field names.
fn media_type<'a>(headers: &[(&'a str, &'a str)]) -> &'a str {
    headers.iter().find(|(name, _)| *name == "content-type").map_or("application/octet-stream", |(_, value)| value)
}

/// The messages of a WebSocket, as Chrome writes them.
pub(super) fn web_socket_messages(span: &Span, start: Timestamp) -> JsonValue {
    let events = span.events.iter().filter(|event| event.name == names::WEBSOCKET_MESSAGE);
    events.map(|event| message(event, start)).collect()
}

fn message(event: &Event, start: Timestamp) -> JsonValue {
    let text = |name: &str| event.attributes.get(name).and_then(Value::as_str);
    let kind = if text(names::NETWORK_IO_DIRECTION) == Some("transmit") { "send" } else { "receive" };
    let opcode = match text(names::WEBSOCKET_OPCODE) {
        Some("binary") => 2,
        Some("close") => 8,
        Some("ping") => 9,
        Some("pong") => 10,
        _ => 1,
    };
    let recorded = text(names::WEBSOCKET_TEXT).or_else(|| text(names::WEBSOCKET_BASE64));
    let mut message = json!({
        "type": kind,
        "time": event.timestamp.unwrap_or(start).unix_secs(),
        "opcode": opcode,
        "data": recorded.unwrap_or_default(),
    });
    let size = event.attributes.get(names::WEBSOCKET_SIZE).and_then(Value::as_int).unwrap_or_default();
    if recorded.is_none() && size > 0 && opcode != 8 {
        message["_comment"] = NOT_RECORDED.into();
    }
    message["_size"] = size.into();
    message
}
