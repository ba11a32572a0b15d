//! An entry of a HAR as the exchange that it records.

use super::rfc3339;
use crate::error::{ErrorKind, ProxyError};
use crate::trace::exchange::{
    Body, ConnectionFacts, Direction, Exchange, ExchangeKind, Identity, IdentitySource, Injection, Message,
    MessageOpcode, Messages, Outcome, RecordedForm, RequestHead, ResponseHead, Timing, TraceContext,
};
use crate::trace::{AttemptId, IdBytes, RolloutId, SpanId, Timestamp, TraceId};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use serde_json::Value as JsonValue;
use std::time::Duration;

/// The place of an entry in its file.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The rollout of entries that name none.
    pub(super) rollout: &'a str,
    /// Its index in the file.
    pub(super) at: usize,
    /// Its index by time.
    pub(super) position: usize,
}

/// The exchange of an entry, or why it has none.
pub(super) fn exchange(json: &JsonValue, place: Place<'_>) -> Result<Exchange, &'static str> {
    // Flows of mitmproxy have a number.
    let number = json["_startedUnixNanos"].as_u64().map(Timestamp::from_unix_nanos);
    let started_at =
        number.or_else(|| rfc3339::parsed(json["startedDateTime"].as_str()?)).ok_or("without a valid time")?;
    let request = request(&json["request"])?;
    let response = response(&json["response"]);
    let identity = identity(json, place);
    let is_socket = json["_webSocketMessages"].is_array() || response.as_ref().is_some_and(|head| head.status == 101);
    let kind = if is_socket { ExchangeKind::Upgrade } else { ExchangeKind::Http };
    let outcome = match &response {
        Some(_) => Outcome::Complete,
        None => Outcome::Failed {
            error: ProxyError::new(ErrorKind::ConnectionTerminated, request.host.as_str(), failure(json)),
        },
    };
    Ok(Exchange {
        trace: trace_context(json, place, &identity),
        identity,
        kind,
        request_body: request_body(&json["request"]),
        response_body: response_body(&json["response"]),
        messages: messages(&json["_webSocketMessages"], started_at),
        timing: timing(json, started_at),
        connection: ConnectionFacts::default(),
        informational: Vec::new(),
        injection: Injection::default(),
        records_bodies: true,
        gateway: None,
        outcome,
        request,
        response,
    })
}

fn failure(json: &JsonValue) -> String {
    let named = json["response"]["_error"].as_str().or(json["comment"].as_str());
    named.unwrap_or("the entry has no response").to_owned()
}

fn identity(json: &JsonValue, place: Place<'_>) -> Identity {
    let text = |name: &str| json[name].as_str().filter(|text| !text.is_empty());
    let rollout_id: RolloutId = text("_rolloutId").unwrap_or(place.rollout).into();
    Identity {
        attempt_id: text("_attemptId").map_or_else(|| AttemptId::default_of(&rollout_id), AttemptId::from),
        rollout_id,
        sequence_id: json["_sequenceId"].as_u64().unwrap_or(place.position as u64 + 1),
        source: IdentitySource::Connection,
        conflict: None,
    }
}

fn trace_context(json: &JsonValue, place: Place<'_>, identity: &Identity) -> TraceContext {
    let text = |name: &str| json[name].as_str();
    let (rollout, attempt) = (&identity.rollout_id, &identity.attempt_id);
    let own = || format!("{rollout}/{}", place.at);
    let span_id = text("_spanId").map_or_else(|| IdBytes::of(&own()), IdBytes::of);
    let trace_id =
        text("_traceId").map_or_else(|| TraceId::of_attempt(rollout, attempt), |id| TraceId(IdBytes::of(id).bytes));
    let parent_id = text("_parentSpanId")
        .map_or_else(|| SpanId::of_attempt_root(rollout, attempt), |id| SpanId(IdBytes::of(id).bytes));
    TraceContext { trace_id, span_id: SpanId(span_id.bytes), parent_id, parent_is_remote: false, otel_state: None }
}

fn request(json: &JsonValue) -> Result<RequestHead, &'static str> {
    let url = json["url"].as_str().unwrap_or_default();
    let uri: Uri = url.split('#').next().unwrap_or_default().parse().map_err(|_| "without a valid URL")?;
    let scheme = match uri.scheme_str() {
        Some("https" | "wss") => "https",
        Some("http" | "ws") => "http",
        _ => return Err("of another scheme than HTTP"),
    };
    let host = uri.host().ok_or("without a host")?.trim_matches(['[', ']']).to_owned();
    let method = Method::from_bytes(json["method"].as_str().unwrap_or("GET").as_bytes());
    Ok(RequestHead {
        method: method.map_err(|_| "with an invalid method")?,
        scheme,
        host,
        port: uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 }),
        target: uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
        version: version(&json["httpVersion"]),
        headers: headers(&json["headers"]),
    })
}

/// The response. `None` for an exchange that failed before there was one, which has the status 0.
fn response(json: &JsonValue) -> Option<ResponseHead> {
    let status = json["status"].as_u64().and_then(|status| u16::try_from(status).ok());
    let status = StatusCode::from_u16(status?).ok()?;
    let mut headers = headers(&json["headers"]);
    // The content is decoded.
    headers.remove(header::CONTENT_ENCODING);
    if !headers.contains_key(header::CONTENT_TYPE) {
        let kind = json["content"]["mimeType"].as_str().and_then(|kind| HeaderValue::from_str(kind).ok());
        kind.into_iter().for_each(|kind| drop(headers.insert(header::CONTENT_TYPE, kind)));
    }
    Some(ResponseHead { status, version: version(&json["httpVersion"]), headers })
}

fn version(json: &JsonValue) -> Version {
    match json.as_str().unwrap_or_default().to_ascii_lowercase().as_str() {
        "http/1.0" => Version::HTTP_10,
        "h2" | "http/2" | "http/2.0" => Version::HTTP_2,
        "h3" | "http/3" | "http/3.0" => Version::HTTP_3,
        _ => Version::HTTP_11,
    }
}

/// The header fields that are valid; the pseudo-header fields of HTTP/2 are not.
fn headers(json: &JsonValue) -> HeaderMap {
    let field = |field: &JsonValue| {
        let name = HeaderName::from_bytes(field["name"].as_str()?.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(field["value"].as_str()?).ok()?))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in json.as_array().into_iter().flatten().filter_map(field) {
        headers.append(name, value);
    }
    headers
}

fn request_body(json: &JsonValue) -> Body {
    let data = &json["postData"];
    let form = || {
        let mut form = form_urlencoded::Serializer::new(String::new());
        for param in data["params"].as_array().into_iter().flatten() {
            form.append_pair(param["name"].as_str().unwrap_or_default(), param["value"].as_str().unwrap_or_default());
        }
        form.finish().into_bytes()
    };
    let bytes = bytes(data).filter(|bytes| !bytes.is_empty()).unwrap_or_else(form);
    // The content is decoded; the header still has the agent's coding.
    Body { form: RecordedForm::Decoded, ..body(bytes, &json["bodySize"]) }
}

fn response_body(json: &JsonValue) -> Body {
    body(bytes(&json["content"]).unwrap_or_default(), &json["bodySize"])
}

/// The text of a body, or what its base64 stands for.
fn bytes(json: &JsonValue) -> Option<Vec<u8>> {
    let text = json["text"].as_str()?;
    let decoded = (json["encoding"] == "base64").then(|| STANDARD.decode(text).ok()).flatten();
    Some(decoded.unwrap_or_else(|| text.as_bytes().to_vec()))
}

fn body(bytes: Vec<u8>, size: &JsonValue) -> Body {
    let size_bytes = size.as_u64().unwrap_or(bytes.len() as u64);
    let content = (!bytes.is_empty()).then(|| Box::new(bytes) as _);
    Body { content, size_bytes, complete: true, ..Body::default() }
}

fn messages(json: &JsonValue, started_at: Timestamp) -> Messages {
    let list = json.as_array().map(Vec::as_slice).unwrap_or_default();
    let recorded: Vec<Message> = list.iter().map(|message| self::message(message, started_at)).collect();
    Messages { count: recorded.len() as u64, recorded, fault: None }
}

fn message(json: &JsonValue, started_at: Timestamp) -> Message {
    let data = json["data"].as_str().unwrap_or_default();
    let opcode = match json["opcode"].as_u64() {
        Some(2) => MessageOpcode::Binary,
        Some(8) => MessageOpcode::Close,
        Some(9) => MessageOpcode::Ping,
        Some(10) => MessageOpcode::Pong,
        _ => MessageOpcode::Text,
    };
    let decoded = (opcode == MessageOpcode::Binary).then(|| STANDARD.decode(data).ok()).flatten();
    let payload = decoded.unwrap_or_else(|| data.as_bytes().to_vec());
    Message {
        direction: if json["type"] == "send" { Direction::Request } else { Direction::Response },
        at: Timestamp::from_unix_secs(json["time"].as_f64().unwrap_or_default()).since(started_at),
        opcode,
        size_bytes: json["_size"].as_u64().unwrap_or(payload.len() as u64),
        payload,
        compressed: false,
        complete: true,
    }
}

fn timing(json: &JsonValue, started_at: Timestamp) -> Timing {
    let phase = |name: &str| json["timings"][name].as_f64().filter(|millis| (0.0..MAX_MILLIS).contains(millis));
    let sum = |names: &[&str]| millis(names.iter().filter_map(|name| phase(name)).sum());
    let tls = phase("ssl").map(millis);
    let headers = sum(&["blocked", "dns", "connect", "send", "wait"]);
    let ended = json["time"].as_f64().filter(|time| (0.0..MAX_MILLIS).contains(time)).map(millis);
    Timing {
        started_at,
        connect: phase("connect").map(|connect| millis(connect).saturating_sub(tls.unwrap_or_default())),
        tls,
        response_headers: Some(headers),
        first_body_byte: None,
        ended: ended.unwrap_or(headers + sum(&["receive"])),
    }
}

fn millis(millis: f64) -> Duration {
    Duration::try_from_secs_f64(millis / 1000.0).unwrap_or_default()
}

/// A year. Longer phases are errors of the program that wrote them.
const MAX_MILLIS: f64 = 365.0 * 24.0 * 3600.0 * 1000.0;
