//! An exchange becomes a span: a pure function, and the last place that sees what was not redacted.
//!
//! OpenTelemetry's HTTP conventions for a CLIENT span (v1.44.0); what they have no name for is `tracewire.*`.

use super::messages::{Contents, messages};
use super::relations::Relations;
use super::socket;
use super::{absorb, calls, gateway};
use crate::capture::{Calls, Engines, TokenUsageTracker, is_trace_export};
use crate::error::Side;
use crate::llm::token_ids::TokenIdIssue;
use crate::trace::exchange::{Body, ConnectPolicy, Exchange, ExchangeKind, Outcome};
use crate::trace::semconv as names;
use crate::trace::span::{Resource, SpanContext};
use crate::trace::{Span, SpanKind, Status, StatusCode, Value};
use crate::util::glob::any_name_matches;
use crate::wire::encoding::{Decoded, decode};
use crate::wire::redact::Redactor;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Version, header};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::string::FromUtf8Error;
use std::time::Duration;

/// What goes into a span.
#[derive(Clone, Debug, Default)]
pub struct SpanOptions {
    /// Header fields.
    pub include_headers: bool,
    /// Bodies.
    pub include_bodies: bool,
    /// Messages and token ids of calls.
    pub llm_content: bool,
    /// The most of a decoded body.
    pub max_body_bytes: usize,
    /// Fields to include; empty: all.
    pub header_allow: Vec<String>,
    /// Fields never to include.
    pub header_deny: Vec<String>,
    /// Takes the spans of exports in.
    pub absorb: bool,
    /// Takes secrets out.
    pub redactor: Redactor,
    /// Takes note of the calls that were recorded.
    pub calls: Calls,
    /// Takes note of the engines that give themselves away.
    pub engines: Engines,
    /// Takes note of the tokens that rollouts take.
    pub spent: TokenUsageTracker,
}

/// What an exchange became.
pub struct Built {
    /// Its span.
    pub span: Span,
    /// Spans of what it shows besides: tools whose results it brought, calls that passed over its socket.
    pub inferred: Vec<Span>,
    /// What speaks against the token ids of its calls.
    pub unproved: Vec<BTreeSet<TokenIdIssue>>,
}

/// The span of an exchange; what was kept of its bodies is taken out of it.
pub fn span_of(exchange: &mut Exchange, relations: &mut Relations, options: &SpanOptions) -> Built {
    let mut built = Built { span: bare(exchange), inferred: Vec::new(), unproved: Vec::new() };
    let span = &mut built.span;
    request(span, exchange, options);
    connection(span, exchange);
    timing(span, exchange);
    outcome(span, exchange, options);
    gateway::describe(span, exchange, |text| options.redactor.url(text).into_owned());
    if options.include_headers {
        headers(span, names::REQUEST_HEADER_PREFIX, &exchange.request.headers, options);
        if let Some(response) = &exchange.response {
            headers(span, names::RESPONSE_HEADER_PREFIX, &response.headers, options);
        }
        for (prefix, body) in [
            (names::REQUEST_TRAILER_PREFIX, &exchange.request_body),
            (names::RESPONSE_TRAILER_PREFIX, &exchange.response_body),
        ] {
            if let Some(trailers) = &body.trailers {
                headers(span, prefix, trailers, options);
            }
        }
    }
    if exchange.kind == ExchangeKind::Upgrade {
        let contents = Contents::of(exchange, options);
        messages(span, exchange, &contents, options);
        for mut call in socket::calls(exchange, &contents) {
            let mut below = bare(&call);
            server(&mut below, &call);
            outcome(&mut below, &call, options);
            let asked = opened(&mut call.request_body, &HeaderMap::new(), options);
            let said = opened(&mut call.response_body, &HeaderMap::new(), options);
            if let Some((tools, unproved)) = calls::read_into(&mut below, &call, (&asked, &said), relations, options) {
                built.inferred.push(below);
                built.inferred.extend(tools);
                built.unproved.extend(unproved);
            }
        }
        return built;
    }
    let none = HeaderMap::new();
    let asked = opened(&mut exchange.request_body, &exchange.request.headers, options);
    let said_fields = exchange.response.as_ref().map_or(&none, |response| &response.headers);
    let said = opened(&mut exchange.response_body, said_fields, options);
    if options.absorb && is_trace_export(&exchange.request.method, &exchange.request.target) {
        built.inferred = absorb::spans(span, exchange, &asked.bytes, options);
    } else if exchange.kind == ExchangeKind::Http && !is_part_of_a_call(exchange) {
        let found = calls::read_into(span, exchange, (&asked, &said), relations, options);
        (built.inferred, built.unproved) = found.unwrap_or_default();
    }
    if options.include_bodies || exchange.keeps_bodies {
        let target = &exchange.request.target;
        let attributes = (names::HTTP_REQUEST_BODY_CONTENT, names::REQUEST_BODY_BASE64);
        body(span, attributes, asked, &exchange.request_body, &exchange.request.headers, target, options);
        let attributes = (names::HTTP_RESPONSE_BODY_CONTENT, names::RESPONSE_BODY_BASE64);
        body(span, attributes, said, &exchange.response_body, said_fields, target, options);
    }
    built
}

/// A failed try of a call, or a retry that got another's answer: the call is on another span.
fn is_part_of_a_call(exchange: &Exchange) -> bool {
    exchange.gateway.as_ref().is_some_and(|facts| facts.is_failed_try || facts.joined.is_some())
}

fn bare(exchange: &Exchange) -> Span {
    let (identity, trace) = (&exchange.identity, &exchange.trace);
    let context = |span_id: String, is_remote| SpanContext {
        trace_id: trace.trace_id.to_string(),
        span_id,
        is_remote,
        trace_state: BTreeMap::default(),
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
            // By its method alone it could be taken for a CONNECT of a proxy.
            ExchangeKind::Upgrade => "WEBSOCKET".to_owned(),
            _ if known => exchange.request.method.to_string(),
            _ => "HTTP".to_owned(),
        },
        kind: SpanKind::Client,
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

fn request(span: &mut Span, exchange: &Exchange, options: &SpanOptions) {
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
    let agent = request.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    span.set_some(names::USER_AGENT_ORIGINAL, agent.map(|agent| options.redactor.text(agent).into_owned()));
    span.set(names::HTTP_REQUEST_BODY_SIZE, exchange.request_body.size_bytes);
    span.set(names::HTTP_RESPONSE_BODY_SIZE, exchange.response_body.size_bytes);
    span.set_some(names::CAPTURE_REQUEST_TRUNCATED, exchange.request_body.truncated.map(|why| why.as_str()));
    span.set_some(names::CAPTURE_RESPONSE_TRUNCATED, exchange.response_body.truncated.map(|why| why.as_str()));
    span.set(names::IDENTITY_SOURCE, exchange.identity.source.as_str());
    span.set_some(names::IDENTITY_CONFLICT, exchange.identity.conflict.clone());
    if let ExchangeKind::Connect(policy) = exchange.kind {
        span.set(names::CONNECT_POLICY, policy_word(policy));
    }
    if exchange.response_body.frames > 0 {
        span.set(names::RESPONSE_FRAMES, exchange.response_body.frames);
    }
    if !exchange.informational.is_empty() {
        let statuses = exchange.informational.iter().map(|status| i64::from(*status)).collect();
        span.attributes.insert(names::RESPONSE_INFORMATIONAL.to_owned(), Value::Ints(statuses));
    }
}

fn server(span: &mut Span, exchange: &Exchange) {
    span.set(names::SERVER_ADDRESS, exchange.request.host.clone());
    span.set(names::SERVER_PORT, exchange.request.port);
}

fn connection(span: &mut Span, exchange: &Exchange) {
    let facts = &exchange.connection;
    if let Some(client) = facts.client {
        span.set(names::CLIENT_ADDRESS, client.ip().to_string());
        span.set(names::CLIENT_PORT, client.port());
    }
    span.set(names::CONNECTION_ID, facts.downstream_id);
    span.set(names::DOWNSTREAM_PROTOCOL_VERSION, version_word(exchange.request.version));
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
        span.set(names::NETWORK_PROTOCOL_VERSION, version_word(response.version));
    }
}

fn timing(span: &mut Span, exchange: &Exchange) {
    let timing = &exchange.timing;
    let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
    span.set_some(names::TIMING_CONNECT_MS, timing.connect.map(millis));
    span.set_some(names::TIMING_TLS_MS, timing.tls.map(millis));
    span.set_some(names::TIMING_RESPONSE_HEADERS_MS, timing.response_headers.map(millis));
    span.set_some(names::TIMING_FIRST_BODY_BYTE_MS, timing.first_body_byte.map(millis));
}

/// Status by the conventions: 4xx and 5xx are errors of a client span, an agent that hung up on purpose is none.
fn outcome(span: &mut Span, exchange: &Exchange, options: &SpanOptions) {
    let status = exchange.response.as_ref().map(|response| response.status);
    if let Some(status) = status.filter(|status| status.is_client_error() || status.is_server_error()) {
        span.status.status_code = StatusCode::Error;
        span.set(names::ERROR_TYPE, status.as_str());
    }
    match &exchange.outcome {
        Outcome::Complete => span.set(names::OUTCOME, "complete"),
        Outcome::Aborted { by } => {
            span.set(names::OUTCOME, "aborted");
            span.set(names::ABORTED_BY, by.as_str());
            if *by != Side::Downstream {
                span.status.status_code = StatusCode::Error;
                span.set(names::ERROR_TYPE, "http_response_incomplete");
            }
        }
        Outcome::Failed { error } => {
            span.set(names::OUTCOME, "failed");
            span.set(names::ERROR_TYPE, error.kind.as_str());
            let description = Some(options.redactor.text(&error.cause).into_owned());
            span.status = Status { status_code: StatusCode::Error, description };
        }
    }
}

fn headers(span: &mut Span, prefix: &str, headers: &HeaderMap, options: &SpanOptions) {
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

/// A body without its content coding.
fn opened(body: &mut Body, headers: &HeaderMap, options: &SpanOptions) -> Decoded {
    let coding = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    decode(coding, std::mem::take(&mut body.kept).into_bytes(), options.max_body_bytes)
}

fn body(
    span: &mut Span,
    (text_name, binary_name): (&str, &str),
    decoded: Decoded,
    body: &Body,
    headers: &HeaderMap,
    target: &str,
    options: &SpanOptions,
) {
    if decoded.bytes.is_empty() {
        return;
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if let Some(error) = decoded.error.as_ref().filter(|_| body.truncated.is_none()) {
        span.set(names::CAPTURE_UNDECODED, error.to_string());
    }
    // An undecodable body is opaque: neither text nor searchable for secrets, and so nobody's to read as text.
    let opaque = matches!(decoded.error, Some(crate::wire::encoding::DecodeError::Unknown(_)));
    let text = if opaque { Err(decoded.bytes) } else { textual(content_type, decoded.bytes) };
    match text {
        Ok(text) => {
            let redacted = match options.redactor.body(content_type, target, &text) {
                Cow::Owned(redacted) => Some(redacted),
                Cow::Borrowed(_) => None,
            };
            span.set(text_name, redacted.unwrap_or(text));
        }
        Err(bytes) => span.set(binary_name, STANDARD.encode(bytes)),
    }
}

/// Bytes that are text are text whatever their type says, so that secrets in them are found; a text type with bytes
/// that aren't all text is shown with replacement characters.
fn textual(content_type: Option<&str>, bytes: Vec<u8>) -> Result<String, Vec<u8>> {
    let error = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let cut = error.utf8_error();
    let mut bytes = error.into_bytes();
    if cut.error_len().is_none() {
        bytes.truncate(cut.valid_up_to());
        return String::from_utf8(bytes).map_err(FromUtf8Error::into_bytes);
    }
    let lower = content_type.unwrap_or_default().to_ascii_lowercase();
    let kind = lower.split(';').next().unwrap_or_default().trim();
    let is_text = kind.starts_with("text/")
        || lower.contains("charset=")
        || ["json", "xml", "yaml", "x-ndjson", "x-www-form-urlencoded"].iter().any(|end| kind.ends_with(end));
    if is_text { Ok(String::from_utf8_lossy(whole_characters(&bytes)).into_owned()) } else { Err(bytes) }
}

/// `bytes` without a character that a cut left unfinished at the end.
pub(super) fn whole_characters(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    }
}

fn policy_word(policy: ConnectPolicy) -> &'static str {
    match policy {
        ConnectPolicy::Intercept => "intercept",
        ConnectPolicy::Tunnel => "tunnel",
        ConnectPolicy::Reject => "reject",
    }
}

fn version_word(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// RFC 9110's, and PATCH.
const KNOWN_METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
