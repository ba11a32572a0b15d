//! Our spans as OTLP: as protobuf, and as protobuf's JSON mapping.
//!
//! OTLP has no field for the rollout, the attempt and the sequence id. They are the attributes `agentlightning.*`, which
//! the decoder reads. Its ids are bytes: an id of another form becomes the start of its SHA-256, and the span has the
//! original as an attribute.

use super::decode::OtlpFormat;
use super::message::{
    Any, AnyValue, ArrayValue, Code, EventMessage, KeyValue, Kind, LinkMessage, Resource as ResourceMessage,
    ResourceSpans, Scope, ScopeSpans, SpanMessage, StatusMessage, TraceRequest,
};
use super::names;
use super::to_json::{JsonResource, JsonTraces};
use crate::trace::span::{Event, Link, Resource, SpanContext};
use crate::trace::{Attributes, IdBytes, Span, SpanKind, StatusCode, Timestamp, Value, semconv};
use prost::Message;
use std::collections::BTreeMap;

/// The spans as one `TracesData`, which is also an `ExportTraceServiceRequest`: a `ResourceSpans` for each resource.
pub(crate) fn encoded(format: OtlpFormat, spans: &[Span]) -> serde_json::Result<Vec<u8>> {
    let resources = by_resource(spans).into_iter();
    match format {
        OtlpFormat::Json => {
            let resources = resources.map(|(resource, spans)| json_resource(resource, &spans)).collect();
            serde_json::to_vec(&JsonTraces(resources))
        }
        OtlpFormat::Protobuf => {
            let resource_spans = resources.map(|(resource, spans)| resource_spans(resource, &spans)).collect();
            Ok(TraceRequest { resource_spans }.encode_to_vec())
        }
    }
}

fn json_resource<'a>(resource: &'a Resource, spans: &[&Span]) -> JsonResource<'a> {
    JsonResource {
        attributes: key_values(&resource.attributes),
        schema_url: &resource.schema_url,
        spans: spans.iter().map(|span| span_message(span)).collect(),
    }
}

fn resource_spans(resource: &Resource, spans: &[&Span]) -> ResourceSpans {
    ResourceSpans {
        resource: ResourceMessage { attributes: key_values(&resource.attributes) }.encode_to_vec(),
        scope_spans: vec![ScopeSpans {
            scope: Scope::ours().encode_to_vec(),
            spans: spans.iter().map(|span| span_message(span).encode_to_vec()).collect(),
        }],
        schema_url: resource.schema_url.clone().into_bytes(),
    }
}

/// The spans of each resource, both in the order in which they come.
fn by_resource(spans: &[Span]) -> Vec<(&Resource, Vec<&Span>)> {
    let mut resources: Vec<(&Resource, Vec<&Span>)> = Vec::new();
    for span in spans {
        // Most spans have the resource of the one before, and a rollout has few resources.
        match resources.iter_mut().rev().find(|(resource, _)| **resource == span.resource) {
            Some((_, list)) => list.push(span),
            None => resources.push((&span.resource, vec![span])),
        }
    }
    resources
}

fn span_message(span: &Span) -> SpanMessage {
    let (trace_id, span_id) = (IdBytes::<16>::of(&span.trace_id), IdBytes::<8>::of(&span.span_id));
    let parent_id = span.parent_id.as_deref().map(IdBytes::<8>::of);
    let mut attributes = Vec::with_capacity(span.attributes.len() + 3);
    attributes.extend(span.attributes.iter().filter(|(name, _)| !names::is_identity(name)).map(key_value));
    let mut add = |name: &str, value: Any| {
        attributes.push(KeyValue { key: name.into(), value: Some(AnyValue { value: Some(value) }) });
    };
    add(names::ROLLOUT_ID, Any::Text(span.rollout_id.as_str().into()));
    add(names::ATTEMPT_ID, Any::Text(span.attempt_id.as_str().into()));
    add(names::SEQUENCE_ID, Any::Int(i64::try_from(span.sequence_id).unwrap_or(i64::MAX)));
    let originals = [
        (names::ORIGINAL_TRACE_ID, trace_id.is_derived.then_some(&span.trace_id)),
        (names::ORIGINAL_SPAN_ID, span_id.is_derived.then_some(&span.span_id)),
        (
            names::ORIGINAL_PARENT_ID,
            span.parent_id.as_ref().filter(|_| parent_id.as_ref().is_some_and(|id| id.is_derived)),
        ),
    ];
    for (name, original) in originals {
        if let Some(original) = original {
            add(name, Any::Text(original.as_bytes().to_vec()));
        }
    }
    SpanMessage {
        trace_id: trace_id.bytes.to_vec(),
        span_id: span_id.bytes.to_vec(),
        trace_state: span.context.as_ref().map(|context| trace_state(&context.trace_state)).unwrap_or_default(),
        parent_span_id: parent_id.map(|id| id.bytes.to_vec()).unwrap_or_default(),
        name: span.name.clone().into_bytes(),
        kind: kind(span.kind) as i32,
        start_time_unix_nano: nanos(span.start_time),
        end_time_unix_nano: nanos(span.end_time),
        attributes,
        dropped_attributes_count: dropped(&span.attributes, semconv::SPAN_DROPPED_ATTRIBUTES),
        events: span.events.iter().map(event).collect(),
        dropped_events_count: dropped(&span.attributes, semconv::SPAN_DROPPED_EVENTS),
        links: span.links.iter().map(link).collect(),
        dropped_links_count: dropped(&span.attributes, semconv::SPAN_DROPPED_LINKS),
        status: Some(StatusMessage {
            message: span.status.description.clone().unwrap_or_default().into_bytes(),
            code: match span.status.status_code {
                StatusCode::Unset => Code::Unset,
                StatusCode::Ok => Code::Ok,
                StatusCode::Error => Code::Error,
            } as i32,
        }),
        flags: span.parent.as_ref().map_or(0, parent_flags),
    }
}

/// What the flags of a span say about its parent.
fn parent_flags(parent: &SpanContext) -> u32 {
    names::FLAG_IS_REMOTE_KNOWN | if parent.is_remote { names::FLAG_IS_REMOTE } else { 0 }
}

fn kind(kind: Option<SpanKind>) -> Kind {
    match kind {
        None => Kind::Unspecified,
        Some(SpanKind::Internal) => Kind::Internal,
        Some(SpanKind::Server) => Kind::Server,
        Some(SpanKind::Client) => Kind::Client,
        Some(SpanKind::Producer) => Kind::Producer,
        Some(SpanKind::Consumer) => Kind::Consumer,
    }
}

fn event(event: &Event) -> EventMessage {
    EventMessage {
        time_unix_nano: nanos(event.timestamp),
        name: event.name.clone().into_bytes(),
        attributes: key_values(&event.attributes),
        dropped_attributes_count: dropped(&event.attributes, semconv::DROPPED_ATTRIBUTES),
    }
}

fn link(link: &Link) -> LinkMessage {
    let of_link = |attributes| dropped(attributes, semconv::DROPPED_ATTRIBUTES);
    LinkMessage {
        trace_id: IdBytes::<16>::of(&link.context.trace_id).bytes.to_vec(),
        span_id: IdBytes::<8>::of(&link.context.span_id).bytes.to_vec(),
        trace_state: trace_state(&link.context.trace_state),
        attributes: link.attributes.as_ref().map(key_values).unwrap_or_default(),
        dropped_attributes_count: link.attributes.as_ref().map(of_link).unwrap_or_default(),
    }
}

/// A count that the limits of spans have left in an attribute.
fn dropped(attributes: &Attributes, name: &str) -> u32 {
    attributes.get(name).and_then(Value::as_int).and_then(|count| u32::try_from(count).ok()).unwrap_or_default()
}

/// Nanoseconds since the Unix epoch; OTLP writes an unknown time as 0.
fn nanos(time: Option<Timestamp>) -> u64 {
    time.map_or(0, |time| time.unix_nanos)
}

/// A W3C `tracestate` field.
fn trace_state(entries: &BTreeMap<String, String>) -> Vec<u8> {
    let entries: Vec<String> = entries.iter().map(|(name, value)| format!("{name}={value}")).collect();
    entries.join(",").into_bytes()
}

fn key_values(attributes: &Attributes) -> Vec<KeyValue> {
    attributes.iter().map(key_value).collect()
}

fn key_value((name, value): (&String, &Value)) -> KeyValue {
    KeyValue { key: name.clone().into_bytes(), value: Some(AnyValue { value: Some(any(value)) }) }
}

fn any(value: &Value) -> Any {
    match value {
        Value::Bool(truth) => Any::Bool(*truth),
        Value::Int(number) => Any::Int(*number),
        Value::Float(number) => Any::Double(*number),
        Value::String(text) => Any::Text(text.clone().into_bytes()),
        Value::Bools(list) => list_of(list, |truth| Any::Bool(*truth)),
        Value::Ints(list) => list_of(list, |number| Any::Int(*number)),
        Value::Floats(list) => list_of(list, |number| Any::Double(*number)),
        Value::Strings(list) => list_of(list, |text| Any::Text(text.clone().into_bytes())),
    }
}

fn list_of<T>(list: &[T], any: impl Fn(&T) -> Any) -> Any {
    Any::List(ArrayValue { values: list.iter().map(|element| AnyValue { value: Some(any(element)) }).collect() })
}
