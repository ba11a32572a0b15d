//! The writes of a SQLite store, statement by statement, within a transaction of the writer.

use super::recent::Recent;
use super::rows::{self, encode};
use super::spans::newest_number;
use super::texts::AddedPieces;
use crate::store::api::{Appended, RolloutSequenceState, UNASSIGNED};
use crate::store::externalized::Hash;
use crate::store::records::SpanObserver;
use crate::store::span_row::{COLUMNS, ColumnValue, KEY_COLUMNS, SpanRow, insert_columns};
use crate::store::sql::{signed, status_list, unsigned};
use crate::trace::{Attempt, AttemptId, AttemptPosition, Rollout, RolloutId, RolloutStatus, Span, Timestamp};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, ToSql, params, params_from_iter};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

/// A span, encoded for its row, with the packed pieces of its long attributes.
pub(super) struct PackedRow {
    row: SpanRow,
    /// The pieces that were not stored recently when the span was encoded.
    packed: HashMap<Hash, Vec<u8>>,
}

impl PackedRow {
    /// About the size that the row adds to the file.
    pub(super) fn size_bytes(&self) -> usize {
        ROW_BYTES + self.row.record.len() + self.packed.values().map(Vec::len).sum::<usize>()
    }

    /// Encodes a span outside of the transaction, since compression takes longer than all writes.
    pub(super) fn encode(span: &Arc<Span>, recent: &Recent) -> Self {
        let row = SpanRow::encode(span);
        let mut packed = HashMap::new();
        for value in &row.externalized {
            for piece in value.pieces.iter().filter(|piece| !recent.texts.contains(&piece.hash)) {
                packed.entry(piece.hash).or_insert_with(|| value.pack(piece, span));
            }
        }
        Self { row, packed }
    }

    fn span(&self) -> &Span {
        &self.row.span
    }
}

impl ToSql for ColumnValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Integer(Some(number)) => ValueRef::Integer(*number),
            Self::Integer(None) => ValueRef::Null,
            Self::Boolean(value) => ValueRef::Integer(i64::from(*value)),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Stores batches of spans with their rollouts, attempts and traces. Returns a result for each batch.
pub(super) fn append(
    connection: &Connection,
    batches: &[Vec<PackedRow>],
    recent: &Recent,
    observer: Option<SpanObserver>,
) -> rusqlite::Result<Vec<Appended>> {
    let mut updated: BTreeSet<(&RolloutId, &AttemptId)> = BTreeSet::new();
    let mut traces: BTreeMap<&str, NewTrace<'_>> = BTreeMap::new();
    let mut results = Vec::with_capacity(batches.len());
    let mut pieces = AddedPieces::default();
    ensure_parents(connection, batches.iter().flatten())?;
    // Without a number, SQLite gives the one after the highest in the table, which a removed span may have had.
    let mut next = Some(newest_number(connection)? + 1);
    for rows in batches {
        let mut appended = Appended::default();
        for row in rows {
            let Some(id) = insert_span(connection, row, next, recent, &mut pieces)? else {
                appended.duplicates += 1;
                continue;
            };
            next = None;
            let span = row.span();
            if row.row.is_whole {
                recent.spans.add(unsigned(id), &row.row.span);
            }
            updated.insert((&span.rollout_id, &span.attempt_id));
            if span.rollout_id.as_str() != UNASSIGNED {
                let trace = traces.entry(&span.trace_id).or_insert(NewTrace { first: span, last_span: id });
                if trace.first.rollout_id == span.rollout_id {
                    trace.last_span = id;
                }
            }
            appended.stored += 1;
        }
        results.push(appended);
    }
    traces.into_iter().try_for_each(|(id, trace)| put_trace(connection, id, &trace))?;
    let stored: usize = results.iter().map(|appended| appended.stored).sum();
    let counted = "UPDATE row_count SET spans = spans + ?1, pieces = pieces + ?2, piece_bytes = piece_bytes + ?3";
    let counts = params![signed(stored as u64), signed(pieces.pieces), signed(pieces.bytes)];
    connection.prepare_cached(counted)?.execute(counts)?;
    if let Some(observer) = observer {
        updated.into_iter().try_for_each(|(rollout, attempt)| observe(connection, rollout, attempt, observer))?;
    }
    Ok(results)
}

/// A trace in a batch of spans.
struct NewTrace<'a> {
    /// The first span of the trace in the batch.
    first: &'a Span,
    /// Row of the last span that belongs to the same rollout.
    last_span: i64,
}

/// Adds a trace, or notes the last span of a known one.
fn put_trace(connection: &Connection, id: &str, trace: &NewTrace<'_>) -> rusqlite::Result<()> {
    let sql = "INSERT INTO trace (trace_id, rollout_id, attempt_id, last_span) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (trace_id) DO UPDATE SET last_span = excluded.last_span WHERE rollout_id = excluded.rollout_id";
    let NewTrace { first, last_span } = trace;
    let values = params![id, first.rollout_id.as_str(), first.attempt_id.as_str(), last_span];
    connection.prepare_cached(sql)?.execute(values).map(drop)
}

/// Calls the observer for an attempt with new spans, if its rollout is registered, and stores what it changed.
fn observe(
    connection: &Connection,
    rollout: &RolloutId,
    attempt: &AttemptId,
    observer: SpanObserver,
) -> rusqlite::Result<()> {
    let sql = "SELECT rollout.json, start_ns, attempt.json,
             sequence_id = (SELECT MAX(sequence_id) FROM attempt WHERE rollout_id = ?1)
         FROM rollout JOIN attempt USING (rollout_id) WHERE rollout_id = ?1 AND attempt_id = ?2 AND registered";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row(params![rollout.as_str(), attempt.as_str()], |row| {
        let position = if row.get(3)? { AttemptPosition::Latest } else { AttemptPosition::Earlier };
        Ok((rows::rollout(row)?, rows::attempt(row, 2)?, position))
    });
    let Some((mut rollout, Some(mut attempt), position)) = found.optional()? else { return Ok(()) };
    let before = rollout.status;
    observer(&mut rollout, &mut attempt, position, SystemTime::now().into());
    upsert_attempt(connection, attempt)?;
    if rollout.status != before {
        upsert_rollout(connection, &rollout, Registration::Registered)?;
    }
    Ok(())
}

/// Creates the missing rollouts and attempts of new spans, and raises the sequence counters. Each is touched once, because
/// most spans of a batch belong to few rollouts.
fn ensure_parents<'a>(connection: &Connection, rows: impl Iterator<Item = &'a PackedRow>) -> rusqlite::Result<()> {
    let mut rollouts: BTreeMap<&RolloutId, (i64, Timestamp)> = BTreeMap::new();
    let mut attempts: BTreeMap<(&RolloutId, &AttemptId), Timestamp> = BTreeMap::new();
    for row in rows {
        let span = row.span();
        let start = span.start_time.unwrap_or_else(|| SystemTime::now().into());
        let (last, _) = rollouts.entry(&span.rollout_id).or_insert((0, start));
        *last = signed(span.sequence_id).max(*last);
        attempts.entry((&span.rollout_id, &span.attempt_id)).or_insert(start);
    }
    for (rollout, (last, start)) in rollouts {
        ensure_rollout(connection, rollout, last, start)?;
    }
    attempts.into_iter().try_for_each(|((rollout, attempt), start)| ensure_attempt(connection, rollout, attempt, start))
}

/// Creates a missing rollout, unregistered, and raises its sequence counter to `sequence`.
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
    upsert_rollout(connection, &Rollout::running(id.clone(), start), Registration::Unregistered)?;
    connection.prepare_cached(sql)?.execute(params![id.as_str(), sequence])?;
    Ok(())
}

/// Assigns the next sequence id of a rollout, above `above`. The rollout is created if it is missing.
pub(super) fn next_sequences(
    connection: &Connection,
    id: &RolloutId,
    above: u64,
    count: u64,
) -> rusqlite::Result<RolloutSequenceState> {
    ensure_rollout(connection, id, 0, SystemTime::now().into())?;
    let sql = "UPDATE rollout SET last_sequence_id = MAX(last_sequence_id, ?2) + ?3 WHERE rollout_id = ?1
         RETURNING registered, last_sequence_id";
    connection.prepare_cached(sql)?.query_row(params![id.as_str(), signed(above), signed(count)], |row| {
        Ok(RolloutSequenceState { registered: row.get(0)?, last_sequence_id: unsigned(row.get(1)?) })
    })
}

/// Whether a rollout was registered, or is only named by spans.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Registration {
    Registered,
    Unregistered,
}

pub(super) fn upsert_rollout(
    connection: &Connection,
    rollout: &Rollout,
    registration: Registration,
) -> rusqlite::Result<()> {
    if rollout.status.is_final() {
        log_end(connection, &rollout.rollout_id)?;
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, json) VALUES (?1, ?2, 0, ?3, ?4)
         ON CONFLICT (rollout_id) DO UPDATE SET
             registered = excluded.registered, start_ns = excluded.start_ns, json = excluded.json",
    )?;
    let start = signed(rollout.start_time.unix_nanos);
    let registered = registration == Registration::Registered;
    statement.execute(params![rollout.rollout_id.as_str(), registered, start, encode(rollout)?])?;
    Ok(())
}

/// Adds an entry to the log of ended rollouts, unless the rollout is in a final state already. Called before the final state
/// is stored. There is one writer, so that the highest position is known.
fn log_end(connection: &Connection, id: &RolloutId) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT INTO terminal (position, rollout_id)
         SELECT (SELECT COALESCE(MAX(position) + 1, 0) FROM terminal), ?1
         WHERE NOT EXISTS (SELECT 1 FROM rollout WHERE rollout_id = ?1 AND json_extract(json, '$.status') IN ({}))",
        status_list(RolloutStatus::is_final)
    );
    connection.prepare_cached(&sql)?.execute(params![id.as_str()]).map(drop)
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
    if !connection.prepare_cached(sql)?.exists(params![rollout.as_str()])? {
        return upsert_attempt(connection, new).map(drop);
    }
    // Only started attempts of a registered rollout can be its latest.
    let sql = "INSERT INTO attempt (rollout_id, attempt_id, sequence_id, json) VALUES (?1, ?2, 0, ?3)";
    let json = encode(&Attempt { sequence_id: 0, ..new })?;
    connection.prepare_cached(sql)?.execute(params![rollout.as_str(), attempt.as_str(), json]).map(drop)
}

pub(super) fn upsert_attempt(connection: &Connection, mut attempt: Attempt) -> rusqlite::Result<Attempt> {
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
    attempt.sequence_id = unsigned(sequence);
    let sql = "INSERT INTO attempt (rollout_id, attempt_id, sequence_id, json) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (rollout_id, attempt_id) DO UPDATE SET json = excluded.json";
    let json = encode(&attempt)?;
    connection.prepare_cached(sql)?.execute(params![rollout.as_str(), id.as_str(), sequence, json])?;
    Ok(attempt)
}

static INSERT_SPAN: LazyLock<String> = LazyLock::new(|| {
    let (columns, places) = (insert_columns(), COLUMNS.map(|_| "?").join(", "));
    format!("INSERT INTO span (id, {columns}) VALUES (?, {places}) ON CONFLICT ({KEY_COLUMNS}) DO NOTHING")
});

/// Inserts a span with its externalized attributes, with this number or else the one after the highest, and counts new pieces.
/// Returns the number of its row; `None` if the span is stored already.
fn insert_span(
    connection: &Connection,
    row: &PackedRow,
    number: Option<i64>,
    recent: &Recent,
    pieces: &mut AddedPieces,
) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached(&INSERT_SPAN)?;
    let values = COLUMNS.iter().map(|column| (column.value)(&row.row));
    let values = std::iter::once(ColumnValue::Integer(number)).chain(values);
    if statement.execute(params_from_iter(values))? == 0 {
        return Ok(None);
    }
    let id = connection.last_insert_rowid();
    for value in &row.row.externalized {
        let last_piece = recent.texts.store(connection, value, &row.packed, row.span(), pieces)?;
        let sql = "INSERT INTO span_text (span, attribute, text) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(sql)?.execute(params![id, value.attribute, last_piece])?;
    }
    Ok(Some(id))
}

/// Estimated size of a row without its record and pieces, including its index entries.
const ROW_BYTES: usize = 500;
