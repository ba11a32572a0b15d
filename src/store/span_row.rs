//! A span as a row: the one definition of its columns and its record, from which every database's statements are derived.
//!
//! The record leaves out what is stored elsewhere and what JSON could not have. Nothing is copied for it.

use super::externalized::{ExternalizedValue, externalize};
use super::span_columns::RowColumns;
use super::span_query::SpanPlace;
use super::span_record::{self, RecordError};
use super::sql::{signed, unsigned};
use crate::llm::recorded::is_llm_call;
use crate::trace::semconv as names;
use crate::trace::span::Resource;
use crate::trace::{Attributes, Span, Status, StatusCode, Timestamp, Value};
use std::sync::Arc;

/// A span, encoded for its row.
pub(super) struct SpanRow {
    pub(super) span: Arc<Span>,
    /// What no other column has, without the attributes in `externalized`.
    pub(super) record: Vec<u8>,
    /// The long attributes, which are stored in pieces.
    pub(super) externalized: Vec<ExternalizedValue>,
    /// True if the span is read as it was written, false if an attribute is left out.
    pub(super) is_whole: bool,
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
    Bytes(&'a [u8]),
}

/// The columns of a new row, in the order of [`insert_columns`].
pub(super) const COLUMNS: [Column; 10] = [
    Column { name: "rollout_id", value: |row| ColumnValue::Text(row.span.rollout_id.as_str()) },
    Column { name: "attempt_id", value: |row| ColumnValue::Text(row.span.attempt_id.as_str()) },
    Column { name: "sequence_id", value: |row| ColumnValue::Integer(Some(signed(row.span.sequence_id))) },
    Column { name: "span_id", value: |row| ColumnValue::Text(&row.span.span_id) },
    Column { name: "start_ns", value: |row| ColumnValue::Integer(nanos(row.span.start_time)) },
    Column { name: "end_ns", value: |row| ColumnValue::Integer(nanos(row.span.end_time)) },
    Column { name: "is_error", value: |row| ColumnValue::Boolean(row.span.is_error()) },
    // Programs before records require it. To them the span is damaged.
    Column { name: "json", value: |_| ColumnValue::Text("{}") },
    Column { name: "is_llm_call", value: |row| ColumnValue::Boolean(is_llm_call(&row.span)) },
    Column { name: "record", value: |row| ColumnValue::Bytes(&row.record) },
];

/// The columns that identify a span, see [`SpanKey`].
pub(super) const KEY_COLUMNS: &str = "rollout_id, attempt_id, span_id";

/// The columns besides the sequence id that [`span`] needs.
pub(super) const READ_COLUMNS: &str = "record, start_ns, end_ns, rollout_id, attempt_id, span_id, json";

/// The names of [`COLUMNS`], for an `INSERT`.
pub(super) fn insert_columns() -> String {
    COLUMNS.map(|column| column.name).join(", ")
}

/// The place of a span in the order of its rollout. `number` is that of its row.
pub(super) fn place(span: &Span, number: i64) -> SpanPlace {
    SpanPlace { sequence_id: span.sequence_id, start_ns: nanos(span.start_time), number }
}

impl SpanRow {
    /// Externalizes the long attributes and encodes the others.
    pub(super) fn encode(span: &Arc<Span>) -> Self {
        let externalized = externalize(span);
        let is_inline = |name: &str| externalized.iter().all(|value| value.attribute != name);
        let is_whole = is_readable(span);
        let record = if is_whole {
            span_record::encode(span, is_inline)
        } else {
            span_record::encode(&readable(span), is_inline)
        };
        Self { span: Arc::clone(span), record, externalized, is_whole }
    }
}

/// The form in which a row has a span.
#[derive(Clone, Copy)]
pub(super) enum StoredSpan<'a> {
    Record(&'a [u8]),
    /// As programs before records wrote it.
    Json(&'a str),
}

impl StoredSpan<'_> {
    pub(super) fn size_bytes(self) -> usize {
        match self {
            Self::Record(record) => record.len(),
            Self::Json(json) => json.len(),
        }
    }
}

/// Why the span of a row can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoredSpanError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// The span of a row, without its externalized attributes.
pub(super) fn span(stored: StoredSpan<'_>, columns: RowColumns) -> Result<Span, StoredSpanError> {
    match stored {
        StoredSpan::Record(record) => Ok(span_record::decode(record, columns)?),
        // JSON has times as floating-point seconds.
        StoredSpan::Json(json) => {
            let RowColumns { start_time, end_time, .. } = columns;
            Ok(Span { start_time, end_time, ..serde_json::from_str(json)? })
        }
    }
}

/// The trace of the span of a row.
pub(super) fn trace_id(stored: StoredSpan<'_>) -> Result<String, StoredSpanError> {
    #[derive(serde::Deserialize)]
    struct OfTrace {
        trace_id: String,
    }
    match stored {
        StoredSpan::Record(record) => Ok(span_record::trace_id(record)?),
        StoredSpan::Json(json) => Ok(serde_json::from_str::<OfTrace>(json)?.trace_id),
    }
}

/// What is left of a span with an unreadable record: its columns, and the cause as its error.
pub(super) fn damaged(RowColumns { key, sequence_id, start_time, end_time }: RowColumns, cause: &str) -> Span {
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
        start_time,
        end_time,
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

/// False if an attribute contains infinity or NaN. JSON has neither, and clients of the API could not read the null that would
/// take their place, so that such attributes are left out.
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
    use super::super::span_columns::SpanKey;
    use super::*;

    #[test]
    fn a_row_has_the_span_without_what_is_externalized_or_unreadable() {
        let json = r#"{"rollout_id":"r","attempt_id":"a","sequence_id":1,"trace_id":"t","span_id":"s","parent_id":null,
            "name":"GET","kind":"CLIENT","status":{"status_code":"OK","description":null},"attributes":{"a":1,"b":"x"},
            "events":[],"links":[],"start_time":1.5,"end_time":null,"context":null,"parent":null,
            "resource":{"attributes":{},"schema_url":""}}"#;
        let mut original: Span = serde_json::from_str(json).unwrap();
        let columns = |span: &Span| RowColumns {
            key: SpanKey::of(span),
            sequence_id: 1,
            start_time: Some(timestamp(1_500_000_000)),
            end_time: None,
        };
        let row = SpanRow::encode(&Arc::new(original.clone()));
        for stored in [StoredSpan::Record(&row.record), StoredSpan::Json(json)] {
            assert_eq!(span(stored, columns(&original)).unwrap(), original);
        }
        original.set("a", f64::NAN);
        original.set("b", "x".repeat(600));
        let row = SpanRow::encode(&Arc::new(original.clone()));
        let read = span(StoredSpan::Record(&row.record), columns(&original)).unwrap();
        assert!(read.attributes.is_empty() && row.externalized.len() == 1);
    }
}
