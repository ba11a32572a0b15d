//! Jaeger's JSON, as its UI loads it from a file: an object for each trace, with its spans and their processes.
//!
//! Kinds, statuses, links and events are written as OpenTelemetry's mapping to Jaeger has them. Times are rounded down to
//! microseconds. The UI drops spans in a cycle of parents, so the first span of a cycle has no parent here.

use super::format::{Framing, RecordedRollout, SpanFormat};
use super::span_facts::{Times, micros, remote_kind, service, value_text};
use super::tree::SpanTree;
use crate::trace::span::Event;
use crate::trace::{IdBytes, Span, StatusCode, Value};
use serde_json::{Map, Value as JsonValue, json};
use std::collections::BTreeMap;

/// `--format jaeger`
pub(super) struct Jaeger;

impl SpanFormat for Jaeger {
    fn name(&self) -> &'static str {
        "jaeger"
    }

    fn media_type(&self) -> &'static str {
        "application/json"
    }

    fn framing(&self) -> Framing {
        Framing {
            start: "{\"data\":[",
            separator: ",\n",
            end: "],\"total\":0,\"limit\":0,\"offset\":0,\"errors\":null}\n",
        }
    }

    fn encoded(&self, recorded: &RecordedRollout) -> serde_json::Result<Vec<u8>> {
        let spans = &recorded.spans;
        let (tree, times) = (SpanTree::of(spans), Times::of_all(spans));
        let mut traces: BTreeMap<String, Trace<'_>> = BTreeMap::new();
        for (at, span) in spans.iter().enumerate() {
            let trace_id = IdBytes::<16>::of(&span.trace_id).hex();
            let trace = traces.entry(trace_id.clone()).or_default();
            let process = trace.process(span);
            trace.spans.push(span_json(span, &trace_id, &process, times[at], tree.is_cut(at)));
        }
        let mut out = Vec::new();
        for (trace_id, trace) in traces {
            if !out.is_empty() {
                out.extend_from_slice(b",\n");
            }
            serde_json::to_writer(&mut out, &trace.json(&trace_id))?;
        }
        Ok(out)
    }
}

/// The spans of one trace.
#[derive(Default)]
struct Trace<'a> {
    spans: Vec<JsonValue>,
    // A span of each resource.
    processes: Vec<&'a Span>,
}

impl<'a> Trace<'a> {
    /// The name of the process that made a span.
    fn process(&mut self, span: &'a Span) -> String {
        let known = self.processes.iter().position(|known| known.resource == span.resource);
        let at = known.unwrap_or_else(|| {
            self.processes.push(span);
            self.processes.len() - 1
        });
        format!("p{}", at + 1)
    }

    fn json(self, trace_id: &str) -> JsonValue {
        let process = |(at, span): (usize, &&Span)| {
            let others = span.resource.attributes.iter().filter(|(name, _)| *name != "service.name");
            let tags: Vec<JsonValue> = others.map(|(name, value)| tag(name, value)).collect();
            (format!("p{}", at + 1), json!({ "serviceName": service(span), "tags": tags }))
        };
        let processes: Map<String, JsonValue> = self.processes.iter().enumerate().map(process).collect();
        json!({ "traceID": trace_id, "spans": self.spans, "processes": processes, "warnings": null })
    }
}

fn span_json(span: &Span, trace_id: &str, process: &str, times: Times, is_cut: bool) -> JsonValue {
    let reference = |kind: &str, trace_id: &str, span_id: &str| {
        let (trace_id, span_id) = (IdBytes::<16>::of(trace_id).hex(), IdBytes::<8>::of(span_id).hex());
        json!({ "refType": kind, "traceID": trace_id, "spanID": span_id })
    };
    let parent = span.parent_id.as_deref().filter(|_| !is_cut);
    let parent = parent.map(|parent| reference("CHILD_OF", trace_id, parent));
    let links = span.links.iter().map(|link| reference("FOLLOWS_FROM", &link.context.trace_id, &link.context.span_id));
    let mut warnings = Vec::new();
    if is_cut {
        warnings.push("its parent descends from it, so that it is shown without a parent");
    }
    if !times.are_known {
        warnings.push("its start or its end was not recorded");
    }
    json!({
        "traceID": trace_id,
        "spanID": IdBytes::<8>::of(&span.span_id).hex(),
        "operationName": span.name,
        "references": parent.into_iter().chain(links).collect::<Vec<_>>(),
        "startTime": times.start_micros(),
        "duration": times.duration_micros(),
        "tags": tags(span),
        "logs": span.events.iter().map(|event| log(event, times)).collect::<Vec<_>>(),
        "processID": process,
        "warnings": if warnings.is_empty() { JsonValue::Null } else { json!(warnings) },
    })
}

fn tags(span: &Span) -> Vec<JsonValue> {
    let mut tags: Vec<JsonValue> = span.attributes.iter().map(|(name, value)| tag(name, value)).collect();
    let mut add = |name: &str, value: Value| {
        if !span.attributes.contains_key(name) {
            tags.push(tag(name, &value));
        }
    };
    add("agentlightning.rollout_id", span.rollout_id.as_str().into());
    add("agentlightning.attempt_id", span.attempt_id.as_str().into());
    add("agentlightning.span_sequence_id", span.sequence_id.into());
    if let Some(kind) = remote_kind(span) {
        add("span.kind", kind.into());
    }
    match span.status.status_code {
        StatusCode::Unset => {}
        StatusCode::Ok => add("otel.status_code", "OK".into()),
        StatusCode::Error => {
            add("otel.status_code", "ERROR".into());
            add("error", true.into());
        }
    }
    if let Some(description) = &span.status.description {
        add("otel.status_description", description.as_str().into());
    }
    tags
}

fn tag(name: &str, value: &Value) -> JsonValue {
    let (kind, value) = match value {
        Value::Bool(truth) => ("bool", json!(truth)),
        // Larger ones are no exact numbers in JavaScript.
        Value::Int(number) if number.unsigned_abs() < 1 << 53 => ("int64", json!(number)),
        Value::Int(number) => ("int64", json!(number.to_string())),
        Value::Float(number) if number.is_finite() => ("float64", json!(number)),
        other => ("string", json!(value_text(other))),
    };
    json!({ "key": name, "type": kind, "value": value })
}

fn log(event: &Event, times: Times) -> JsonValue {
    let name = Value::from(event.name.as_str());
    let fields = std::iter::once(tag("event", &name));
    let others = event.attributes.iter().filter(|(name, _)| *name != "event").map(|(name, value)| tag(name, value));
    json!({
        "timestamp": micros(event.timestamp.unwrap_or(times.start)),
        "fields": fields.chain(others).collect::<Vec<_>>(),
    })
}
