//! What several formats read from a span: its times, its service, texts of its attributes.

use crate::trace::semconv as names;
use crate::trace::{Span, SpanKind, Timestamp, Value};
use serde_json::Value as JsonValue;
use time::OffsetDateTime;

/// The start and the end of a span, for formats that need both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) start: Timestamp,
    /// Never before the start.
    pub(super) end: Timestamp,
    /// True if both are recorded.
    pub(super) are_known: bool,
}

impl Times {
    /// The times of each span. One without a start begins with the first of its rollout, and one without an end ends where
    /// it begins.
    pub(super) fn of_all(spans: &[Span]) -> Vec<Self> {
        let first = spans.iter().filter_map(|span| span.start_time.or(span.end_time)).min().unwrap_or_default();
        let times = |span: &Span| {
            let start = span.start_time.or(span.end_time).unwrap_or(first);
            let end = span.end_time.unwrap_or(start).max(start);
            Self { start, end, are_known: span.start_time.is_some() && span.end_time.is_some() }
        };
        spans.iter().map(times).collect()
    }

    /// Microseconds since the Unix epoch, of the start.
    pub(super) fn start_micros(&self) -> u64 {
        micros(self.start)
    }

    /// The duration in microseconds: from the start to the end, each rounded down.
    pub(super) fn duration_micros(&self) -> u64 {
        micros(self.end) - micros(self.start)
    }

    /// The duration in milliseconds.
    pub(super) fn millis(&self) -> f64 {
        self.end.since(self.start).as_secs_f64() * 1000.0
    }
}

/// Microseconds since the Unix epoch.
pub(super) fn micros(time: Timestamp) -> u64 {
    time.unix_nanos / 1000
}

/// A time as RFC 3339 in UTC, with milliseconds.
pub(super) fn rfc3339(time: Timestamp) -> String {
    let time =
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.unix_nanos)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second, milli) = time.to_hms_milli();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// The name of the program that made a span.
pub(super) fn service(span: &Span) -> &str {
    span.resource
        .attributes
        .get("service.name")
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty())
        .unwrap_or("unknown")
}

/// The kind as OpenTelemetry's exporters for other formats write it. `None` for internal operations.
pub(super) fn remote_kind(span: &Span) -> Option<&'static str> {
    match span.kind? {
        SpanKind::Internal => None,
        SpanKind::Server => Some("server"),
        SpanKind::Client => Some("client"),
        SpanKind::Producer => Some("producer"),
        SpanKind::Consumer => Some("consumer"),
    }
}

/// Number, model, role, tokens and time of an LLM call, as a line. `before`: the sequence id of the call that it continues.
pub(super) fn call_facts(span: &Span, before: Option<u64>) -> String {
    let model = text(span, names::GEN_AI_RESPONSE_MODEL).or_else(|| text(span, names::GEN_AI_REQUEST_MODEL));
    let number = |name: &str| span.attributes.get(name).and_then(Value::as_int);
    let mut facts = vec![format!("call {}", span.sequence_id)];
    facts.extend(before.map(|before| format!("after call {before}")));
    facts.extend(model.map(str::to_owned));
    facts.extend(text(span, names::CALL_ROLE).map(str::to_owned));
    if let (Some(input), Some(output)) =
        (number(names::GEN_AI_USAGE_INPUT_TOKENS), number(names::GEN_AI_USAGE_OUTPUT_TOKENS))
    {
        facts.push(format!("{input} + {output} tokens"));
    }
    let times = Times::of_all(std::slice::from_ref(span));
    facts.extend(times.iter().filter(|times| times.are_known).map(|times| format!("{:.0} ms", times.millis())));
    facts.join(" · ")
}

/// A value as text: a list as JSON.
pub(super) fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

/// The text of an attribute; `None` for other types.
pub(super) fn text<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    span.attributes.get(name).and_then(Value::as_str)
}

/// An attribute as JSON; null if it is absent.
pub(super) fn json_of(span: &Span, name: &str) -> JsonValue {
    span.attributes.get(name).and_then(|value| serde_json::to_value(value).ok()).unwrap_or_default()
}
