//! What is written, statement by statement, within a transaction of the writer's.

use super::texts::RecentTexts;
use super::{lean, signed};
use crate::store::blob::{Split, split};
use crate::store::{Appended, Result, StoreError};
use crate::trace::{Attempt, AttemptId, Rollout, RolloutId, Span, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// A span, encoded for its row.
pub(super) struct Row {
    rollout_id: RolloutId,
    attempt_id: AttemptId,
    sequence_id: i64,
    span_id: String,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    is_error: bool,
    json: String,
    split: Split,
}

impl Row {
    /// About what it takes in the file.
    pub(super) fn size_bytes(&self) -> usize {
        ROW_BYTES + self.json.len() + self.split.blobs.iter().map(|blob| blob.data.len()).sum::<usize>()
    }

    /// Packs the long texts and writes the rest as JSON.
    pub(super) fn encode(span: &Span) -> Result<Self> {
        let split = split(span);
        let json = lean::json(span, &split.references).map_err(|error| StoreError::Other(error.to_string()))?;
        Ok(Self {
            sequence_id: signed(span.sequence_id),
            start: span.start_time,
            end: span.end_time,
            is_error: span.is_error(),
            rollout_id: span.rollout_id.clone(),
            attempt_id: span.attempt_id.clone(),
            span_id: span.span_id.clone(),
            json,
            split,
        })
    }
}

/// Stores spans, their rollouts and attempts with them.
pub(super) fn append(connection: &Connection, rows: &[Row], recent: &mut RecentTexts) -> rusqlite::Result<Appended> {
    let mut appended = Appended::default();
    ensure(connection, rows)?;
    for row in rows {
        if insert_span(connection, row, recent)? {
            appended.stored += 1;
        } else {
            appended.duplicates += 1;
        }
    }
    Ok(appended)
}

/// Makes sure of the rollouts and attempts, each once: most spans that come together are of a few.
fn ensure(connection: &Connection, rows: &[Row]) -> rusqlite::Result<()> {
    let mut rollouts: BTreeMap<&RolloutId, (i64, Timestamp)> = BTreeMap::new();
    let mut attempts: BTreeMap<(&RolloutId, &AttemptId), Timestamp> = BTreeMap::new();
    for row in rows {
        let start = row.start.unwrap_or_else(|| SystemTime::now().into());
        let (last, _) = rollouts.entry(&row.rollout_id).or_insert((row.sequence_id, start));
        *last = row.sequence_id.max(*last);
        attempts.entry((&row.rollout_id, &row.attempt_id)).or_insert(start);
    }
    for (rollout, (last, start)) in rollouts {
        ensure_rollout(connection, rollout, last, start)?;
    }
    attempts.into_iter().try_for_each(|((rollout, attempt), start)| ensure_attempt(connection, rollout, attempt, start))
}

pub(super) fn ensure_rollout(
    connection: &Connection,
    id: &RolloutId,
    sequence: i64,
    start: Timestamp,
) -> rusqlite::Result<()> {
    let sql = "UPDATE rollout SET last_sequence_id = MAX(last_sequence_id, ?2) WHERE rollout_id = ?1";
    if connection.prepare_cached(sql)?.execute(params![id.as_str(), sequence])? > 0 {
        return Ok(());
    }
    put_rollout(connection, &Rollout::running(id.clone(), start), false)?;
    connection.prepare_cached(sql)?.execute(params![id.as_str(), sequence])?;
    Ok(())
}

pub(super) fn put_rollout(connection: &Connection, rollout: &Rollout, is_registered: bool) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, json) VALUES (?1, ?2, 0, ?3, ?4)
         ON CONFLICT (rollout_id) DO UPDATE SET
             registered = excluded.registered, start_ns = excluded.start_ns, json = excluded.json",
    )?;
    let start = signed(rollout.start_time.unix_nanos);
    statement.execute(params![rollout.rollout_id.as_str(), is_registered, start, encode(rollout)?])?;
    Ok(())
}

fn ensure_attempt(
    connection: &Connection,
    rollout: &RolloutId,
    attempt: &AttemptId,
    start: Timestamp,
) -> rusqlite::Result<()> {
    let sql = "SELECT 1 FROM attempt WHERE rollout_id = ?1 AND attempt_id = ?2";
    let is_known = connection.prepare_cached(sql)?.exists(params![rollout.as_str(), attempt.as_str()])?;
    if !is_known {
        put_attempt(connection, Attempt::running(rollout.clone(), attempt.clone(), start))?;
    }
    Ok(())
}

pub(super) fn put_attempt(connection: &Connection, mut attempt: Attempt) -> rusqlite::Result<Attempt> {
    let (rollout, id) = (attempt.rollout_id.clone(), attempt.attempt_id.clone());
    let sql = "SELECT sequence_id FROM attempt WHERE rollout_id = ?1 AND attempt_id = ?2";
    let known: Option<i64> = connection
        .prepare_cached(sql)?
        .query_row(params![rollout.as_str(), id.as_str()], |row| row.get(0))
        .optional()?;
    let sequence = match known {
        Some(sequence) => sequence,
        None => connection
            .prepare_cached("SELECT COALESCE(MAX(sequence_id), 0) + 1 FROM attempt WHERE rollout_id = ?1")?
            .query_row(params![rollout.as_str()], |row| row.get::<_, i64>(0))?,
    };
    attempt.sequence_id = super::unsigned(sequence);
    let sql = "INSERT OR REPLACE INTO attempt (rollout_id, attempt_id, sequence_id, json) VALUES (?1, ?2, ?3, ?4)";
    let json = encode(&attempt)?;
    connection.prepare_cached(sql)?.execute(params![rollout.as_str(), id.as_str(), sequence, json])?;
    Ok(attempt)
}

fn insert_span(connection: &Connection, row: &Row, recent: &mut RecentTexts) -> rusqlite::Result<bool> {
    let nanos = |time: Option<Timestamp>| time.map(|time| signed(time.unix_nanos));
    let stored = connection
        .prepare_cached(
            "INSERT INTO span (rollout_id, attempt_id, sequence_id, span_id, start_ns, end_ns, is_error, json)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (rollout_id, attempt_id, span_id) DO NOTHING",
        )?
        .execute(params![
            row.rollout_id.as_str(),
            row.attempt_id.as_str(),
            row.sequence_id,
            row.span_id,
            nanos(row.start),
            nanos(row.end),
            row.is_error,
            row.json,
        ])?;
    if stored == 0 {
        return Ok(false);
    }
    let id = connection.last_insert_rowid();
    let mut numbers = BTreeMap::new();
    for blob in &row.split.blobs {
        numbers.insert(blob.hash, recent.number_of(connection, blob)?);
    }
    for (attribute, hash) in &row.split.references {
        let sql = "INSERT INTO span_text (span, attribute, text) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(sql)?.execute(params![id, attribute, numbers.get(hash)])?;
    }
    Ok(true)
}

fn encode(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Keys, and the row's part of the indexes.
const ROW_BYTES: usize = 500;
