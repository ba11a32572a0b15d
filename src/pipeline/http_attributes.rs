//! The attributes of an HTTP exchange.
//!
//! OpenTelemetry's HTTP conventions for a CLIENT span (v1.44.0); what they have no name for is `tracewire.*`.

use super::options::SpanOptions;
use crate::error::Side;
use crate::trace::exchange::{Exchange, ExchangeKind, Outcome, RequestHead};
use crate::trace::semconv as names;
use crate::trace::span::{Resource, SpanContext};
use crate::trace::{Span, SpanKind, Status, StatusCode, Value};
use crate::util::glob::any_name_matches;
use http::uri::Authority;
use http::{HeaderMap, Version, header};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The span of an exchange without attributes.
pub(super) fn bare_span(exchange: &Exchange) -> Span {
    let (identity, trace) = (&exchange.identity, &exchange.trace);
    let context = |span_id: String, is_remote| SpanContext {
        trace_id: trace.trace_id.to_string(),
        span_id,
        is_remote,
        trace_state: trace.otel_state.iter().map(|state| ("ot".to_owned(), state.clone())).collect(),
    };
    let (span_id, parent_id) = (trace.span_id.to_string(), trace.parent_id.to_string());
    let mut resource = Resource { schema_url: names::SCHEMA_URL.to_owned(), ..Resource::default() };
    resource.attributes.insert("service.name".to_owned(), "tracewire".into());
    let known = KNOWN_METHODS.contains(&exchange.request.method.as_str());
    Span {
        rollout_id: identity.rollout_id.clone(),
        attempt_id: identity.attempt_id.clone(),
        sequence_id: identity.sequence_id,
        trace_id: trace.trace_id.to_string(),
        name: match exchange.kind {
            // Over HTTP/2 its method is CONNECT, as of a proxy tunnel.
            ExchangeKind::Upgrade => "WEBSOCKET".to_owned(),
            _ if known => exchange.request.method.to_string(),
            _ => "HTTP".to_owned(),
        },
        kind: Some(SpanKind::Client),
        status: Status::default(),
        attributes: BTreeMap::default(),
        events: Vec::new(),
        links: Vec::new(),
        start_time: Some(exchange.timing.started_at),
        end_time: Some(exchange.timing.started_at.after(exchange.timing.ended)),
        context: Some(context(span_id.clone(), false)),
        parent: Some(context(parent_id.clone(), trace.parent_is_remote)),
        span_id,
        parent_id: Some(parent_id),
        resource,
    }
}

/// Adds what is known of the request, the sizes of both bodies, and the identity.
pub(super) fn request(span: &mut Span, exchange: &Exchange, options: &SpanOptions) {
    let request = &exchange.request;
    let method = request.method.as_str();
    if KNOWN_METHODS.contains(&method) {
        span.set(names::HTTP_REQUEST_METHOD, method);
    } else {
        span.set(names::HTTP_REQUEST_METHOD, "_OTHER");
        span.set(names::HTTP_REQUEST_METHOD_ORIGINAL, options.redactor.text(method).into_owned());
    }
    if !request.scheme.is_empty() {
        let standard = request.port == if request.scheme == "https" { 443 } else { 80 };
        let host = if request.host.contains(':') { format!("[{}]", request.host) } else { request.host.clone() };
        let port = if standard { String::new() } else { format!(":{}", request.port) };
        let url = format!("{}://{host}{port}{}", request.scheme, request.target);
        span.set(names::URL_FULL, options.redactor.url(&url).into_owned());
    }
    server(span, exchange);
    if let Some(host) = other_host(request) {
        let name = format!("{}host", names::REQUEST_HEADER_PREFIX);
        span.attributes.insert(name, Value::Strings(vec![options.redactor.text(host).into_owned()]));
    }
    let agent = request.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    span.set_some(names::USER_AGENT_ORIGINAL, agent.map(|agent| options.redactor.text(agent).into_owned()));
    span.set(names::HTTP_REQUEST_BODY_SIZE, exchange.request_body.size_bytes);
    span.set(names::HTTP_RESPONSE_BODY_SIZE, exchange.response_body.size_bytes);
    span.set_some(names::CAPTURE_REQUEST_TRUNCATED, exchange.request_body.truncated.map(|why| why.as_str()));
    span.set_some(names::CAPTURE_RESPONSE_TRUNCATED, exchange.response_body.truncated.map(|why| why.as_str()));
    span.set(names::IDENTITY_SOURCE, exchange.identity.source.as_str());
    span.set_some(names::IDENTITY_CONFLICT, exchange.identity.conflict.clone());
    if let ExchangeKind::Connect(policy) = exchange.kind {
        span.set(names::CONNECT_POLICY, policy.as_str());
        span.set_some(names::CONNECT_REASON, exchange.connection.unread_because.clone());
    }
    if exchange.response_body.frames > 0 {
        span.set(names::RESPONSE_FRAMES, exchange.response_body.frames);
    }
    if !exchange.informational.is_empty() {
        let statuses = exchange.informational.iter().map(|status| i64::from(*status)).collect();
        span.attributes.insert(names::RESPONSE_INFORMATIONAL.to_owned(), Value::Ints(statuses));
    }
}

/// The `Host` of a request to a server under another name, as clients send it to a virtual host by address.
fn other_host(request: &RequestHead) -> Option<&str> {
    let host = request.headers.get(header::HOST)?.to_str().ok()?;
    let name = host.parse::<Authority>().ok()?.host().trim_matches(['[', ']']).to_owned();
    let same = |name: &str, other: &str| name.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'));
    (!request.scheme.is_empty() && !same(&name, &request.host)).then_some(host)
}

/// Adds the endpoint.
pub(super) fn server(span: &mut Span, exchange: &Exchange) {
    span.set(names::SERVER_ADDRESS, exchange.request.host.clone());
    span.set(names::SERVER_PORT, exchange.request.port);
}

/// Adds the connections, and the response's status.
pub(super) fn connection(span: &mut Span, exchange: &Exchange) {
    let facts = &exchange.connection;
    if let Some(client) = facts.client {
        span.set(names::CLIENT_ADDRESS, client.ip().to_string());
        span.set(names::CLIENT_PORT, client.port());
    }
    span.set(names::CONNECTION_ID, facts.downstream_id);
    span.set(names::DOWNSTREAM_PROTOCOL_VERSION, version_name(exchange.request.version));
    if let Some(tls) = &facts.downstream_tls {
        span.set_some(names::DOWNSTREAM_TLS_VERSION, tls.version);
        span.set_some(names::DOWNSTREAM_TLS_ALPN, tls.alpn.clone());
        span.set_some(names::TLS_SERVER_NAME, tls.server_name.clone());
    }
    if let Some(peer) = facts.upstream_peer {
        span.set(names::NETWORK_PEER_ADDRESS, peer.ip().to_string());
        span.set(names::NETWORK_PEER_PORT, peer.port());
        span.set(names::CONNECTION_REUSED, facts.upstream_reused);
    }
    if let Some(tls) = &facts.upstream_tls {
        span.set_some(names::TLS_PROTOCOL_VERSION, tls.version);
        span.set_some(names::TLS_CIPHER, tls.cipher.clone());
        span.set_some(names::TLS_NEXT_PROTOCOL, tls.alpn.clone());
        if tls.unverified {
            span.set(names::TLS_UNVERIFIED, true);
        }
        if facts.upstream_cut.load(Ordering::Relaxed) {
            span.set(names::TLS_CUT, true);
        }
    }
    if let Some(refusal) = &facts.refusal {
        span.set_some(names::USER_AGENT_ORIGINAL, refusal.user_agent.clone());
        span.set_some(names::CLIENT_PROGRAM, refusal.program.clone());
        span.set(names::CLIENT_ALPN, refusal.alpn.clone());
        span.set_some(names::CLIENT_FINGERPRINT, refusal.fingerprint.clone());
        span.set_some(names::CLIENT_ADVICE, refusal.advice.clone());
    }
    if let Some(response) = &exchange.response {
        span.set(names::HTTP_RESPONSE_STATUS_CODE, response.status.as_u16());
        span.set(names::NETWORK_PROTOCOL_VERSION, version_name(response.version));
    }
}

/// Adds the durations.
pub(super) fn timing(span: &mut Span, exchange: &Exchange) {
    let timing = &exchange.timing;
    let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
    span.set_some(names::TIMING_CONNECT_MS, timing.connect.map(millis));
    span.set_some(names::TIMING_TLS_MS, timing.tls.map(millis));
    span.set_some(names::TIMING_RESPONSE_HEADERS_MS, timing.response_headers.map(millis));
    span.set_some(names::TIMING_FIRST_BODY_BYTE_MS, timing.first_body_byte.map(millis));
}

/// Adds how it ended. By the conventions 4xx and 5xx are errors of a client span; an agent that went away is none.
pub(super) fn outcome(span: &mut Span, exchange: &Exchange, options: &SpanOptions) {
    let status = exchange.response.as_ref().map(|response| response.status);
    if let Some(status) = status.filter(|status| status.is_client_error() || status.is_server_error()) {
        span.status.status_code = StatusCode::Error;
        span.set(names::ERROR_TYPE, status.as_str());
    }
    span.set(names::OUTCOME, exchange.outcome.as_str());
    match &exchange.outcome {
        Outcome::Complete => {}
        Outcome::Aborted { by } => {
            span.set(names::ABORTED_BY, by.as_str());
            if *by != Side::Downstream {
                span.status.status_code = StatusCode::Error;
                span.set(names::ERROR_TYPE, "http_response_incomplete");
            }
        }
        Outcome::Failed { error } => {
            span.set(names::ERROR_TYPE, error.kind.as_str());
            let description = Some(options.redactor.text(&error.cause).into_owned());
            span.status = Status { status_code: StatusCode::Error, description };
        }
    }
}

/// Adds the header fields that the settings include, redacted.
pub(super) fn headers(span: &mut Span, prefix: &str, headers: &HeaderMap, options: &SpanOptions) {
    for name in headers.keys() {
        let text = name.as_str();
        let is_allowed = options.header_allow.is_empty() || any_name_matches(&options.header_allow, text);
        if !is_allowed || any_name_matches(&options.header_deny, text) {
            continue;
        }
        let values = headers.get_all(name).iter().map(|value| {
            let value = String::from_utf8_lossy(value.as_bytes());
            options.redactor.header_value(text, &value).into_owned()
        });
        span.set(&format!("{prefix}{text}"), values.collect::<Vec<_>>());
    }
}

fn version_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// The methods of RFC 9110, and PATCH.
const KNOWN_METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
