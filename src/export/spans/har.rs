//! HAR 1.2: an entry for each HTTP exchange, as browsers and HTTP clients load it.
//!
//! Headers and bodies are as they are stored: redacted, and only there if the settings record them. A body of an event
//! stream is its whole text, messages of a WebSocket are Chrome's `_webSocketMessages`, and what HAR has no field for
//! starts with `_`. Calls within a WebSocket, and spans that are no exchanges, have no entry.

use super::format::{Framing, RecordedRollout, SpanFormat};
use super::har_bodies::{content, post_data, web_socket_messages};
use super::span_facts::{Times, json_of, rfc3339, text};
use crate::trace::semconv as names;
use crate::trace::{Span, Value};
use serde_json::{Map, Value as JsonValue, json};

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
        let mut out = Vec::new();
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
fn entry(span: &Span, times: Times) -> Option<JsonValue> {
    let method = match text(span, names::HTTP_REQUEST_METHOD)? {
        "_OTHER" => text(span, names::HTTP_REQUEST_METHOD_ORIGINAL).unwrap_or("_OTHER"),
        method => method,
    };
    let timings = timings(span, times);
    let mut entry = Map::new();
    let mut set = |name: &str, value: JsonValue| drop(entry.insert(name.to_owned(), value));
    set("startedDateTime", rfc3339(times.start).into());
    set("time", total(&timings).into());
    set("request", request(span, method));
    set("response", response(span));
    set("cache", json!({}));
    set("timings", timings);
    if let Some(address) = text(span, names::NETWORK_PEER_ADDRESS) {
        set("serverIPAddress", address.into());
    }
    if let Some(connection) = span.attributes.get(names::CONNECTION_ID).and_then(Value::as_int) {
        set("connection", connection.to_string().into());
    }
    if let Some(comment) = comment(span) {
        set("comment", comment.into());
    }
    set("_rolloutId", span.rollout_id.as_str().into());
    set("_attemptId", span.attempt_id.as_str().into());
    set("_sequenceId", span.sequence_id.into());
    set("_traceId", span.trace_id.as_str().into());
    set("_spanId", span.span_id.as_str().into());
    set("_parentSpanId", json!(span.parent_id));
    let is_call = |name: &str| name.starts_with("gen_ai.") || name.starts_with("mcp.");
    let call: Map<String, JsonValue> =
        span.attributes.keys().filter(|name| is_call(name)).map(|name| (name.clone(), json_of(span, name))).collect();
    if !call.is_empty() {
        set("_genAi", call.into());
    }
    if span.attributes.contains_key(names::WEBSOCKET_MESSAGES) || span.name == "WEBSOCKET" {
        set("_resourceType", "websocket".into());
        set("_webSocketMessages", web_socket_messages(span, times.start));
    }
    Some(JsonValue::Object(entry))
}

fn request(span: &Span, method: &str) -> JsonValue {
    let url = url(span);
    let query = url.split_once('?').map(|(_, query)| query.split('#').next().unwrap_or_default());
    let query = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let query: Vec<JsonValue> = query.map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let headers = headers(span, names::REQUEST_HEADER_PREFIX);
    let mut request = json!({
        "method": method,
        "httpVersion": http_version(span, names::DOWNSTREAM_PROTOCOL_VERSION),
        "cookies": request_cookies(&headers),
        "headers": header_list(&headers),
        "queryString": query,
        "headersSize": -1,
        "bodySize": size(span, names::HTTP_REQUEST_BODY_SIZE),
    });
    request["url"] = url.into();
    if let Some(data) = post_data(span, &headers) {
        request["postData"] = data;
    }
    request
}

fn response(span: &Span) -> JsonValue {
    let status = span.attributes.get(names::HTTP_RESPONSE_STATUS_CODE).and_then(Value::as_int);
    let code = status.and_then(|status| u16::try_from(status).ok()).unwrap_or_default();
    let reason = http::StatusCode::from_u16(code).ok().and_then(|status| status.canonical_reason());
    let headers = headers(span, names::RESPONSE_HEADER_PREFIX);
    let redirect = headers.iter().find(|(name, _)| *name == "location").map_or("", |(_, value)| value);
    let transferred = size(span, names::HTTP_RESPONSE_BODY_SIZE);
    let mut response = json!({
        "status": code,
        "statusText": reason.unwrap_or_default(),
        "httpVersion": http_version(span, names::NETWORK_PROTOCOL_VERSION),
        "cookies": response_cookies(&headers),
        "headers": header_list(&headers),
        "content": content(span, &headers, transferred),
        "redirectURL": redirect,
        "headersSize": -1,
        "bodySize": transferred,
        "_transferSize": transferred,
    });
    if let Some(error) = text(span, names::ERROR_TYPE).filter(|_| status.is_none() || !is_complete(span)) {
        response["_error"] = error.into();
    }
    response
}

fn is_complete(span: &Span) -> bool {
    text(span, names::OUTCOME).is_none_or(|outcome| outcome == "complete")
}

/// The URL, or what is known of it: a tunnel has host and port only.
fn url(span: &Span) -> String {
    let known = [text(span, names::URL_FULL), text(span, "http.url")].into_iter().flatten().next();
    known.map(str::to_owned).unwrap_or_else(|| {
        let port = span.attributes.get(names::SERVER_PORT).and_then(Value::as_int);
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("https://{}{port}/", text(span, names::SERVER_ADDRESS).unwrap_or("unknown"))
    })
}

fn http_version(span: &Span, name: &str) -> String {
    text(span, name).map_or_else(|| "HTTP/1.1".to_owned(), |version| format!("HTTP/{version}"))
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

fn header_list(headers: &[(&str, &str)]) -> Vec<JsonValue> {
    headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
}

fn request_cookies(headers: &[(&str, &str)]) -> Vec<JsonValue> {
    let fields = headers.iter().filter(|(name, _)| *name == "cookie");
    fields.flat_map(|(_, value)| value.split(';')).filter_map(cookie).collect()
}

/// Of a `Set-Cookie` field the name and the value only: the header list has the rest.
fn response_cookies(headers: &[(&str, &str)]) -> Vec<JsonValue> {
    let fields = headers.iter().filter(|(name, _)| *name == "set-cookie");
    fields.filter_map(|(_, value)| cookie(value.split(';').next()?)).collect()
}

/// A cookie. `None` for what is no pair, as a redacted field is not.
fn cookie(pair: &str) -> Option<JsonValue> {
    let (name, value) = pair.split_once('=')?;
    Some(json!({ "name": name.trim(), "value": value.trim() }))
}

/// Milliseconds of each phase; -1 for those that did not happen or are not known.
fn timings(span: &Span, times: Times) -> JsonValue {
    let millis = |name: &str| span.attributes.get(name).and_then(Value::as_float).filter(|millis| *millis >= 0.0);
    let (tcp, tls) = (millis(names::TIMING_CONNECT_MS), millis(names::TIMING_TLS_MS));
    let connect = tcp.or(tls).map(|_| tcp.unwrap_or_default() + tls.unwrap_or_default());
    let whole = if times.are_known { times.millis() } else { 0.0 };
    let headers = millis(names::TIMING_RESPONSE_HEADERS_MS).unwrap_or(whole).min(whole);
    json!({
        "blocked": -1.0,
        "dns": -1.0,
        "connect": connect.unwrap_or(-1.0),
        "ssl": tls.unwrap_or(-1.0),
        "send": 0.0,
        "wait": (headers - connect.unwrap_or_default()).max(0.0),
        "receive": whole - headers,
    })
}

/// The sum of all phases that happened. `ssl` is a part of `connect`.
fn total(timings: &JsonValue) -> f64 {
    let phases = ["blocked", "dns", "connect", "send", "wait", "receive"];
    phases.iter().filter_map(|phase| timings[*phase].as_f64()).filter(|millis| *millis > 0.0).sum()
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
