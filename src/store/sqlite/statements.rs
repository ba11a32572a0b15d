//! What is written, statement by statement, within a transaction of the writer's.

use super::reader::{decode, decode_rollout};
use super::signed;
use super::texts::RecentTexts;
use crate::store::blob::{ExternalizedValue, Hash, take};
use crate::store::span_row;
use crate::store::{Appended, Result, SpanObserver, StoreError, UNASSIGNED};
use crate::trace::{Attempt, AttemptId, Rollout, RolloutId, Span, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

/// A span, encoded for its row.
pub(super) struct Row {
    span: Arc<Span>,
    json: String,
    taken: Vec<ExternalizedValue>,
    // The pieces that were not known when it was encoded.
    packed: HashMap<Hash, Vec<u8>>,
}

impl Row {
    /// About what it takes in the file.
    pub(super) fn size_bytes(&self) -> usize {
        ROW_BYTES + self.json.len() + self.packed.values().map(Vec::len).sum::<usize>()
    }

    /// Packs what is long and not stored yet, and writes the rest as JSON.
    pub(super) fn encode(span: &Arc<Span>, recent: &RecentTexts) -> Result<Self> {
        let taken = take(span);
        let mut packed = HashMap::new();
        for value in &taken {
            for piece in value.pieces.iter().filter(|piece| !recent.knows(&piece.hash)) {
                packed.entry(piece.hash).or_insert_with(|| value.pack(piece, span));
            }
        }
        let json = span_row::json(span, &taken).map_err(|error| StoreError::Other(error.to_string()))?;
        Ok(Self { span: Arc::clone(span), json, taken, packed })
    }
}

/// Stores spans, their rollouts and attempts with them; what was done of each batch.
pub(super) fn append(
    connection: &Connection,
    batches: &[Vec<Row>],
    recent: &mut RecentTexts,
    heard: SpanObserver,
) -> rusqlite::Result<Vec<Appended>> {
    let mut from: BTreeSet<(&RolloutId, &AttemptId)> = BTreeSet::new();
    let mut done = Vec::with_capacity(batches.len());
    ensure(connection, batches.iter().flatten())?;
    for rows in batches {
        let mut appended = Appended::default();
        for row in rows {
            if insert_span(connection, row, recent)? {
                appended.stored += 1;
                from.insert((&row.span.rollout_id, &row.span.attempt_id));
            } else {
                appended.duplicates += 1;
            }
        }
        done.push(appended);
    }
    from.into_iter().try_for_each(|(rollout, attempt)| hear(connection, rollout, attempt, heard))?;
    Ok(done)
}

/// Something was heard from an attempt; if its rollout is registered, that has consequences.
fn hear(
    connection: &Connection,
    rollout: &RolloutId,
    attempt: &AttemptId,
    heard: SpanObserver,
) -> rusqlite::Result<()> {
    let sql = "SELECT rollout.json, start_ns, attempt.json,
             sequence_id = (SELECT MAX(sequence_id) FROM attempt WHERE rollout_id = ?1)
         FROM rollout JOIN attempt USING (rollout_id) WHERE rollout_id = ?1 AND attempt_id = ?2 AND registered";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row(params![rollout.as_str(), attempt.as_str()], |row| {
        Ok((decode_rollout(row)?, decode::<Attempt>(&row.get::<_, String>(2)?)?, row.get::<_, bool>(3)?))
    });
    let Some((mut rollout, mut attempt, is_latest)) = found.optional()? else { return Ok(()) };
    let before = rollout.status;
    if heard(&mut rollout, &mut attempt, is_latest, SystemTime::now().into()) {
        put_attempt(connection, attempt)?;
        if rollout.status != before {
            put_rollout(connection, &rollout, true)?;
        }
    }
    Ok(())
}

/// Makes sure of the rollouts and attempts, each once: most spans that come together are of a few.
fn ensure<'a>(connection: &Connection, rows: impl Iterator<Item = &'a Row>) -> rusqlite::Result<()> {
    let mut rollouts: BTreeMap<&RolloutId, (i64, Timestamp)> = BTreeMap::new();
    let mut attempts: BTreeMap<(&RolloutId, &AttemptId), Timestamp> = BTreeMap::new();
    let mut traces: BTreeMap<&str, (&RolloutId, &AttemptId)> = BTreeMap::new();
    for row in rows {
        let span = &row.span;
        let start = span.start_time.unwrap_or_else(|| SystemTime::now().into());
        let (last, _) = rollouts.entry(&span.rollout_id).or_insert((0, start));
        *last = signed(span.sequence_id).max(*last);
        attempts.entry((&span.rollout_id, &span.attempt_id)).or_insert(start);
        if span.rollout_id.as_str() != UNASSIGNED {
            traces.entry(&span.trace_id).or_insert((&span.rollout_id, &span.attempt_id));
        }
    }
    for (trace, (rollout, attempt)) in traces {
        let sql = "INSERT OR IGNORE INTO trace (trace_id, rollout_id, attempt_id) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(sql)?.execute(params![trace, rollout.as_str(), attempt.as_str()])?;
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
    if rollout.status.is_final() {
        log_end(connection, &rollout.rollout_id)?;
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, json) VALUES (?1, ?2, 0, ?3, ?4)
         ON CONFLICT (rollout_id) DO UPDATE SET
             registered = excluded.registered, start_ns = excluded.start_ns, json = excluded.json",
    )?;
    let start = signed(rollout.start_time.unix_nanos);
    statement.execute(params![rollout.rollout_id.as_str(), is_registered, start, encode(rollout)?])?;
    Ok(())
}

/// A rollout is about to be stored in a final state: if it is not in one yet, this is an end. There is one writer, so
/// that the next position is known.
fn log_end(connection: &Connection, id: &RolloutId) -> rusqlite::Result<()> {
    let sql = "INSERT INTO terminal (position, rollout_id)
         SELECT (SELECT COALESCE(MAX(position) + 1, 0) FROM terminal), ?1
         WHERE NOT EXISTS (SELECT 1 FROM rollout WHERE rollout_id = ?1
             AND json_extract(json, '$.status') IN ('succeeded', 'failed', 'cancelled'))";
    connection.prepare_cached(sql)?.execute(params![id.as_str()]).map(drop)
}

fn ensure_attempt(
    connection: &Connection,
    rollout: &RolloutId,
    attempt: &AttemptId,
    start: Timestamp,
) -> rusqlite::Result<()> {
    let sql = "SELECT 1 FROM attempt WHERE rollout_id = ?1 AND attempt_id = ?2";
    if connection.prepare_cached(sql)?.exists(params![rollout.as_str(), attempt.as_str()])? {
        return Ok(());
    }
    let new = Attempt::running(rollout.clone(), attempt.clone(), start);
    let sql = "SELECT 1 FROM rollout JOIN attempt USING (rollout_id) WHERE rollout_id = ?1 AND registered";
    if connection.prepare_cached(sql)?.exists(params![rollout.as_str()])? {
        // Its attempts are those that somebody started: one that only a span names is never the latest.
        let sql = "INSERT INTO attempt (rollout_id, attempt_id, sequence_id, json) VALUES (?1, ?2, 0, ?3)";
        let json = encode(&Attempt { sequence_id: 0, ..new })?;
        connection.prepare_cached(sql)?.execute(params![rollout.as_str(), attempt.as_str(), json])?;
        return Ok(());
    }
    put_attempt(connection, new).map(drop)
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
    let span = &row.span;
    let stored = connection
        .prepare_cached(
            "INSERT INTO span (rollout_id, attempt_id, sequence_id, span_id, start_ns, end_ns, is_error, is_llm_call, json)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (rollout_id, attempt_id, span_id) DO NOTHING",
        )?
        .execute(params![
            span.rollout_id.as_str(),
            span.attempt_id.as_str(),
            signed(span.sequence_id),
            span.span_id,
            nanos(span.start_time),
            nanos(span.end_time),
            span.is_error(),
            span.is_llm_call(),
            row.json,
        ])?;
    if stored == 0 {
        return Ok(false);
    }
    let id = connection.last_insert_rowid();
    for value in &row.taken {
        let last = recent.number_of(connection, value, &row.packed, span)?;
        let sql = "INSERT INTO span_text (span, attribute, text) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(sql)?.execute(params![id, value.attribute, last])?;
    }
    Ok(true)
}

pub(super) fn encode(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Keys, and the row's part of the indexes.
const ROW_BYTES: usize = 500;
