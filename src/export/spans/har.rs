//! HAR 1.2: an entry for each HTTP exchange, as browsers and HTTP clients load it.
//!
//! Headers and bodies are as they are stored: redacted, and only there if the settings record them. A body of an event
//! stream is its whole text, messages of a WebSocket are Chrome's `_webSocketMessages`, and what HAR has no field for
//! starts with `_`. Calls within a WebSocket, and spans that are no exchanges, have no entry.

use super::borrowed_json::{Fields, Json};
use super::format::{Framing, RecordedRollout, SpanFormat};
use super::har_bodies::{content, post_data, web_socket_messages};
use super::span_facts::{Times, rfc3339, text};
use crate::trace::semconv as names;
use crate::trace::{Span, Value};
use std::borrow::Cow;

/// `--format har`
pub(super) struct Har;

impl SpanFormat for Har {
    fn name(&self) -> &'static str {
        "har"
    }

    fn media_type(&self) -> &'static str {
        "application/json"
    }

    fn framing(&self) -> Framing {
        Framing { start: START, separator: ",\n", end: "]}}\n" }
    }

    fn encoded(&self, recorded: &RecordedRollout) -> serde_json::Result<Vec<u8>> {
        // Most of an entry are bodies, which escapes make a little longer.
        let bytes: u64 = recorded.spans.iter().map(Span::estimated_bytes).sum();
        let mut out = Vec::with_capacity(usize::try_from(bytes + bytes / 2).unwrap_or_default());
        for (span, times) in recorded.spans.iter().zip(Times::of_all(&recorded.spans)) {
            let Some(entry) = entry(span, times) else { continue };
            if !out.is_empty() {
                out.extend_from_slice(b",\n");
            }
            serde_json::to_writer(&mut out, &entry)?;
        }
        Ok(out)
    }
}

const START: &str = concat!(
    "{\"log\":{\"version\":\"1.2\",\"creator\":{\"name\":\"",
    env!("CARGO_PKG_NAME"),
    "\",\"version\":\"",
    env!("CARGO_PKG_VERSION"),
    "\"},\"entries\":["
);

/// The entry of an exchange. `None` for other spans.
fn entry(span: &Span, times: Times) -> Option<Json<'_>> {
    let method = match text(span, names::HTTP_REQUEST_METHOD)? {
        "_OTHER" => text(span, names::HTTP_REQUEST_METHOD_ORIGINAL).unwrap_or("_OTHER"),
        method => method,
    };
    let timings = timings(span, times);
    let mut entry: Fields<'_> = vec![
        ("startedDateTime", rfc3339(times.start).into()),
        ("time", total(&timings).into()),
        ("request", request(span, method)),
        ("response", response(span)),
        ("cache", Json::Object(Vec::new())),
        ("timings", Json::Object(timings.iter().map(|(phase, millis)| (*phase, (*millis).into())).collect())),
    ];
    if let Some(address) = text(span, names::NETWORK_PEER_ADDRESS) {
        entry.push(("serverIPAddress", address.into()));
    }
    if let Some(connection) = span.attributes.get(names::CONNECTION_ID).and_then(Value::as_int) {
        entry.push(("connection", connection.to_string().into()));
    }
    if let Some(comment) = comment(span) {
        entry.push(("comment", comment.into()));
    }
    entry.extend([
        ("_rolloutId", Json::from(span.rollout_id.as_str())),
        ("_attemptId", span.attempt_id.as_str().into()),
        ("_sequenceId", span.sequence_id.into()),
        ("_traceId", span.trace_id.as_str().into()),
        ("_spanId", span.span_id.as_str().into()),
        ("_parentSpanId", span.parent_id.as_deref().into()),
    ]);
    let is_call = |name: &str| name.starts_with("gen_ai.") || name.starts_with("mcp.");
    let call = span.attributes.iter().filter(|(name, _)| is_call(name));
    let call: Fields<'_> = call.map(|(name, value)| (name.as_str(), Json::Attribute(value))).collect();
    if !call.is_empty() {
        entry.push(("_genAi", call.into()));
    }
    if span.attributes.contains_key(names::WEBSOCKET_MESSAGES) || span.name == "WEBSOCKET" {
        entry.push(("_resourceType", "websocket".into()));
        entry.push(("_webSocketMessages", web_socket_messages(span, times.start).into()));
    }
    Some(entry.into())
}

fn request<'a>(span: &'a Span, method: &'a str) -> Json<'a> {
    let url = url(span);
    let query = url.split_once('?').map(|(_, query)| query.split('#').next().unwrap_or_default());
    let query = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let query: Vec<Json<'_>> = query.map(|(name, value)| pair(name.into_owned(), value.into_owned())).collect();
    let headers = headers(span, names::REQUEST_HEADER_PREFIX);
    let mut request: Fields<'_> = vec![
        ("method", method.into()),
        ("httpVersion", http_version(span, names::DOWNSTREAM_PROTOCOL_VERSION)),
        ("cookies", request_cookies(&headers).into()),
        ("headers", header_list(&headers).into()),
        ("queryString", query.into()),
        ("headersSize", Json::Int(-1)),
        ("bodySize", size(span, names::HTTP_REQUEST_BODY_SIZE).into()),
        ("url", url.into()),
    ];
    if let Some(data) = post_data(span, &headers) {
        request.push(("postData", data));
    }
    request.into()
}

fn response(span: &Span) -> Json<'_> {
    let status = span.attributes.get(names::HTTP_RESPONSE_STATUS_CODE).and_then(Value::as_int);
    let code = status.and_then(|status| u16::try_from(status).ok()).unwrap_or_default();
    let reason = http::StatusCode::from_u16(code).ok().and_then(|status| status.canonical_reason());
    let headers = headers(span, names::RESPONSE_HEADER_PREFIX);
    let redirect = headers.iter().find(|(name, _)| *name == "location").map_or("", |(_, value)| value);
    let transferred = size(span, names::HTTP_RESPONSE_BODY_SIZE);
    let mut response: Fields<'_> = vec![
        ("status", Json::Int(code.into())),
        ("statusText", reason.unwrap_or_default().into()),
        ("httpVersion", http_version(span, names::NETWORK_PROTOCOL_VERSION)),
        ("cookies", response_cookies(&headers).into()),
        ("headers", header_list(&headers).into()),
        ("content", content(span, &headers, transferred)),
        ("redirectURL", redirect.into()),
        ("headersSize", Json::Int(-1)),
        ("bodySize", transferred.into()),
        ("_transferSize", transferred.into()),
    ];
    if let Some(error) = text(span, names::ERROR_TYPE).filter(|_| status.is_none() || !is_complete(span)) {
        response.push(("_error", error.into()));
    }
    response.into()
}

fn is_complete(span: &Span) -> bool {
    text(span, names::OUTCOME).is_none_or(|outcome| outcome == "complete")
}

/// The URL, or what is known of it: a tunnel has host and port only.
fn url(span: &Span) -> Cow<'_, str> {
    let known = [text(span, names::URL_FULL), text(span, "http.url")].into_iter().flatten().next();
    known.map(Cow::Borrowed).unwrap_or_else(|| {
        let port = span.attributes.get(names::SERVER_PORT).and_then(Value::as_int);
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("https://{}{port}/", text(span, names::SERVER_ADDRESS).unwrap_or("unknown")).into()
    })
}

fn http_version<'a>(span: &'a Span, name: &str) -> Json<'a> {
    text(span, name).map_or_else(|| "HTTP/1.1".into(), |version| format!("HTTP/{version}").into())
}

/// The size of a body; -1 if it is unknown.
fn size(span: &Span, name: &str) -> i64 {
    span.attributes.get(name).and_then(Value::as_int).unwrap_or(-1)
}

/// Header fields by name, a pair for each value.
fn headers<'a>(span: &'a Span, prefix: &str) -> Vec<(&'a str, &'a str)> {
    let mut headers = Vec::new();
    for (name, value) in &span.attributes {
        let Some(name) = name.strip_prefix(prefix) else { continue };
        match value {
            Value::Strings(values) => headers.extend(values.iter().map(|value| (name, value.as_str()))),
            Value::String(value) => headers.push((name, value.as_str())),
            _ => {}
        }
    }
    headers
}

fn header_list<'a>(headers: &[(&'a str, &'a str)]) -> Vec<Json<'a>> {
    headers.iter().map(|(name, value)| pair(*name, *value)).collect()
}

fn pair<'a>(name: impl Into<Json<'a>>, value: impl Into<Json<'a>>) -> Json<'a> {
    Json::Object(vec![("name", name.into()), ("value", value.into())])
}

fn request_cookies<'a>(headers: &[(&'a str, &'a str)]) -> Vec<Json<'a>> {
    let fields = headers.iter().filter(|(name, _)| *name == "cookie");
    fields.flat_map(|(_, value)| value.split(';')).filter_map(cookie).collect()
}

/// Of a `Set-Cookie` field the name and the value only: the header list has the rest.
fn response_cookies<'a>(headers: &[(&'a str, &'a str)]) -> Vec<Json<'a>> {
    let fields = headers.iter().filter(|(name, _)| *name == "set-cookie");
    fields.filter_map(|(_, value)| cookie(value.split(';').next()?)).collect()
}

/// A cookie. `None` for what is no pair, as a redacted field is not.
fn cookie(text: &str) -> Option<Json<'_>> {
    let (name, value) = text.split_once('=')?;
    Some(pair(name.trim(), value.trim()))
}

/// Milliseconds of each phase; -1 for those that did not happen or are not known.
fn timings(span: &Span, times: Times) -> [(&'static str, f64); 7] {
    let millis = |name: &str| span.attributes.get(name).and_then(Value::as_float).filter(|millis| *millis >= 0.0);
    let (tcp, tls) = (millis(names::TIMING_CONNECT_MS), millis(names::TIMING_TLS_MS));
    let connect = tcp.or(tls).map(|_| tcp.unwrap_or_default() + tls.unwrap_or_default());
    let whole = if times.are_known { times.millis() } else { 0.0 };
    let headers = millis(names::TIMING_RESPONSE_HEADERS_MS).unwrap_or(whole).min(whole);
    [
        ("blocked", -1.0),
        ("dns", -1.0),
        ("connect", connect.unwrap_or(-1.0)),
        ("ssl", tls.unwrap_or(-1.0)),
        ("send", 0.0),
        ("wait", (headers - connect.unwrap_or_default()).max(0.0)),
        ("receive", whole - headers),
    ]
}

/// The sum of all phases that happened. `ssl` is a part of `connect`.
fn total(timings: &[(&str, f64)]) -> f64 {
    timings.iter().filter(|(phase, millis)| *phase != "ssl" && *millis > 0.0).map(|(_, millis)| millis).sum()
}

/// What a reader can't see in the other fields.
fn comment(span: &Span) -> Option<String> {
    let mut remarks = Vec::new();
    if !is_complete(span) {
        remarks.push("the exchange did not complete".to_owned());
    }
    if let Some(description) = &span.status.description {
        remarks.push(description.clone());
    }
    if span.start_time.is_none() || span.end_time.is_none() {
        remarks.push("its start or its end was not recorded".to_owned());
    }
    (!remarks.is_empty()).then(|| remarks.join("; "))
}
