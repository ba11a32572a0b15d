//! The reads of a SQLite store, each on a snapshot.

use super::retention::size_bytes;
use super::rows::{self, decode};
use crate::store::api::{EndedRollouts, RolloutSequenceState, RolloutSummary, Statistics};
use crate::store::sql::{signed, unsigned};
use crate::trace::{Attempt, AttemptId, Rollout, RolloutId};
use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;
use std::collections::HashMap;

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

/// Counts over the whole file. None is made by counting rows that traffic adds.
pub(super) fn statistics(connection: &Connection) -> rusqlite::Result<Statistics> {
    let sql = "SELECT rollouts, attempts, spans, (SELECT COUNT(*) FROM worker), (SELECT COUNT(*) FROM resources)
         FROM row_count";
    let size_bytes = size_bytes(connection)?;
    connection.prepare_cached(sql)?.query_row([], |row| {
        Ok(Statistics {
            rollouts: unsigned(row.get(0)?),
            attempts: unsigned(row.get(1)?),
            spans: unsigned(row.get(2)?),
            workers: unsigned(row.get(3)?),
            resources: unsigned(row.get(4)?),
            size_bytes,
            ..Statistics::default()
        })
    })
}
