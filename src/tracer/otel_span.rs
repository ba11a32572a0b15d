//! Spans of the OpenTelemetry SDK as ours.

use super::active_trace::ActiveTrace;
use super::baggage::Baggage;
use super::new_span::NewSpan;
use crate::trace::span::{Event, Link, SpanContext};
use crate::trace::{Attributes, Span, SpanId, SpanKind, Status, StatusCode, Value};
use opentelemetry::trace::{SpanKind as OtelSpanKind, Status as OtelStatus};
use opentelemetry::{Array, KeyValue, Value as OtelValue};
use opentelemetry_sdk::trace::SpanData;

/// A span of the SDK as one of `trace`, with its own id.
pub(super) fn converted(data: SpanData, parent: SpanId, trace: &ActiveTrace, baggage: &Baggage) -> Span {
    let kind = match data.span_kind {
        OtelSpanKind::Client => SpanKind::Client,
        OtelSpanKind::Server => SpanKind::Server,
        OtelSpanKind::Producer => SpanKind::Producer,
        OtelSpanKind::Consumer => SpanKind::Consumer,
        OtelSpanKind::Internal => SpanKind::Internal,
    };
    let status = match data.status {
        OtelStatus::Unset => Status::default(),
        OtelStatus::Ok => Status { status_code: StatusCode::Ok, description: None },
        OtelStatus::Error { description } => {
            Status { status_code: StatusCode::Error, description: Some(description.into_owned()) }
        }
    };
    let new = NewSpan::new(data.name.into_owned())
        .kind(kind)
        .attribute("otel.scope.name", data.instrumentation_scope.name())
        .attributes(attributes(data.attributes))
        .start_time(data.start_time.into());
    let id = SpanId(data.span_context.span_id().to_bytes());
    let mut span = trace.span(new, id, Some(parent), baggage);
    span.end_time = Some(data.end_time.into());
    span.status = status;
    span.events = data.events.events.into_iter().map(event).collect();
    span.links = data.links.links.into_iter().map(link).collect();
    span
}

fn event(event: opentelemetry::trace::Event) -> Event {
    Event {
        name: event.name.into_owned(),
        attributes: attributes(event.attributes),
        timestamp: Some(event.timestamp.into()),
    }
}

fn link(link: opentelemetry::trace::Link) -> Link {
    let context = SpanContext {
        trace_id: link.span_context.trace_id().to_string(),
        span_id: link.span_context.span_id().to_string(),
        is_remote: link.span_context.is_remote(),
        trace_state: std::collections::BTreeMap::default(),
    };
    Link { context, attributes: Some(attributes(link.attributes)) }
}

/// Attributes of the SDK.
pub(super) fn attributes(attributes: impl IntoIterator<Item = KeyValue>) -> Attributes {
    attributes.into_iter().map(|attribute| (attribute.key.to_string(), value(attribute.value))).collect()
}

fn value(value: OtelValue) -> Value {
    match value {
        OtelValue::Bool(value) => value.into(),
        OtelValue::I64(value) => value.into(),
        OtelValue::F64(value) => value.into(),
        OtelValue::String(value) => Value::String(value.into()),
        OtelValue::Array(Array::Bool(values)) => Value::Bools(values),
        OtelValue::Array(Array::I64(values)) => Value::Ints(values),
        OtelValue::Array(Array::F64(values)) => Value::Floats(values),
        OtelValue::Array(Array::String(values)) => Value::Strings(values.into_iter().map(Into::into).collect()),
        other => Value::String(other.to_string()),
    }
}
