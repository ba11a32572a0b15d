//! Storing of spans: a few statements for a whole batch, each with arrays for its rows.
//!
//! All transactions lock rows in the same order (rollouts, attempts, texts, traces, each by id), so that deadlocks are rare. A
//! span is inserted under the lock of its rollout.

use super::rows::{self, encode};
use super::texts;
use crate::store::api::{Appended, UNASSIGNED};
use crate::store::error::StoreError;
use crate::store::records::SpanObserver;
use crate::store::span_columns::SpanKey;
use crate::store::span_row::{COLUMNS, ColumnValue, KEY_COLUMNS, SpanRow, insert_columns};
use crate::store::sql::{signed, unsigned};
use crate::trace::{Attempt, AttemptId, AttemptPosition, Rollout, RolloutId, RolloutStatus, Span, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Transaction};

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

/// Stores a batch of spans with their rollouts, attempts and traces.
pub(super) async fn append(
    transaction: &Transaction<'_>,
    rows: &[SpanRow],
    observer: Option<SpanObserver>,
) -> Result<Appended, Error> {
    let now: Timestamp = SystemTime::now().into();
    ensure_parents(transaction, rows, now).await?;
    let new = insert_spans(transaction, rows).await?;
    let last_pieces = texts::store(transaction, rows, &new).await?;
    texts::refer(transaction, rows, &new, &last_pieces).await?;
    put_traces(transaction, rows, &new).await?;
    if let Some(observer) = observer {
        let updated: BTreeSet<(&RolloutId, &AttemptId)> =
            new.iter().map(|(index, _)| &rows[*index].span).map(|span| (&span.rollout_id, &span.attempt_id)).collect();
        for (rollout, attempt) in updated {
            observe(transaction, rollout, attempt, observer, now).await?;
        }
    }
    Ok(Appended { stored: new.len(), duplicates: rows.len() - new.len() })
}

/// Creates the missing rollouts and attempts of a batch, and raises the sequence counters.
async fn ensure_parents(transaction: &Transaction<'_>, rows: &[SpanRow], now: Timestamp) -> Result<(), Error> {
    let mut rollouts: BTreeMap<&RolloutId, (i64, Timestamp)> = BTreeMap::new();
    let mut attempts: BTreeMap<(&RolloutId, &AttemptId), Timestamp> = BTreeMap::new();
    for SpanRow { span, .. } in rows {
        let start = span.start_time.unwrap_or(now);
        let (last, _) = rollouts.entry(&span.rollout_id).or_insert((0, start));
        *last = signed(span.sequence_id).max(*last);
        attempts.entry((&span.rollout_id, &span.attempt_id)).or_insert(start);
    }
    let (mut ids, mut lasts, mut starts, mut statuses, mut jsons) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, (last, start)) in rollouts {
        let new = Rollout::running(id.clone(), start);
        ids.push(id.as_str());
        lasts.push(last);
        starts.push(signed(start.unix_nanos));
        statuses.push(new.status.as_str());
        jsons.push(encode(&new));
    }
    let sql = "INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, status, is_limited, json)
         SELECT id, FALSE, last, start, status, FALSE, json
         FROM unnest($1::TEXT[], $2::BIGINT[], $3::BIGINT[], $4::TEXT[], $5::TEXT[])
             AS new (id, last, start, status, json)
         ON CONFLICT (rollout_id) DO UPDATE
             SET last_sequence_id = GREATEST(rollout.last_sequence_id, excluded.last_sequence_id)";
    let statement = transaction.prepare(sql).await?;
    transaction.execute(&statement, &[&ids, &lasts, &starts, &statuses, &jsons]).await?;
    let known = {
        let (rollouts, ids): (Vec<&str>, Vec<&str>) =
            attempts.keys().map(|(rollout, attempt)| (rollout.as_str(), attempt.as_str())).unzip();
        let sql = "SELECT attempt.rollout_id, attempt.attempt_id FROM attempt
             JOIN unnest($1::TEXT[], $2::TEXT[]) AS wanted (rollout, attempt)
             ON attempt.rollout_id = wanted.rollout AND attempt.attempt_id = wanted.attempt";
        let found = transaction.query(sql, &[&rollouts, &ids]).await?;
        found.iter().map(|row| (row.get::<_, String>(0), row.get::<_, String>(1))).collect::<HashSet<_>>()
    };
    for ((rollout, attempt), start) in attempts {
        if !known.contains(&(rollout.as_str().to_owned(), attempt.as_str().to_owned())) {
            add_attempt(transaction, &Attempt::running(rollout.clone(), attempt.clone(), start)).await?;
        }
    }
    Ok(())
}

/// Adds an attempt that a span names.
async fn add_attempt(transaction: &Transaction<'_>, attempt: &Attempt) -> Result<(), Error> {
    // Only started attempts of a registered rollout can be its latest.
    let sql = "INSERT INTO attempt (rollout_id, attempt_id, sequence_id, json)
         SELECT $1, $2, 0, $3 FROM rollout WHERE rollout_id = $1 AND registered
             AND EXISTS (SELECT 1 FROM attempt WHERE rollout_id = $1)
         ON CONFLICT (rollout_id, attempt_id) DO NOTHING";
    let parameters: [&(dyn ToSql + Sync); 3] =
        [&attempt.rollout_id.as_str(), &attempt.attempt_id.as_str(), &encode(attempt)];
    if transaction.execute(sql, &parameters).await? == 0 {
        upsert_attempt(transaction, attempt).await?;
    }
    Ok(())
}

/// Adds an attempt, or replaces the one with its ids. A new one gets the next sequence id of its rollout, so that the
/// rollout's row has to be locked.
pub(super) async fn upsert_attempt(transaction: &Transaction<'_>, attempt: &Attempt) -> Result<Attempt, Error> {
    let (rollout, id) = (attempt.rollout_id.as_str(), attempt.attempt_id.as_str());
    let sql = "INSERT INTO attempt (rollout_id, attempt_id, sequence_id, json)
         SELECT $1, $2, COALESCE(MAX(sequence_id), 0) + 1, $3 FROM attempt WHERE rollout_id = $1
         ON CONFLICT (rollout_id, attempt_id) DO UPDATE SET json = excluded.json RETURNING sequence_id";
    let statement = transaction.prepare(sql).await?;
    let row = transaction.query_one(&statement, &[&rollout, &id, &encode(attempt)]).await?;
    Ok(Attempt { sequence_id: unsigned(row.get(0)), ..attempt.clone() })
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

/// Inserts the spans of a batch. Returns the places of the new ones in the batch, with the numbers of their rows.
async fn insert_spans(transaction: &Transaction<'_>, rows: &[SpanRow]) -> Result<Vec<(usize, i64)>, Error> {
    let arrays = COLUMNS.map(|column| ColumnArray::new(rows, column.value));
    let types: Vec<String> =
        arrays.iter().zip(1..).map(|(array, number)| format!("${number}::{}", array.sql_type())).collect();
    let sql = format!(
        "INSERT INTO span ({}) SELECT * FROM unnest({})
         ON CONFLICT ({KEY_COLUMNS}) DO NOTHING RETURNING id, {KEY_COLUMNS}",
        insert_columns(),
        types.join(", ")
    );
    let statement = transaction.prepare(&sql).await?;
    let parameters = arrays.each_ref().map(ColumnArray::parameter);
    let inserted = transaction.query(&statement, &parameters).await?;
    let mut ids: HashMap<SpanKey, i64> = inserted
        .iter()
        .map(|row| {
            let (rollout_id, attempt_id) = (row.get::<_, &str>(1).into(), row.get::<_, &str>(2).into());
            (SpanKey { rollout_id, attempt_id, span_id: row.get(3) }, row.get(0))
        })
        .collect();
    // A span that is twice in the batch is stored once: the first place gets the number.
    let number = |(index, row): (usize, &SpanRow)| Some((index, ids.remove(&SpanKey::of(&row.span))?));
    Ok(rows.iter().enumerate().filter_map(number).collect())
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
    transaction.execute(sql, &[&traces, &rollouts, &attempts, &lasts]).await?;
    Ok(())
}

/// Calls the observer for an attempt with new spans, if its rollout is registered, and stores what it changed.
async fn observe(
    transaction: &Transaction<'_>,
    rollout: &RolloutId,
    attempt: &AttemptId,
    observer: SpanObserver,
    now: Timestamp,
) -> Result<(), Error> {
    let sql = "SELECT rollout.json, rollout.start_ns, attempt.json, attempt.sequence_id,
             attempt.sequence_id = (SELECT MAX(sequence_id) FROM attempt WHERE rollout_id = $1)
         FROM rollout JOIN attempt ON attempt.rollout_id = rollout.rollout_id
         WHERE rollout.rollout_id = $1 AND attempt.attempt_id = $2 AND rollout.registered FOR UPDATE";
    let statement = transaction.prepare(sql).await?;
    let Some(row) = transaction.query_opt(&statement, &[&rollout.as_str(), &attempt.as_str()]).await? else {
        return Ok(());
    };
    let (mut rollout, mut attempt) = match (rows::rollout(&row), rows::attempt(&row, 2)) {
        (Ok(rollout), Ok(Some(attempt))) => (rollout, attempt),
        (_, Ok(None)) => return Ok(()),
        // The spans are stored nevertheless.
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(?error, rollout_id = %rollout, "the heartbeat of an attempt can't be stored");
            return Ok(());
        }
    };
    let position = if row.get(4) { AttemptPosition::Latest } else { AttemptPosition::Earlier };
    let before = rollout.status;
    observer(&mut rollout, &mut attempt, position, now);
    upsert_attempt(transaction, &attempt).await?;
    if rollout.status != before {
        upsert_rollout(transaction, &rollout).await?;
    }
    Ok(())
}

/// Locks a rollout, which is created as running if it is missing. Returns the name of its status.
pub(super) async fn lock_rollout(
    transaction: &Transaction<'_>,
    id: &RolloutId,
    start: Timestamp,
) -> Result<String, Error> {
    let sql = "INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, status, is_limited, json)
         VALUES ($1, FALSE, 0, $2, $3, FALSE, $4)
         ON CONFLICT (rollout_id) DO UPDATE SET rollout_id = excluded.rollout_id RETURNING status";
    let new = Rollout::running(id.clone(), start);
    let parameters: [&(dyn ToSql + Sync); 4] =
        [&id.as_str(), &signed(start.unix_nanos), &new.status.as_str(), &encode(&new)];
    Ok(transaction.query_one(sql, &parameters).await?.get(0))
}

/// What [`upsert_rollout`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    /// The rollout entered a final state.
    Ended,
    Other,
}

/// Adds a rollout, or replaces the one with its id, and marks it as registered.
pub(super) async fn upsert_rollout(transaction: &Transaction<'_>, rollout: &Rollout) -> Result<Transition, Error> {
    let mut transition = Transition::Other;
    if rollout.status.is_final() {
        let before = lock_rollout(transaction, &rollout.rollout_id, rollout.start_time).await?;
        let was_final = RolloutStatus::ALL.into_iter().any(|status| status.is_final() && status.as_str() == before);
        transition = if was_final { Transition::Other } else { Transition::Ended };
    }
    let sql = "INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, status, is_limited, json)
         VALUES ($1, TRUE, 0, $2, $3, $4, $5)
         ON CONFLICT (rollout_id) DO UPDATE SET registered = TRUE, start_ns = excluded.start_ns,
             status = excluded.status, is_limited = excluded.is_limited, json = excluded.json";
    let statement = transaction.prepare(sql).await?;
    let start = signed(rollout.start_time.unix_nanos);
    let parameters: [&(dyn ToSql + Sync); 5] = [
        &rollout.rollout_id.as_str(),
        &start,
        &rollout.status.as_str(),
        &rollout.config.has_deadline(),
        &encode(rollout),
    ];
    transaction.execute(&statement, &parameters).await?;
    Ok(transition)
}

/// An entry of a B-tree index has at most 2704 bytes; compression makes the exact limit unpredictable.
const MAX_KEY_BYTES: usize = 2048;
