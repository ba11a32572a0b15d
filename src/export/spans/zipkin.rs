//! Zipkin's JSON, version 2: a list of spans. Tags are texts, and events are annotations without attributes of their own.

use super::format::{Framing, RecordedRollout, SpanFormat};
use super::span_facts::{Times, micros, remote_kind, service, value_text};
use super::tree::SpanTree;
use crate::trace::semconv as names;
use crate::trace::span::Event;
use crate::trace::{IdBytes, Span, StatusCode, Value};
use serde_json::{Map, Value as JsonValue, json};
use std::net::IpAddr;

/// `--format zipkin`
pub(super) struct Zipkin;

impl SpanFormat for Zipkin {
    fn name(&self) -> &'static str {
        "zipkin"
    }

    fn media_type(&self) -> &'static str {
        "application/json"
    }

    fn framing(&self) -> Framing {
        Framing { start: "[", separator: ",\n", end: "]\n" }
    }

    fn encoded(&self, recorded: &RecordedRollout) -> serde_json::Result<Vec<u8>> {
        let spans = &recorded.spans;
        let (tree, times) = (SpanTree::of(spans), Times::of_all(spans));
        let mut out = Vec::new();
        for (at, span) in spans.iter().enumerate() {
            if at > 0 {
                out.extend_from_slice(b",\n");
            }
            serde_json::to_writer(&mut out, &span_json(span, times[at], tree.is_cut(at)))?;
        }
        Ok(out)
    }
}

fn span_json(span: &Span, times: Times, is_cut: bool) -> JsonValue {
    let mut json = Map::new();
    let mut set = |name: &str, value: JsonValue| drop(json.insert(name.to_owned(), value));
    set("traceId", IdBytes::<16>::of(&span.trace_id).hex().into());
    set("id", IdBytes::<8>::of(&span.span_id).hex().into());
    if let Some(parent) = span.parent_id.as_deref().filter(|_| !is_cut) {
        set("parentId", IdBytes::<8>::of(parent).hex().into());
    }
    set("name", span.name.as_str().into());
    if let Some(kind) = remote_kind(span) {
        set("kind", kind.to_uppercase().into());
    }
    if times.are_known {
        set("timestamp", times.start_micros().into());
        // Zipkin reads 0 as unknown.
        set("duration", times.duration_micros().max(1).into());
    } else if span.start_time.is_some() {
        set("timestamp", times.start_micros().into());
    }
    set("localEndpoint", json!({ "serviceName": service(span) }));
    if let Some(endpoint) = remote_endpoint(span) {
        set("remoteEndpoint", endpoint);
    }
    let annotations: Vec<JsonValue> = span.events.iter().map(|event| annotation(event, times)).collect();
    if !annotations.is_empty() {
        set("annotations", annotations.into());
    }
    set("tags", tags(span).into());
    JsonValue::Object(json)
}

/// The server that a request went to.
fn remote_endpoint(span: &Span) -> Option<JsonValue> {
    let text = |name: &str| span.attributes.get(name).and_then(Value::as_str);
    let mut endpoint = json!({ "serviceName": text(names::SERVER_ADDRESS)? });
    if let Some(address) = text(names::NETWORK_PEER_ADDRESS).and_then(|address| address.parse::<IpAddr>().ok()) {
        let name = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        endpoint[name] = address.to_string().into();
    }
    if let Some(port) = span.attributes.get(names::SERVER_PORT).and_then(Value::as_int) {
        endpoint["port"] = port.into();
    }
    Some(endpoint)
}

fn annotation(event: &Event, times: Times) -> JsonValue {
    let attributes = serde_json::to_string(&event.attributes).unwrap_or_default();
    let value = if event.attributes.is_empty() { event.name.clone() } else { format!("{}: {attributes}", event.name) };
    json!({ "timestamp": micros(event.timestamp.unwrap_or(times.start)), "value": value })
}

fn tags(span: &Span) -> Map<String, JsonValue> {
    let mut tags: Map<String, JsonValue> =
        span.attributes.iter().map(|(name, value)| (name.clone(), value_text(value).into())).collect();
    let mut add = |name: &str, value: &str| drop(tags.insert(name.to_owned(), value.into()));
    add("agentlightning.rollout_id", span.rollout_id.as_str());
    add("agentlightning.attempt_id", span.attempt_id.as_str());
    add("agentlightning.span_sequence_id", &span.sequence_id.to_string());
    match span.status.status_code {
        StatusCode::Unset => {}
        StatusCode::Ok => add("otel.status_code", "OK"),
        StatusCode::Error => {
            add("otel.status_code", "ERROR");
            add("error", span.status.description.as_deref().unwrap_or("true"));
        }
    }
    tags
}
