//! Jaeger's JSON: what its API returns, and single traces. Tags that OpenTelemetry's mapping made become fields again.
//!
//! Spans that name no rollout are in one with the id of their trace.

use super::imported::{ImportError, Imported};
use crate::trace::span::{Event, Link, Resource, SpanContext};
use crate::trace::{AttemptId, Attributes, Span, SpanKind, Status, StatusCode, Timestamp, Value};
use serde_json::Value as JsonValue;
use std::collections::BTreeMap;

/// Reads an answer of the API, a trace, or a list of traces.
pub(super) fn read(value: &JsonValue) -> Result<Imported, ImportError> {
    let traces = value.get("data").unwrap_or(value);
    let traces = traces.as_array().map_or_else(|| std::slice::from_ref(traces), Vec::as_slice);
    let mut imported = Imported::default();
    for trace in traces {
        let spans = trace["spans"].as_array().ok_or(ImportError::Shape("a trace of Jaeger's has no list of spans"))?;
        for (at, json) in spans.iter().enumerate() {
            match span(json, &trace["processes"], at) {
                Some(span) => imported.spans.push(span),
                None => imported.leave_out("a span without an id, or without the id of its trace"),
            }
        }
    }
    Ok(imported)
}

fn span(json: &JsonValue, processes: &JsonValue, at: usize) -> Option<Span> {
    let id = |name: &str| json[name].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
    let (trace_id, span_id) = (id("traceID")?, id("spanID")?);
    let mut attributes = tags(&json["tags"]);
    let mut take = |name: &str| attributes.remove(name);
    let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned));
    let rollout = text(take("agentlightning.rollout_id")).unwrap_or_else(|| trace_id.clone());
    let attempt = text(take("agentlightning.attempt_id"));
    let sequence_id = take("agentlightning.span_sequence_id").and_then(|value| u64::try_from(value.as_int()?).ok());
    let kind = text(take("span.kind"));
    let status_code = match text(take("otel.status_code")).as_deref() {
        Some("OK") => StatusCode::Ok,
        Some("ERROR") => StatusCode::Error,
        // Tracers of Jaeger's own have only this tag.
        _ if attributes.get("error") == Some(&Value::Bool(true)) => StatusCode::Error,
        _ => StatusCode::Unset,
    };
    if status_code == StatusCode::Error {
        attributes.remove("error");
    }
    let description = text(attributes.remove("otel.status_description"));
    let start = json["startTime"].as_u64().map(from_micros);
    let end = start.zip(json["duration"].as_u64());
    let end = end.map(|(start, micros)| {
        Timestamp::from_unix_nanos(start.unix_nanos.saturating_add(micros.saturating_mul(1000)))
    });
    let (parent_id, links) = references(json, &trace_id);
    let process = json["processID"].as_str().and_then(|process| processes.get(process)).unwrap_or(&json["process"]);
    let mut resource = Resource { attributes: tags(&process["tags"]), ..Resource::default() };
    if let Some(service) = process["serviceName"].as_str() {
        resource.attributes.insert("service.name".to_owned(), service.into());
    }
    let rollout_id = rollout.as_str().into();
    Some(Span {
        attempt_id: attempt.map_or_else(|| AttemptId::default_of(&rollout_id), |attempt| attempt.as_str().into()),
        rollout_id,
        sequence_id: sequence_id.unwrap_or(at as u64 + 1),
        context: Some(context(&trace_id, &span_id)),
        parent: None,
        trace_id,
        span_id,
        parent_id,
        name: json["operationName"].as_str().unwrap_or_default().to_owned(),
        kind: Some(match kind.as_deref() {
            Some("server") => SpanKind::Server,
            Some("client") => SpanKind::Client,
            Some("producer") => SpanKind::Producer,
            Some("consumer") => SpanKind::Consumer,
            _ => SpanKind::Internal,
        }),
        status: Status { status_code, description },
        attributes,
        events: json["logs"].as_array().into_iter().flatten().map(event).collect(),
        links,
        start_time: start,
        end_time: end,
        resource,
    })
}

fn context(trace_id: &str, span_id: &str) -> SpanContext {
    let (trace_id, span_id) = (trace_id.to_owned(), span_id.to_owned());
    SpanContext { trace_id, span_id, is_remote: false, trace_state: BTreeMap::default() }
}

fn from_micros(micros: u64) -> Timestamp {
    Timestamp::from_unix_nanos(micros.saturating_mul(1000))
}

/// The parent, and the references to other spans.
fn references(json: &JsonValue, trace_id: &str) -> (Option<String>, Vec<Link>) {
    let mut parent = json["parentSpanID"].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
    let mut links = Vec::new();
    for reference in json["references"].as_array().into_iter().flatten() {
        let (Some(trace), Some(span)) = (reference["traceID"].as_str(), reference["spanID"].as_str()) else { continue };
        let is_parent = reference["refType"] == "CHILD_OF" && trace == trace_id;
        if is_parent && parent.as_deref().is_none_or(|parent| parent == span) {
            parent = Some(span.to_owned());
        } else {
            links.push(Link { context: context(trace, span), attributes: Some(Attributes::new()) });
        }
    }
    (parent, links)
}

fn event(log: &JsonValue) -> Event {
    let mut attributes = tags(&log["fields"]);
    let name = attributes.remove("event").map(|name| match name {
        Value::String(name) => name,
        other => serde_json::to_string(&other).unwrap_or_default(),
    });
    let timestamp = log["timestamp"].as_u64().map(from_micros);
    Event { name: name.unwrap_or_else(|| "log".to_owned()), attributes, timestamp }
}

/// Tags as attributes. Of several with a name, the last one counts.
fn tags(list: &JsonValue) -> Attributes {
    let tag = |tag: &JsonValue| Some((tag["key"].as_str()?.to_owned(), value(&tag["value"], tag["type"].as_str())?));
    list.as_array().into_iter().flatten().filter_map(tag).collect()
}

fn value(value: &JsonValue, kind: Option<&str>) -> Option<Value> {
    match (value, kind) {
        // Larger than what JavaScript has numbers for.
        (JsonValue::String(text), Some("int64")) => {
            Some(text.parse().map_or_else(|_| text.as_str().into(), Value::Int))
        }
        (JsonValue::Number(number), Some("float64")) => number.as_f64().map(Value::Float),
        (JsonValue::Null, _) => None,
        (JsonValue::Array(_) | JsonValue::Object(_), _) => Some(value.to_string().into()),
        _ => serde_json::from_value(value.clone()).ok(),
    }
}
