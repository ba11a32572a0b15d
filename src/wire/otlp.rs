//! OTLP spans as ours (opentelemetry-proto 1, trace.v1): ids in hexadecimal, attributes flat.
//!
//! Pure. What our model has no place for is written as JSON text; what is not a span is refused with the reason.

use crate::trace::span::{Event, Link, Resource, SpanContext};
use crate::trace::{Attributes, Span, SpanKind, Status, StatusCode, Timestamp, Value};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as otlp;
use prost::Message;
use serde_json::{Value as JsonValue, json};
use std::collections::BTreeMap;

/// What a span says of whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Its rollout.
    pub rollout: Option<String>,
    /// The attempt of that.
    pub attempt: Option<String>,
    /// Its place in the rollout.
    pub sequence_id: Option<u64>,
}

/// Reads a request; none of it is there, none is in it.
pub fn request(is_json: bool, body: &[u8]) -> Result<ExportTraceServiceRequest, String> {
    match is_json {
        _ if body.is_empty() => Ok(ExportTraceServiceRequest::default()),
        true => from_json(body).map_err(|error| error.to_string()),
        false => ExportTraceServiceRequest::decode(body).map_err(|error| error.to_string()),
    }
}

/// The spans of a request, each with what it says of whose it is, or why it is none.
pub fn spans(request: ExportTraceServiceRequest) -> Vec<Result<(Span, Named), &'static str>> {
    let mut spans = Vec::new();
    for of_resource in request.resource_spans {
        let attributes = of_resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let resource = resource(attributes, of_resource.schema_url);
        let all = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(all.map(|one| span(one, &resource)));
    }
    spans
}

/// A request in JSON. A span with an id that can't be read gets an empty one, and is refused for that: the others stay.
fn from_json(body: &[u8]) -> serde_json::Result<ExportTraceServiceRequest> {
    let strict = serde_json::from_slice(body);
    if strict.is_ok() {
        return strict;
    }
    let mut json: JsonValue = serde_json::from_slice(body)?;
    for of_resource in within(&mut json, "resourceSpans") {
        for scope in within(of_resource, "scopeSpans") {
            for span in within(scope, "spans") {
                for name in ["traceId", "spanId", "parentSpanId"] {
                    if let Some(JsonValue::String(id)) = span.get_mut(name)
                        && (id.len() % 2 == 1 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()))
                    {
                        // One byte is an id of no length that is allowed.
                        "ff".clone_into(id);
                    }
                }
            }
        }
    }
    serde_json::from_value(json)
}

/// The elements of a list in an object; none of anything else.
fn within<'a>(json: &'a mut JsonValue, name: &str) -> impl Iterator<Item = &'a mut JsonValue> {
    json.get_mut(name).and_then(JsonValue::as_array_mut).into_iter().flatten()
}

/// A span whose rollout, attempt and sequence id are still to be set, and what it says of them itself.
fn span(span: otlp::Span, resource: &Resource) -> Result<(Span, Named), &'static str> {
    let trace_id = hex::<16>(&span.trace_id).ok_or("the trace id is not 16 bytes, or all zero")?;
    let span_id = hex::<8>(&span.span_id).ok_or("the span id is not 8 bytes, or all zero")?;
    let parent_id = match span.parent_span_id.as_slice() {
        // All zero is how some exporters write that there is none.
        parent if parent.iter().all(|byte| *byte == 0) => None,
        parent => Some(hex::<8>(parent).ok_or("the parent span id is not 8 bytes")?),
    };
    let attributes = attributes(span.attributes);
    let word = |name: &str| {
        let value = attributes.get(name).or_else(|| resource.attributes.get(name))?;
        Some(match value {
            Value::String(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            other => serde_json::to_string(other).ok()?,
        })
    };
    let named = Named {
        rollout: word("agentlightning.rollout_id").filter(|id| !id.is_empty()),
        attempt: word("agentlightning.attempt_id").filter(|id| !id.is_empty()),
        sequence_id: word("agentlightning.span_sequence_id").and_then(|number| number.parse().ok()),
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
    Ok((span, named))
}

/// What produced spans.
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

/// W3C `tracestate`: `a=1,b=2`.
fn trace_state(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|pair| pair.trim().split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn attributes(list: Vec<KeyValue>) -> Attributes {
    list.into_iter().filter_map(|pair| Some((pair.key, value(pair.value?.value?)?))).collect()
}

/// A value in our model; none for a value that is nothing.
fn value(value: any_value::Value) -> Option<Value> {
    Some(match value {
        any_value::Value::StringValue(text) => Value::String(text),
        any_value::Value::BoolValue(truth) => Value::Bool(truth),
        any_value::Value::IntValue(number) => Value::Int(number),
        any_value::Value::DoubleValue(number) => Value::Float(number),
        any_value::Value::BytesValue(bytes) => Value::String(hex_of(&bytes)),
        any_value::Value::ArrayValue(list) => {
            let json = JsonValue::Array(list.values.into_iter().map(any_json).collect());
            // Lists of one sort have a place in our model.
            match serde_json::from_value::<Value>(json.clone()) {
                Ok(list) => list,
                Err(_) => Value::String(json.to_string()),
            }
        }
        any_value::Value::KvlistValue(map) => Value::String(map_json(map.values).to_string()),
        // Strings by their number belong to profiles.
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
        Some(any_value::Value::BytesValue(bytes)) => json!(hex_of(&bytes)),
        Some(any_value::Value::ArrayValue(list)) => JsonValue::Array(list.values.into_iter().map(any_json).collect()),
        Some(any_value::Value::KvlistValue(map)) => map_json(map.values),
    }
}

fn map_json(pairs: Vec<KeyValue>) -> JsonValue {
    JsonValue::Object(pairs.into_iter().map(|pair| (pair.key, pair.value.map_or(JsonValue::Null, any_json))).collect())
}

/// `N` bytes that are not all zero, in hexadecimal.
fn hex<const N: usize>(bytes: &[u8]) -> Option<String> {
    (bytes.len() == N && bytes.iter().any(|byte| *byte != 0)).then(|| hex_of(bytes))
}

fn hex_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
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
    fn values_find_their_place() {
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
    fn names_on_the_span_win_and_bad_ids_are_refused() {
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
        let (decoded, named) = span(of(16, 8, 0), &resource(names, String::new())).unwrap();
        assert_eq!(named, Named { rollout: Some("5".into()), attempt: Some("at-2".into()), sequence_id: None });
        assert_eq!((decoded.trace_id.as_str(), decoded.parent_id), ("01".repeat(16).as_str(), None));
        assert_eq!(decoded.context.unwrap().trace_state["b"], "2");
        assert_eq!((decoded.start_time, decoded.end_time), (Some(Timestamp::from_unix_nanos(5)), None));
        for (trace, id, parent) in [(15, 8, 0), (16, 0, 0), (16, 8, 7)] {
            assert!(span(of(trace, id, parent), &Resource::default()).is_err());
        }
    }
}
