//! OTLP spans (opentelemetry-proto 1, trace.v1) in our model: ids in hexadecimal, attributes flat.
//!
//! Pure. Attribute values that our model has no type for become JSON text. A span that breaks the protocol is rejected
//! with its reason, and the others of the request stay.

use crate::trace::span::{Event, Link, Resource, SpanContext};
use crate::trace::{Attributes, Span, SpanKind, Status, StatusCode, Timestamp, Value};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as otlp;
use prost::Message;
use serde_json::{Value as JsonValue, json};
use std::collections::BTreeMap;

/// The attribution that a span, or its resource, carries in `agentlightning.*` attributes. Each part may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attribution {
    /// `agentlightning.rollout_id`; never empty.
    pub rollout: Option<String>,
    /// `agentlightning.attempt_id`; never empty.
    pub attempt: Option<String>,
    /// `agentlightning.span_sequence_id`; `None` also when it is not a whole number.
    pub sequence_id: Option<u64>,
}

/// How an OTLP/HTTP body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtlpFormat {
    /// Binary protobuf.
    Protobuf,
    /// Protobuf's JSON mapping, with ids in hexadecimal.
    Json,
}

impl OtlpFormat {
    /// The format that a `Content-Type` names; `None` for any other type.
    pub(crate) fn of_content_type(content_type: &str) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/x-protobuf" => Some(Self::Protobuf),
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }

    /// The `Content-Type` of the format.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// Why a body is not an `ExportTraceServiceRequest`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OtlpError {
    /// The protobuf is damaged, or is another message.
    #[error(transparent)]
    Protobuf(#[from] prost::DecodeError),
    /// The JSON is damaged, or has another shape.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Why a span is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[expect(clippy::enum_variant_names, reason = "the names of the protocol's fields")]
pub(crate) enum SpanDefect {
    /// The protocol requires 16 bytes that are not all zero.
    #[error("the trace id is not 16 bytes, or all zero")]
    TraceId,
    /// The protocol requires 8 bytes that are not all zero.
    #[error("the span id is not 8 bytes, or all zero")]
    SpanId,
    /// The protocol requires 8 bytes, or none for a root span.
    #[error("the parent span id is not 8 bytes")]
    ParentSpanId,
}

/// Decodes a request. An empty body is a request without spans.
pub(crate) fn request(format: OtlpFormat, body: &[u8]) -> Result<ExportTraceServiceRequest, OtlpError> {
    match format {
        _ if body.is_empty() => Ok(ExportTraceServiceRequest::default()),
        OtlpFormat::Json => Ok(from_json(body)?),
        OtlpFormat::Protobuf => Ok(ExportTraceServiceRequest::decode(body)?),
    }
}

/// The spans of a request. Their rollout and attempt are empty, and their sequence id is 0, until the caller has assigned
/// them by the attribution.
pub(crate) fn spans(request: ExportTraceServiceRequest) -> Vec<Result<(Span, Attribution), SpanDefect>> {
    let mut spans = Vec::new();
    for resource_spans in request.resource_spans {
        let attributes = resource_spans.resource.map(|resource| resource.attributes).unwrap_or_default();
        let resource = resource(attributes, resource_spans.schema_url);
        let all = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(all.map(|one| span(one, &resource)));
    }
    spans
}

/// A request in JSON. An id that is not hexadecimal is replaced by one of an invalid length, so that only its span is
/// rejected.
fn from_json(body: &[u8]) -> serde_json::Result<ExportTraceServiceRequest> {
    let strict = serde_json::from_slice(body);
    if strict.is_ok() {
        return strict;
    }
    let mut json: JsonValue = serde_json::from_slice(body)?;
    for resource_spans in within(&mut json, "resourceSpans") {
        for scope in within(resource_spans, "scopeSpans") {
            for span in within(scope, "spans") {
                for name in ["traceId", "spanId", "parentSpanId"] {
                    if let Some(JsonValue::String(id)) = span.get_mut(name)
                        && (id.len() % 2 == 1 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()))
                    {
                        // One byte is an invalid length for every id.
                        "ff".clone_into(id);
                    }
                }
            }
        }
    }
    serde_json::from_value(json)
}

/// The elements of the list in a field; empty for anything else.
fn within<'a>(json: &'a mut JsonValue, name: &str) -> impl Iterator<Item = &'a mut JsonValue> {
    json.get_mut(name).and_then(JsonValue::as_array_mut).into_iter().flatten()
}

fn span(span: otlp::Span, resource: &Resource) -> Result<(Span, Attribution), SpanDefect> {
    let trace_id = hex::<16>(&span.trace_id).ok_or(SpanDefect::TraceId)?;
    let span_id = hex::<8>(&span.span_id).ok_or(SpanDefect::SpanId)?;
    let parent_id = match span.parent_span_id.as_slice() {
        // Some exporters write "no parent" as zeros.
        parent if parent.iter().all(|byte| *byte == 0) => None,
        parent => Some(hex::<8>(parent).ok_or(SpanDefect::ParentSpanId)?),
    };
    let attributes = attributes(span.attributes);
    let text = |name: &str| {
        let value = attributes.get(name).or_else(|| resource.attributes.get(name))?;
        Some(match value {
            Value::String(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            other => serde_json::to_string(other).ok()?,
        })
    };
    let attribution = Attribution {
        rollout: text("agentlightning.rollout_id").filter(|id| !id.is_empty()),
        attempt: text("agentlightning.attempt_id").filter(|id| !id.is_empty()),
        sequence_id: text("agentlightning.span_sequence_id").and_then(|number| number.parse().ok()),
    };
    let context = SpanContext {
        trace_id: trace_id.clone(),
        span_id: span_id.clone(),
        is_remote: false,
        trace_state: trace_state(&span.trace_state),
    };
    let span = Span {
        rollout_id: "".into(),
        attempt_id: "".into(),
        sequence_id: 0,
        trace_id,
        span_id,
        parent_id,
        name: span.name,
        kind: match otlp::span::SpanKind::try_from(span.kind).unwrap_or_default() {
            otlp::span::SpanKind::Server => SpanKind::Server,
            otlp::span::SpanKind::Client => SpanKind::Client,
            otlp::span::SpanKind::Producer => SpanKind::Producer,
            otlp::span::SpanKind::Consumer => SpanKind::Consumer,
            otlp::span::SpanKind::Internal | otlp::span::SpanKind::Unspecified => SpanKind::Internal,
        },
        status: status(span.status),
        attributes,
        events: span.events.into_iter().map(event).collect(),
        links: span.links.into_iter().filter_map(link).collect(),
        start_time: time(span.start_time_unix_nano),
        end_time: time(span.end_time_unix_nano),
        context: Some(context),
        parent: None,
        resource: resource.clone(),
    };
    Ok((span, attribution))
}

fn resource(attributes_of: Vec<KeyValue>, schema_url: String) -> Resource {
    Resource { attributes: attributes(attributes_of), schema_url }
}

fn status(status: Option<otlp::Status>) -> Status {
    let Some(status) = status else { return Status::default() };
    let status_code = match otlp::status::StatusCode::try_from(status.code).unwrap_or_default() {
        otlp::status::StatusCode::Unset => StatusCode::Unset,
        otlp::status::StatusCode::Ok => StatusCode::Ok,
        otlp::status::StatusCode::Error => StatusCode::Error,
    };
    Status { status_code, description: Some(status.message).filter(|message| !message.is_empty()) }
}

fn event(event: otlp::span::Event) -> Event {
    Event { name: event.name, attributes: attributes(event.attributes), timestamp: time(event.time_unix_nano) }
}

fn link(link: otlp::span::Link) -> Option<Link> {
    let context = SpanContext {
        trace_id: hex::<16>(&link.trace_id)?,
        span_id: hex::<8>(&link.span_id)?,
        is_remote: false,
        trace_state: trace_state(&link.trace_state),
    };
    Some(Link { context, attributes: Some(attributes(link.attributes)) })
}

fn time(nanos: u64) -> Option<Timestamp> {
    (nanos > 0).then_some(Timestamp::from_unix_nanos(nanos))
}

/// The list members of a W3C `tracestate` field, such as `a=1,b=2`.
fn trace_state(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|pair| pair.trim().split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn attributes(list: Vec<KeyValue>) -> Attributes {
    list.into_iter().filter_map(|pair| Some((pair.key, value(pair.value?.value?)?))).collect()
}

/// The value in our model; `None` for a value that is not set.
fn value(value: any_value::Value) -> Option<Value> {
    Some(match value {
        any_value::Value::StringValue(text) => Value::String(text),
        any_value::Value::BoolValue(truth) => Value::Bool(truth),
        any_value::Value::IntValue(number) => Value::Int(number),
        any_value::Value::DoubleValue(number) => Value::Float(number),
        any_value::Value::BytesValue(bytes) => Value::String(const_hex::encode(&bytes)),
        any_value::Value::ArrayValue(list) => {
            let json = JsonValue::Array(list.values.into_iter().map(any_json).collect());
            // Our model has lists of one type only.
            match serde_json::from_value::<Value>(json.clone()) {
                Ok(list) => list,
                Err(_) => Value::String(json.to_string()),
            }
        }
        any_value::Value::KvlistValue(map) => Value::String(map_json(map.values).to_string()),
        // References into a string table occur in profiles only.
        any_value::Value::StringValueStrindex(_) => return None,
    })
}

fn any_json(value: AnyValue) -> JsonValue {
    match value.value {
        None | Some(any_value::Value::StringValueStrindex(_)) => JsonValue::Null,
        Some(any_value::Value::StringValue(text)) => json!(text),
        Some(any_value::Value::BoolValue(truth)) => json!(truth),
        Some(any_value::Value::IntValue(number)) => json!(number),
        Some(any_value::Value::DoubleValue(number)) => json!(number),
        Some(any_value::Value::BytesValue(bytes)) => json!(const_hex::encode(&bytes)),
        Some(any_value::Value::ArrayValue(list)) => JsonValue::Array(list.values.into_iter().map(any_json).collect()),
        Some(any_value::Value::KvlistValue(map)) => map_json(map.values),
    }
}

fn map_json(pairs: Vec<KeyValue>) -> JsonValue {
    JsonValue::Object(pairs.into_iter().map(|pair| (pair.key, pair.value.map_or(JsonValue::Null, any_json))).collect())
}

/// An id of `N` bytes in hexadecimal; `None` for another length or all zeros.
fn hex<const N: usize>(bytes: &[u8]) -> Option<String> {
    (bytes.len() == N && bytes.iter().any(|byte| *byte != 0)).then(|| const_hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use any_value::Value as Any;
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};

    fn any(value: Any) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn pair(key: &str, value: Any) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
    }

    fn list(values: Vec<Any>) -> Any {
        Any::ArrayValue(ArrayValue { values: values.into_iter().map(any).collect() })
    }

    #[test]
    fn values_are_mapped() {
        let map = Any::KvlistValue(KeyValueList { values: vec![pair("k", Any::IntValue(1))] });
        for (given, expected) in [
            (Any::IntValue(7), Some(Value::Int(7))),
            (Any::BytesValue(vec![0, 255]), Some("00ff".into())),
            (list(vec![Any::IntValue(1), Any::IntValue(2)]), Some(Value::Ints(vec![1, 2]))),
            (list(vec![Any::IntValue(1), Any::DoubleValue(2.5)]), Some(Value::Floats(vec![1.0, 2.5]))),
            (list(vec![Any::IntValue(1), Any::StringValue("a".into())]), Some("[1,\"a\"]".into())),
            (map, Some("{\"k\":1}".into())),
            (Any::StringValueStrindex(1), None),
        ] {
            assert_eq!(value(given), expected);
        }
        assert!(attributes(vec![KeyValue { key: "nothing".to_owned(), ..KeyValue::default() }]).is_empty());
    }

    #[test]
    fn attributes_of_the_span_win_and_bad_ids_are_rejected() {
        let of = |trace: usize, span: usize, parent: usize| otlp::Span {
            trace_id: vec![1; trace],
            span_id: vec![2; span],
            parent_span_id: vec![3; parent],
            attributes: vec![pair("agentlightning.attempt_id", Any::StringValue("at-2".into()))],
            trace_state: "a=1, b=2".to_owned(),
            start_time_unix_nano: 5,
            ..otlp::Span::default()
        };
        let names = vec![
            pair("agentlightning.rollout_id", Any::IntValue(5)),
            pair("agentlightning.attempt_id", Any::StringValue("at-1".into())),
            pair("agentlightning.span_sequence_id", Any::StringValue("-3".into())),
        ];
        let (decoded, attribution) = span(of(16, 8, 0), &resource(names, String::new())).unwrap();
        assert_eq!(
            attribution,
            Attribution { rollout: Some("5".into()), attempt: Some("at-2".into()), sequence_id: None }
        );
        assert_eq!((decoded.trace_id.as_str(), decoded.parent_id), ("01".repeat(16).as_str(), None));
        assert_eq!(decoded.context.unwrap().trace_state["b"], "2");
        assert_eq!((decoded.start_time, decoded.end_time), (Some(Timestamp::from_unix_nanos(5)), None));
        for (trace, id, parent) in [(15, 8, 0), (16, 0, 0), (16, 8, 7)] {
            assert!(span(of(trace, id, parent), &Resource::default()).is_err());
        }
    }
}
