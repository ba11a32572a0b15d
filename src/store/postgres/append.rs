//! Storing of spans: a few statements for a whole batch, each with arrays for its rows.
//!
//! All transactions lock rows in the same order (rollouts, attempts, texts, traces, each by id), so that deadlocks are rare. A
//! span is inserted under the lock of its rollout. Statements that need no answer of earlier ones are sent with them, so that
//! few answers are waited for while rows are locked.

use super::parents::{self, ADD_ATTEMPTS, AttemptArrays, LOCK_ROLLOUTS, RolloutArrays};
use super::statements::execute;
use super::texts;
use crate::store::api::UNASSIGNED;
use crate::store::error::StoreError;
use crate::store::records::SpanObserver;
use crate::store::span_row::{COLUMNS, ColumnValue, KEY_COLUMNS, SpanRow, insert_columns};
use crate::trace::{AttemptId, RolloutId, Span, Timestamp};
use deadpool_postgres::Transaction;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

/// Encodes a span for its row. Rejects ids that PostgreSQL can't index: it would report them as a limit of the server, not as
/// an error in the data.
pub(super) fn encode_row(span: &Arc<Span>) -> Result<SpanRow, StoreError> {
    let key_bytes = span.rollout_id.as_str().len() + span.attempt_id.as_str().len() + span.span_id.len();
    if key_bytes > MAX_KEY_BYTES || span.trace_id.len() > MAX_KEY_BYTES {
        let cause = format!("the ids of a span have more than {MAX_KEY_BYTES} bytes");
        return Err(StoreError::InvalidData { cause });
    }
    Ok(SpanRow::encode(span))
}

/// Stores a batch of spans with their rollouts, attempts and traces. Returns the places of the new spans in the batch.
pub(super) async fn append(
    transaction: &Transaction<'_>,
    rows: &[SpanRow],
    observer: Option<SpanObserver>,
) -> Result<Vec<usize>, Error> {
    let now: Timestamp = SystemTime::now().into();
    let Inserted { locked, spans } = insert(transaction, rows, now).await?;
    let new = new_rows(rows, &spans);
    if let Some(observer) = observer {
        let registered = parents::registered(&locked);
        let of_new = new.iter().map(|(index, _)| &rows[*index].span);
        let updated: BTreeSet<(&RolloutId, &AttemptId)> = of_new
            .filter(|span| registered.contains(span.rollout_id.as_str()))
            .map(|span| (&span.rollout_id, &span.attempt_id))
            .collect();
        parents::observe(transaction, &updated, observer, now).await?;
    }
    let last_pieces = texts::store(transaction, rows, &new).await?;
    texts::refer(transaction, rows, &new, &last_pieces).await?;
    put_traces(transaction, rows, &new).await?;
    Ok(new.into_iter().map(|(index, _)| index).collect())
}

/// What [`insert`] returns.
struct Inserted {
    /// The batch's rollouts.
    locked: Vec<Row>,
    /// The numbers of the new spans, and what identifies them.
    spans: Vec<Row>,
}

/// Inserts the spans of a batch, and before them what they belong to.
async fn insert(transaction: &Transaction<'_>, rows: &[SpanRow], now: Timestamp) -> Result<Inserted, Error> {
    let (rollouts, attempts) = (RolloutArrays::of(rows, now), AttemptArrays::of(rows, now));
    let columns = COLUMNS.map(|column| ColumnArray::new(rows, column.value));
    let types: Vec<String> =
        columns.iter().zip(1..).map(|(array, number)| format!("${number}::{}", array.sql_type())).collect();
    let insert_spans = format!(
        "INSERT INTO span ({}) SELECT * FROM unnest({})
         ON CONFLICT ({KEY_COLUMNS}) DO NOTHING RETURNING id, {KEY_COLUMNS}",
        insert_columns(),
        types.join(", ")
    );
    // A statement that is prepared only then would be overtaken.
    let lock_rollouts = transaction.prepare_cached(LOCK_ROLLOUTS).await?;
    let add_attempts = transaction.prepare_cached(ADD_ATTEMPTS).await?;
    let insert_spans = transaction.prepare_cached(&insert_spans).await?;
    let (rollouts, attempts) = (rollouts.parameters(), attempts.parameters());
    let columns = columns.each_ref().map(ColumnArray::parameter);
    // The server runs them in this order, each for what the one before has locked or added.
    let (locked, added, spans) = tokio::join!(
        biased;
        transaction.query(&lock_rollouts, &rollouts),
        transaction.execute(&add_attempts, &attempts),
        transaction.query(&insert_spans, &columns),
    );
    // The first error is the cause of the others.
    let locked = locked?;
    added?;
    Ok(Inserted { locked, spans: spans? })
}

/// The places of the new spans in the batch, with the numbers of their rows.
fn new_rows<'a>(rows: &'a [SpanRow], inserted: &'a [Row]) -> Vec<(usize, i64)> {
    let mut numbers: HashMap<(&'a str, &'a str, &'a str), i64> =
        inserted.iter().map(|row| ((row.get(1), row.get(2), row.get(3)), row.get(0))).collect();
    // A span that is twice in the batch is stored once: the first place gets the number.
    let number = |(index, row): (usize, &'a SpanRow)| {
        let Span { rollout_id, attempt_id, span_id, .. } = &*row.span;
        Some((index, numbers.remove(&(rollout_id.as_str(), attempt_id.as_str(), span_id.as_str()))?))
    };
    rows.iter().enumerate().filter_map(number).collect()
}

/// Adds the traces of new spans, or notes the last span of known ones.
async fn put_traces(transaction: &Transaction<'_>, rows: &[SpanRow], new: &[(usize, i64)]) -> Result<(), Error> {
    let mut all: BTreeMap<&str, (&RolloutId, &AttemptId, i64)> = BTreeMap::new();
    for (index, id) in new {
        let span = &rows[*index].span;
        if span.rollout_id.as_str() != UNASSIGNED {
            let (rollout, _, last) = all.entry(&span.trace_id).or_insert((&span.rollout_id, &span.attempt_id, *id));
            if **rollout == span.rollout_id {
                *last = (*last).max(*id);
            }
        }
    }
    if all.is_empty() {
        return Ok(());
    }
    let (mut traces, mut rollouts, mut attempts, mut lasts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (trace, (rollout, attempt, last)) in all {
        traces.push(trace);
        rollouts.push(rollout.as_str());
        attempts.push(attempt.as_str());
        lasts.push(last);
    }
    let sql = "INSERT INTO trace (trace_id, rollout_id, attempt_id, last_span)
         SELECT * FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[], $4::BIGINT[])
         ON CONFLICT (trace_id) DO UPDATE SET last_span = GREATEST(trace.last_span, excluded.last_span)
             WHERE trace.rollout_id = excluded.rollout_id";
    execute(transaction, sql, &[&traces, &rollouts, &attempts, &lasts]).await.map(drop)
}

/// A column of a batch, as an array parameter.
enum ColumnArray<'a> {
    Text(Vec<&'a str>),
    Integer(Vec<Option<i64>>),
    Boolean(Vec<bool>),
    Bytes(Vec<&'a [u8]>),
}

impl<'a> ColumnArray<'a> {
    fn new(rows: &'a [SpanRow], value: fn(&SpanRow) -> ColumnValue<'_>) -> Self {
        let (mut texts, mut integers, mut booleans, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            match value(row) {
                ColumnValue::Text(text) => texts.push(text),
                ColumnValue::Integer(number) => integers.push(number),
                ColumnValue::Boolean(value) => booleans.push(value),
                ColumnValue::Bytes(value) => bytes.push(value),
            }
        }
        match (texts.is_empty(), integers.is_empty(), booleans.is_empty()) {
            (false, ..) => Self::Text(texts),
            (true, false, _) => Self::Integer(integers),
            (true, true, false) => Self::Boolean(booleans),
            (true, true, true) => Self::Bytes(bytes),
        }
    }

    fn sql_type(&self) -> &'static str {
        match self {
            Self::Text(_) => "TEXT[]",
            Self::Integer(_) => "BIGINT[]",
            Self::Boolean(_) => "BOOLEAN[]",
            Self::Bytes(_) => "BYTEA[]",
        }
    }

    fn parameter(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Text(all) => all,
            Self::Integer(all) => all,
            Self::Boolean(all) => all,
            Self::Bytes(all) => all,
        }
    }
}

/// An entry of a B-tree index has at most 2704 bytes; compression makes the exact limit unpredictable.
const MAX_KEY_BYTES: usize = 2048;
