//! The bodies and WebSocket messages of a HAR entry, as far as they are recorded.

use super::borrowed_json::{Fields, Json};
use super::span_facts::text;
use crate::trace::semconv as names;
use crate::trace::span::Event;
use crate::trace::{Span, Timestamp, Value};

/// The `content` of a response.
pub(super) fn content<'a>(span: &'a Span, headers: &[(&'a str, &'a str)], transferred: i64) -> Json<'a> {
    let body = text(span, names::HTTP_RESPONSE_BODY_CONTENT);
    let base64 = text(span, names::RESPONSE_BODY_BASE64).filter(|_| body.is_none());
    let length = body.map(str::len).or_else(|| base64.map(|base64| base64.trim_end_matches('=').len() * 3 / 4));
    let size = length.map_or(Json::Int(transferred.max(0)), |length| Json::Unsigned(length as u64));
    let mut content: Fields<'_> = vec![("size", size), ("mimeType", media_type(headers).into())];
    if let Some(recorded) = body.or(base64) {
        content.push(("text", recorded.into()));
    }
    if base64.is_some() {
        content.push(("encoding", "base64".into()));
    }
    let missing = (length.is_none() && transferred > 0).then(|| NOT_RECORDED.into());
    let truncated = text(span, names::CAPTURE_RESPONSE_TRUNCATED).map(|limit| format!("cut at {limit}").into());
    content.extend(truncated.or(missing).map(|comment| ("comment", comment)));
    content.into()
}

/// The `postData` of a request. `None` if it has no body.
pub(super) fn post_data<'a>(span: &'a Span, headers: &[(&'a str, &'a str)]) -> Option<Json<'a>> {
    let mut data: Fields<'_> = vec![("mimeType", media_type(headers).into())];
    let mut comment = None;
    match (text(span, names::HTTP_REQUEST_BODY_CONTENT), text(span, names::REQUEST_BODY_BASE64)) {
        (Some(body), _) => data.push(("text", body.into())),
        // HAR 1.2 has no field for the encoding, but tools read it.
        (None, Some(base64)) => data.extend([("text", base64.into()), ("encoding", "base64".into())]),
        (None, None) => {
            let size = span.attributes.get(names::HTTP_REQUEST_BODY_SIZE).and_then(Value::as_int);
            size.filter(|size| *size > 0)?;
            data.push(("text", "".into()));
            comment = Some(NOT_RECORDED.into());
        }
    }
    let truncated = text(span, names::CAPTURE_REQUEST_TRUNCATED).map(|limit| format!("cut at {limit}").into());
    data.extend(truncated.or(comment).map(|comment| ("comment", comment)));
    Some(data.into())
}

const NOT_RECORDED: &str = "the body was not recorded; set capture.include_bodies = true";

/// The media type that a `Content-Type` field names.
fn media_type<'a>(headers: &[(&'a str, &'a str)]) -> &'a str {
    headers.iter().find(|(name, _)| *name == "content-type").map_or("application/octet-stream", |(_, value)| value)
}

/// The messages of a WebSocket, as Chrome writes them.
pub(super) fn web_socket_messages(span: &Span, start: Timestamp) -> Vec<Json<'_>> {
    let events = span.events.iter().filter(|event| event.name == names::WEBSOCKET_MESSAGE);
    events.map(|event| message(event, start)).collect()
}

fn message(event: &Event, start: Timestamp) -> Json<'_> {
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
    let mut message: Fields<'_> = vec![
        ("type", kind.into()),
        ("time", event.timestamp.unwrap_or(start).unix_secs().into()),
        ("opcode", Json::Int(opcode)),
        ("data", recorded.unwrap_or_default().into()),
    ];
    let size = event.attributes.get(names::WEBSOCKET_SIZE).and_then(Value::as_int).unwrap_or_default();
    if recorded.is_none() && size > 0 && opcode != 8 {
        message.push(("_comment", NOT_RECORDED.into()));
    }
    message.push(("_size", size.into()));
    message.into()
}
