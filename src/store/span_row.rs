//! A span as a row: the one definition of its columns and its JSON, from which every database's statements are derived.
//!
//! The JSON leaves out what is stored elsewhere and what could not be read back. Nothing is copied for it.

use super::error::StoreError;
use super::externalized::{ExternalizedValue, externalize};
use super::span_query::SpanPlace;
use super::sql::{signed, unsigned};
use crate::llm::recorded::is_llm_call;
use crate::trace::semconv as names;
use crate::trace::span::Resource;
use crate::trace::{AttemptId, Attributes, RolloutId, Span, Status, StatusCode, Timestamp, Value};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::sync::Arc;

/// A span, encoded for its row.
pub(super) struct SpanRow {
    pub(super) span: Arc<Span>,
    /// The span's JSON without the attributes in `externalized`.
    pub(super) json: String,
    /// The long attributes, which are stored in pieces.
    pub(super) externalized: Vec<ExternalizedValue>,
}

/// A column besides the row's number. All tables of spans have the same.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) value: fn(&SpanRow) -> ColumnValue<'_>,
}

/// Contents of a column. Each column always has the same variant.
pub(super) enum ColumnValue<'a> {
    Text(&'a str),
    Integer(Option<i64>),
    Boolean(bool),
}

/// The columns of a new row, in the order of [`insert_columns`].
pub(super) const COLUMNS: [Column; 9] = [
    Column { name: "rollout_id", value: |row| ColumnValue::Text(row.span.rollout_id.as_str()) },
    Column { name: "attempt_id", value: |row| ColumnValue::Text(row.span.attempt_id.as_str()) },
    Column { name: "sequence_id", value: |row| ColumnValue::Integer(Some(signed(row.span.sequence_id))) },
    Column { name: "span_id", value: |row| ColumnValue::Text(&row.span.span_id) },
    Column { name: "start_ns", value: |row| ColumnValue::Integer(nanos(row.span.start_time)) },
    Column { name: "end_ns", value: |row| ColumnValue::Integer(nanos(row.span.end_time)) },
    Column { name: "is_error", value: |row| ColumnValue::Boolean(row.span.is_error()) },
    Column { name: "json", value: |row| ColumnValue::Text(&row.json) },
    Column { name: "is_llm_call", value: |row| ColumnValue::Boolean(is_llm_call(&row.span)) },
];

/// The columns that identify a span, see [`SpanKey`].
pub(super) const KEY_COLUMNS: &str = "rollout_id, attempt_id, span_id";

/// The columns that [`span`] takes, in its order.
pub(super) const READ_COLUMNS: &str = "json, start_ns, end_ns";

/// The names of [`COLUMNS`], for an `INSERT`.
pub(super) fn insert_columns() -> String {
    COLUMNS.map(|column| column.name).join(", ")
}

/// The place of a span in the order of its rollout. `number` is that of its row.
pub(super) fn place(span: &Span, number: i64) -> SpanPlace {
    SpanPlace { sequence_id: span.sequence_id, start_ns: nanos(span.start_time), number }
}

/// What identifies a span within a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SpanKey {
    pub(super) rollout_id: RolloutId,
    pub(super) attempt_id: AttemptId,
    pub(super) span_id: String,
}

impl SpanKey {
    pub(super) fn of(span: &Span) -> Self {
        Self { rollout_id: span.rollout_id.clone(), attempt_id: span.attempt_id.clone(), span_id: span.span_id.clone() }
    }
}

impl SpanRow {
    /// Externalizes the long attributes and writes the others as JSON.
    pub(super) fn encode(span: &Arc<Span>) -> Result<Self, StoreError> {
        let externalized = externalize(span);
        let json = json(span, &externalized).map_err(|error| StoreError::InvalidData { cause: error.to_string() })?;
        Ok(Self { span: Arc::clone(span), json, externalized })
    }
}

/// The span of a row, without its externalized attributes. The times come from their columns, because JSON has them as
/// floating-point seconds.
pub(super) fn span(json: &str, start_ns: Option<i64>, end_ns: Option<i64>) -> serde_json::Result<Span> {
    let span: Span = serde_json::from_str(json)?;
    Ok(Span { start_time: start_ns.map(timestamp), end_time: end_ns.map(timestamp), ..span })
}

/// What is left of a span with unreadable JSON: its columns, and the cause as its error.
pub(super) fn damaged(
    key: SpanKey,
    sequence_id: u64,
    (start_ns, end_ns): (Option<i64>, Option<i64>),
    cause: &str,
) -> Span {
    let mut span = Span {
        rollout_id: key.rollout_id,
        attempt_id: key.attempt_id,
        sequence_id,
        trace_id: "0".repeat(32),
        span_id: key.span_id,
        parent_id: None,
        name: "damaged record".to_owned(),
        kind: None,
        status: Status { status_code: StatusCode::Error, description: Some(format!("the record is damaged: {cause}")) },
        attributes: Attributes::default(),
        events: Vec::new(),
        links: Vec::new(),
        start_time: start_ns.map(timestamp),
        end_time: end_ns.map(timestamp),
        context: None,
        parent: None,
        resource: Resource::default(),
    };
    span.set(names::RECORD_DAMAGED, vec!["span".to_owned()]);
    span
}

/// An instant from a column of nanoseconds since the Unix epoch.
pub(super) fn timestamp(nanos: i64) -> Timestamp {
    Timestamp::from_unix_nanos(unsigned(nanos))
}

fn nanos(time: Option<Timestamp>) -> Option<i64> {
    time.map(|time| signed(time.unix_nanos))
}

/// The JSON of `span` without the attributes in `externalized`.
fn json(span: &Span, externalized: &[ExternalizedValue]) -> serde_json::Result<String> {
    let mut json = Vec::with_capacity(ROW_BYTES);
    if is_readable(span) {
        serde_json::to_writer(&mut json, &WithoutExternalized(span, externalized))?;
    } else {
        serde_json::to_writer(&mut json, &WithoutExternalized(&readable(span), externalized))?;
    }
    String::from_utf8(json).map_err(serde::ser::Error::custom)
}

/// About the JSON of an LLM call without its content.
const ROW_BYTES: usize = 4096;

struct WithoutExternalized<'a>(&'a Span, &'a [ExternalizedValue]);

impl Serialize for WithoutExternalized<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_with(&InlineAttributes(&self.0.attributes, self.1), serializer)
    }
}

struct InlineAttributes<'a>(&'a Attributes, &'a [ExternalizedValue]);

impl Serialize for InlineAttributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let is_inline = |name: &String| self.1.iter().all(|value| value.attribute != *name);
        for (name, value) in self.0.iter().filter(|(name, _)| is_inline(name)) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// False if an attribute contains infinity or NaN. JSON has neither, and the null that serde writes could not be read
/// back, so that such attributes are left out.
fn is_readable(span: &Span) -> bool {
    let events = span.events.iter().map(|event| &event.attributes);
    let links = span.links.iter().filter_map(|link| link.attributes.as_ref());
    let all = [&span.attributes, &span.resource.attributes].into_iter().chain(events).chain(links);
    all.flat_map(|attributes| attributes.values()).all(is_finite)
}

fn readable(span: &Span) -> Span {
    let mut span = span.clone();
    let clean = |attributes: &mut Attributes| attributes.retain(|_, value| is_finite(value));
    clean(&mut span.attributes);
    clean(&mut span.resource.attributes);
    span.events.iter_mut().for_each(|event| clean(&mut event.attributes));
    span.links.iter_mut().filter_map(|link| link.attributes.as_mut()).for_each(clean);
    span
}

fn is_finite(value: &Value) -> bool {
    match value {
        Value::Float(number) => number.is_finite(),
        Value::Floats(numbers) => numbers.iter().all(|number| number.is_finite()),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::externalized::ValueKind;
    use super::*;

    #[test]
    fn a_row_has_the_span_without_what_is_externalized_or_unreadable() {
        let text = r#"{"rollout_id":"r","attempt_id":"a","sequence_id":1,"trace_id":"t","span_id":"s","parent_id":null,
            "name":"GET","kind":"CLIENT","status":{"status_code":"OK","description":null},"attributes":{"a":1,"b":"x"},
            "events":[],"links":[],"start_time":1.5,"end_time":null,"context":null,"parent":null,
            "resource":{"attributes":{},"schema_url":""}}"#;
        let mut original: Span = serde_json::from_str(text).unwrap();
        let written = json(&original, &[]).unwrap();
        assert_eq!(written, serde_json::to_string(&original).unwrap());
        assert_eq!(written, text.split('\n').map(str::trim).collect::<String>());
        assert_eq!(span(&written, Some(1_500_000_000), None).unwrap(), original);
        original.set("a", f64::NAN);
        let externalized =
            ExternalizedValue { attribute: "b".to_owned(), kind: ValueKind::Text, pieces: Vec::new(), part: None };
        let read = span(&json(&original, &[externalized]).unwrap(), None, None).unwrap();
        assert!(read.attributes.is_empty());
    }
}
