//! OTLP spans in our model: ids in hexadecimal, attributes flat.
//!
//! Attribute values that our model has no type for become JSON text, and those that JSON has no number for (`NaN`,
//! infinity) the words of protobuf's JSON mapping.

use super::error::SpanDefect;
use super::message::{Any, AnyValue, Code, EventMessage, KeyValue, Kind, LinkMessage, SpanMessage, StatusMessage};
use super::names;
use crate::trace::span::{Event, Link, Resource, SpanContext};
use crate::trace::{Attributes, Span, SpanKind, Status, StatusCode, Timestamp, Value, semconv};
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

/// A span with what its attributes say about its rollout, or why it is rejected.
pub(crate) type DecodedSpan = Result<(Span, Attribution), SpanDefect>;

/// The span in our model.
pub(super) fn span(span: SpanMessage, resource: &Resource) -> DecodedSpan {
    let trace_id = hex::<16>(&span.trace_id).ok_or(SpanDefect::TraceId)?;
    let span_id = hex::<8>(&span.span_id).ok_or(SpanDefect::SpanId)?;
    let parent_id = match span.parent_span_id.as_slice() {
        // Some exporters write "no parent" as zeros.
        parent if parent.iter().all(|byte| *byte == 0) => None,
        parent => Some(hex::<8>(parent).ok_or(SpanDefect::ParentSpanId)?),
    };
    let mut attributes = attributes(span.attributes);
    for (name, count) in [
        (semconv::SPAN_DROPPED_ATTRIBUTES, span.dropped_attributes_count),
        (semconv::SPAN_DROPPED_EVENTS, span.dropped_events_count),
        (semconv::SPAN_DROPPED_LINKS, span.dropped_links_count),
    ] {
        add_dropped(&mut attributes, name, count);
    }
    let named = |name: &str| {
        let value = attributes.get(name).or_else(|| resource.attributes.get(name))?;
        Some(match value {
            Value::String(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            other => serde_json::to_string(other).ok()?,
        })
    };
    let attribution = Attribution {
        rollout: named(names::ROLLOUT_ID),
        attempt: named(names::ATTEMPT_ID),
        sequence_id: named(names::SEQUENCE_ID).and_then(|number| number.parse().ok()),
    };
    let context = |span_id: &String, is_remote| SpanContext {
        trace_id: trace_id.clone(),
        span_id: span_id.clone(),
        is_remote,
        trace_state: BTreeMap::default(),
    };
    let is_known = span.flags & names::FLAG_IS_REMOTE_KNOWN != 0;
    let parent = parent_id.as_ref().filter(|_| is_known);
    let parent = parent.map(|parent| context(parent, span.flags & names::FLAG_IS_REMOTE != 0));
    let context = SpanContext { trace_state: trace_state(span.trace_state), ..context(&span_id, false) };
    let span = Span {
        rollout_id: "".into(),
        attempt_id: "".into(),
        sequence_id: 0,
        trace_id,
        span_id,
        parent_id,
        name: text(span.name),
        kind: Some(match Kind::try_from(span.kind).unwrap_or_default() {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
            Kind::Internal | Kind::Unspecified => SpanKind::Internal,
        }),
        status: status(span.status),
        attributes,
        events: span.events.into_iter().map(event).collect(),
        links: span.links.into_iter().filter_map(link).collect(),
        start_time: time(span.start_time_unix_nano),
        end_time: time(span.end_time_unix_nano),
        context: Some(context),
        parent,
        resource: resource.clone(),
    };
    Ok((span, attribution))
}

/// Undoes what the encoder does to a span, once its rollout, attempt and sequence id are set: the attributes that have what
/// fields have too go, and ids that OTLP can't hold come back.
pub(crate) fn restore_identity(span: &mut Span) {
    let sequence_id = Value::from(span.sequence_id);
    let fields = [
        (names::ROLLOUT_ID, Value::from(span.rollout_id.as_str())),
        (names::ATTEMPT_ID, span.attempt_id.as_str().into()),
        (names::SEQUENCE_ID, sequence_id),
    ];
    for (name, value) in fields {
        if span.attributes.get(name) == Some(&value) {
            span.attributes.remove(name);
        }
    }
    let mut original = |name: &str| match span.attributes.remove(name) {
        Some(Value::String(id)) => Some(id),
        _ => None,
    };
    let (trace_id, span_id) = (original(names::ORIGINAL_TRACE_ID), original(names::ORIGINAL_SPAN_ID));
    let parent_id = original(names::ORIGINAL_PARENT_ID);
    if let Some(id) = trace_id {
        for context in span.context.iter_mut().chain(&mut span.parent) {
            context.trace_id.clone_from(&id);
        }
        span.trace_id = id;
    }
    if let Some(id) = span_id {
        span.context.iter_mut().for_each(|context| context.span_id.clone_from(&id));
        span.span_id = id;
    }
    if let Some(id) = parent_id {
        span.parent.iter_mut().for_each(|context| context.span_id.clone_from(&id));
        span.parent_id = Some(id);
    }
}

/// The resource in our model.
pub(super) fn resource(attributes_of: Vec<KeyValue>, schema_url: Vec<u8>) -> Resource {
    Resource { attributes: attributes(attributes_of), schema_url: text(schema_url) }
}

fn status(status: Option<StatusMessage>) -> Status {
    let Some(status) = status else { return Status::default() };
    let status_code = match Code::try_from(status.code).unwrap_or_default() {
        Code::Unset => StatusCode::Unset,
        Code::Ok => StatusCode::Ok,
        Code::Error => StatusCode::Error,
    };
    Status { status_code, description: Some(text(status.message)).filter(|message| !message.is_empty()) }
}

fn event(event: EventMessage) -> Event {
    let mut attributes = attributes(event.attributes);
    add_dropped(&mut attributes, semconv::DROPPED_ATTRIBUTES, event.dropped_attributes_count);
    Event { name: text(event.name), attributes, timestamp: time(event.time_unix_nano) }
}

fn link(link: LinkMessage) -> Option<Link> {
    let context = SpanContext {
        trace_id: hex::<16>(&link.trace_id)?,
        span_id: hex::<8>(&link.span_id)?,
        is_remote: false,
        trace_state: trace_state(link.trace_state),
    };
    let mut attributes = attributes(link.attributes);
    add_dropped(&mut attributes, semconv::DROPPED_ATTRIBUTES, link.dropped_attributes_count);
    Some(Link { context, attributes: Some(attributes) })
}

/// A count that OTLP has a field for, and our model an attribute.
fn add_dropped(attributes: &mut Attributes, name: &str, count: u32) {
    if count > 0 {
        attributes.insert(name.to_owned(), count.into());
    }
}

fn time(nanos: u64) -> Option<Timestamp> {
    (nanos > 0).then_some(Timestamp::from_unix_nanos(nanos))
}

/// The list members of a W3C `tracestate` field, such as `a=1,b=2`.
fn trace_state(field: Vec<u8>) -> BTreeMap<String, String> {
    let field = text(field);
    let pairs = field.split(',').filter_map(|pair| pair.trim().split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn attributes(list: Vec<KeyValue>) -> Attributes {
    list.into_iter().filter_map(|pair| Some((text(pair.key), value(pair.value?.value?)))).collect()
}

/// The value in our model.
fn value(value: Any) -> Value {
    match value {
        Any::Text(bytes) => Value::String(text(bytes)),
        Any::Bool(truth) => Value::Bool(truth),
        Any::Int(number) => Value::Int(number),
        Any::Double(number) if number.is_finite() => Value::Float(number),
        Any::Double(number) => Value::String(not_finite(number).to_owned()),
        Any::Bytes(bytes) => Value::String(const_hex::encode(&bytes)),
        Any::List(list) => {
            let json = JsonValue::Array(list.values.into_iter().map(any_json).collect());
            // Our model has lists of one type only.
            match serde_json::from_value::<Value>(json.clone()) {
                Ok(list) => list,
                Err(_) => Value::String(json.to_string()),
            }
        }
        Any::Map(map) => Value::String(map_json(map.values).to_string()),
    }
}

fn any_json(value: AnyValue) -> JsonValue {
    match value.value {
        None => JsonValue::Null,
        Some(Any::Text(bytes)) => json!(text(bytes)),
        Some(Any::Bool(truth)) => json!(truth),
        Some(Any::Int(number)) => json!(number),
        Some(Any::Double(number)) if number.is_finite() => json!(number),
        Some(Any::Double(number)) => json!(not_finite(number)),
        Some(Any::Bytes(bytes)) => json!(const_hex::encode(&bytes)),
        Some(Any::List(list)) => JsonValue::Array(list.values.into_iter().map(any_json).collect()),
        Some(Any::Map(map)) => map_json(map.values),
    }
}

fn map_json(pairs: Vec<KeyValue>) -> JsonValue {
    let pairs = pairs.into_iter().map(|pair| (text(pair.key), pair.value.map_or(JsonValue::Null, any_json)));
    JsonValue::Object(pairs.collect())
}

/// What protobuf's JSON mapping writes for a double that JSON has no number for.
pub(super) fn not_finite(number: f64) -> &'static str {
    match number {
        _ if number.is_nan() => "NaN",
        _ if number > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}

/// A text, with U+FFFD in place of what is not UTF-8.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// An id of `N` bytes in hexadecimal; `None` for another length or all zeros.
fn hex<const N: usize>(bytes: &[u8]) -> Option<String> {
    (bytes.len() == N && bytes.iter().any(|byte| *byte != 0)).then(|| const_hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::super::message::{ArrayValue, KeyValueList};
    use super::*;

    fn any(value: Any) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn pair(key: &str, value: Any) -> KeyValue {
        KeyValue { key: key.into(), value: Some(any(value)) }
    }

    fn list(values: Vec<Any>) -> Any {
        Any::List(ArrayValue { values: values.into_iter().map(any).collect() })
    }

    #[test]
    fn values_are_mapped() {
        let map = Any::Map(KeyValueList { values: vec![pair("k", Any::Int(1))] });
        for (given, expected) in [
            (Any::Int(7), Value::Int(7)),
            (Any::Text(b"caf\xe9".into()), "caf\u{fffd}".into()),
            (Any::Double(f64::NAN), "NaN".into()),
            (Any::Double(f64::NEG_INFINITY), "-Infinity".into()),
            (Any::Bytes(vec![0, 255]), "00ff".into()),
            (list(vec![Any::Int(1), Any::Int(2)]), Value::Ints(vec![1, 2])),
            (list(vec![Any::Int(1), Any::Double(2.5)]), Value::Floats(vec![1.0, 2.5])),
            (list(vec![Any::Double(1.5), Any::Double(f64::INFINITY)]), "[1.5,\"Infinity\"]".into()),
            (list(vec![Any::Int(1), Any::Text("a".into())]), "[1,\"a\"]".into()),
            (map, "{\"k\":1}".into()),
        ] {
            assert_eq!(value(given), expected);
        }
        assert!(attributes(vec![KeyValue { key: "nothing".into(), ..KeyValue::default() }]).is_empty());
    }

    #[test]
    fn attributes_of_the_span_win_and_bad_ids_are_rejected() {
        let of = |trace: usize, span: usize, parent: usize| SpanMessage {
            trace_id: vec![1; trace],
            span_id: vec![2; span],
            parent_span_id: vec![3; parent],
            attributes: vec![pair("agentlightning.attempt_id", Any::Text("at-2".into()))],
            trace_state: "a=1, b=2".into(),
            start_time_unix_nano: 5,
            ..SpanMessage::default()
        };
        let names = vec![
            pair("agentlightning.rollout_id", Any::Int(5)),
            pair("agentlightning.attempt_id", Any::Text("at-1".into())),
            pair("agentlightning.span_sequence_id", Any::Text("-3".into())),
        ];
        let (decoded, attribution) = span(of(16, 8, 0), &resource(names, Vec::new())).unwrap();
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
