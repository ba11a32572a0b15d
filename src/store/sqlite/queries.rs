//! The reads of a SQLite store, each on a snapshot.

use super::retention::size_bytes;
use super::rows::{self, damaged, decode};
use super::span_texts::SpanTexts;
use crate::store::api::{EndedRollouts, RolloutSequenceState, RolloutSummary, Statistics};
use crate::store::span_row::{self, ORDER_COLUMNS, READ_COLUMNS, SpanKey};
use crate::store::sql::{signed, unsigned};
use crate::trace::semconv as names;
use crate::trace::{Attempt, AttemptId, Rollout, RolloutId, Span};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// `None` if no rollout has this id.
pub(super) fn rollout(connection: &Connection, id: &RolloutId) -> rusqlite::Result<Option<Rollout>> {
    let mut statement = connection.prepare_cached("SELECT json, start_ns FROM rollout WHERE rollout_id = ?1")?;
    statement.query_row(params![id.as_str()], rows::rollout).optional()
}

/// The newest rollouts, newest first.
pub(super) fn rollouts(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<RolloutSummary>> {
    let mut statement = connection.prepare_cached(
        "SELECT json, start_ns,
             (SELECT COUNT(*) FROM attempt WHERE attempt.rollout_id = rollout.rollout_id),
             (SELECT COUNT(*) FROM span WHERE span.rollout_id = rollout.rollout_id),
             (SELECT COUNT(*) FROM span WHERE span.rollout_id = rollout.rollout_id AND is_error = 1)
         FROM rollout ORDER BY start_ns DESC, rollout_id DESC LIMIT ?1",
    )?;
    let rows = statement.query_map(params![signed(limit as u64)], |row| {
        let (attempts, spans, errors) = (unsigned(row.get(2)?), unsigned(row.get(3)?), unsigned(row.get(4)?));
        Ok(RolloutSummary { rollout: rows::rollout(row)?, attempts, spans, errors })
    })?;
    rows.collect()
}

/// The attempts of a rollout by sequence id.
pub(super) fn attempts(connection: &Connection, id: &RolloutId) -> rusqlite::Result<Vec<Attempt>> {
    let sql = "SELECT json FROM attempt WHERE rollout_id = ?1 ORDER BY sequence_id";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![id.as_str()], |row| decode(&row.get::<_, String>(0)?))?;
    rows.collect()
}

/// The spans of a rollout in order, with their externalized attributes. What is damaged of one costs no other: the span says
/// what is missing.
pub(super) fn spans(
    connection: &Connection,
    rollout: &RolloutId,
    attempt: Option<&AttemptId>,
    damaged_reads: &AtomicU64,
) -> rusqlite::Result<Vec<Span>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, {READ_COLUMNS} FROM span WHERE rollout_id = ?1 AND (?2 IS NULL OR attempt_id = ?2)
         ORDER BY {ORDER_COLUMNS}"
    ))?;
    let mut found = statement.query(params![rollout.as_str(), attempt.map(AttemptId::as_str)])?;
    let mut spans = Vec::new();
    let mut texts = SpanTexts::new(connection)?;
    while let Some(row) = found.next()? {
        let number: i64 = row.get(0)?;
        let json = row.get_ref(1)?.as_str();
        let span = json.map_err(|error| damaged(Type::Text, error)).and_then(|json| {
            span_row::span(json, row.get(2)?, row.get(3)?).map_err(|error| damaged(Type::Text, error))
        });
        let mut span = match span {
            Ok(span) => span,
            Err(error) if is_damage(&error) => {
                tracing::error!(rollout_id = %rollout, %error, "the record of a span is damaged");
                damaged_span(connection, number, &error.to_string())?
            }
            Err(error) => return Err(error),
        };
        let mut unreadable = Vec::new();
        for (name, value) in texts.of_span(number)? {
            match value {
                Ok(value) => drop(span.attributes.insert(name, value)),
                Err(error) if is_damage(&error) => {
                    tracing::error!(rollout_id = %rollout, span_id = span.span_id, attribute = name, %error, "an attribute of a span is damaged");
                    unreadable.push(name);
                }
                Err(error) => return Err(error),
            }
        }
        if !unreadable.is_empty() {
            span.set(names::RECORD_DAMAGED, unreadable);
        }
        if span.attributes.contains_key(names::RECORD_DAMAGED) {
            damaged_reads.fetch_add(1, Ordering::Relaxed);
        }
        spans.push(span);
    }
    Ok(spans)
}

/// The span of a row of which only the other columns can be read.
fn damaged_span(connection: &Connection, number: i64, cause: &str) -> rusqlite::Result<Span> {
    let sql = "SELECT rollout_id, attempt_id, span_id, sequence_id, start_ns, end_ns FROM span WHERE id = ?1";
    connection.prepare_cached(sql)?.query_row(params![number], |row| {
        let key = SpanKey {
            rollout_id: row.get::<_, String>(0)?.as_str().into(),
            attempt_id: row.get::<_, String>(1)?.as_str().into(),
            span_id: row.get(2)?,
        };
        Ok(span_row::damaged(key, unsigned(row.get(3)?), (row.get(4)?, row.get(5)?), cause))
    })
}

/// True if the content of a row is wrong, and not the file.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, InvalidColumnType, QueryReturnedNoRows, Utf8Error};
    matches!(error, FromSqlConversionFailure(..) | InvalidColumnType(..) | QueryReturnedNoRows | Utf8Error(..))
}

/// All rows of a table with a column `json`, in the order of their insertion.
pub(super) fn all<T: DeserializeOwned>(connection: &Connection, table: &'static str) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare_cached(&format!("SELECT json FROM {table} ORDER BY position"))?;
    let rows = statement.query_map([], |row| decode(&row.get::<_, String>(0)?))?;
    rows.collect()
}

/// The number of LLM calls of each rollout that has any. An index holds them, so no span is read.
pub(super) fn llm_calls(connection: &Connection, rollouts: &[RolloutId]) -> rusqlite::Result<HashMap<RolloutId, u64>> {
    let sql = "SELECT rollout_id, COUNT(*) FROM span
         WHERE is_llm_call = 1 AND rollout_id IN (SELECT value FROM json_each(?1)) GROUP BY rollout_id";
    let mut statement = connection.prepare_cached(sql)?;
    let ids: Vec<&str> = rollouts.iter().map(RolloutId::as_str).collect();
    let rows = statement.query_map(params![serde_json::Value::from(ids).to_string()], |row| {
        Ok((RolloutId::from(row.get::<_, String>(0)?.as_str()), unsigned(row.get(1)?)))
    })?;
    rows.collect()
}

/// The owners of traces.
pub(super) fn trace_owners(
    connection: &Connection,
    traces: &[String],
) -> rusqlite::Result<HashMap<String, (RolloutId, AttemptId)>> {
    let sql = "SELECT trace_id, rollout_id, attempt_id FROM trace WHERE trace_id IN (SELECT value FROM json_each(?1))";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![serde_json::Value::from(traces).to_string()], |row| {
        let id = |at: usize| row.get::<_, String>(at);
        Ok((id(0)?, (RolloutId::from(id(1)?.as_str()), AttemptId::from(id(2)?.as_str()))))
    })?;
    rows.collect()
}

/// A part of the log of ended rollouts.
pub(super) fn ended_rollouts(connection: &Connection, after: u64, limit: usize) -> rusqlite::Result<EndedRollouts> {
    let sql = "SELECT rollout_id FROM terminal WHERE position >= ?1 ORDER BY position LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![signed(after), signed(limit as u64)], |row| {
        Ok(RolloutId::from(row.get::<_, String>(0)?.as_str()))
    })?;
    let ids = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let sql = "SELECT COALESCE(MAX(position) + 1, 0) FROM terminal";
    let total = connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0))?;
    Ok(EndedRollouts { ids, total: unsigned(total) })
}

/// The sequence counter of a rollout; the default if it does not exist.
pub(super) fn sequence_state(connection: &Connection, id: &RolloutId) -> rusqlite::Result<RolloutSequenceState> {
    let sql = "SELECT registered, last_sequence_id FROM rollout WHERE rollout_id = ?1";
    let found = connection.prepare_cached(sql)?.query_row(params![id.as_str()], |row| {
        Ok(RolloutSequenceState { registered: row.get(0)?, last_sequence_id: unsigned(row.get(1)?) })
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// Counts over the whole file.
pub(super) fn statistics(connection: &Connection) -> rusqlite::Result<Statistics> {
    let count = |sql: &str| connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0)).map(unsigned);
    Ok(Statistics {
        rollouts: count("SELECT COUNT(*) FROM rollout")?,
        attempts: count("SELECT COUNT(*) FROM attempt")?,
        workers: count("SELECT COUNT(*) FROM worker")?,
        resources: count("SELECT COUNT(*) FROM resources")?,
        spans: count("SELECT COUNT(*) FROM span")?,
        size_bytes: size_bytes(connection)?,
        ..Statistics::default()
    })
}
