//! Reading: a small pool of read-only connections, used on threads that may block.
//!
//! It must not write. Each job sees one snapshot, whatever the writer does meanwhile.

use super::retention::size_bytes;
use super::{fault, schema, signed, unsigned};
use crate::store::blob::{Hash, Kind, unpack};
use crate::store::{Result, RolloutFilter, RolloutSummary, Standing, Statistics, StoreError, TerminalPage};
use crate::trace::{Attempt, AttemptId, AttemptedRollout, Rollout, RolloutId, Span, Timestamp, Value};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How many read at once.
const READERS: u32 = 4;

/// The pool.
pub(super) struct Readers {
    path: PathBuf,
    busy_timeout: Duration,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    /// An empty pool; connections are opened when they are first needed.
    pub(super) fn new(path: &Path, busy_timeout: Duration) -> Self {
        let permits = Arc::new(Semaphore::new(READERS as usize));
        Self { path: path.to_owned(), busy_timeout, idle: Mutex::new(Vec::new()), permits }
    }

    /// Runs `job` on a connection, on a thread that may block.
    pub(super) async fn read<T, F>(self: &Arc<Self>, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let readers = Arc::clone(self);
        let running = tokio::task::spawn_blocking(move || {
            let result = readers.run(job).map_err(|error| fault(&readers.path, &error));
            drop(permit);
            result
        });
        running.await.map_err(|error| StoreError::Other(error.to_string()))?
    }

    fn run<T>(&self, job: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.path, self.busy_timeout)?,
        };
        let snapshot = connection.unchecked_transaction()?;
        let result = job(&snapshot);
        snapshot.finish()?;
        // After an error the connection is not trusted any more.
        if result.is_ok() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        result
    }

    /// Waits for running jobs, refuses later ones, and lets go of the file.
    pub(super) async fn close(&self) {
        let all = self.permits.acquire_many(READERS).await;
        self.permits.close();
        drop(all);
        self.clear();
    }

    /// Lets go of the connections that nobody uses.
    pub(super) fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// One rollout.
pub(super) fn rollout(connection: &Connection, id: &RolloutId) -> rusqlite::Result<Option<Rollout>> {
    let mut statement = connection.prepare_cached("SELECT json, start_ns FROM rollout WHERE rollout_id = ?1")?;
    statement.query_row(params![id.as_str()], decode_rollout).optional()
}

/// Rollouts, newest first.
pub(super) fn rollouts(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<RolloutSummary>> {
    let mut statement = connection.prepare_cached(
        "SELECT json, start_ns,
             (SELECT COUNT(*) FROM attempt WHERE attempt.rollout_id = rollout.rollout_id),
             (SELECT COUNT(*) FROM span WHERE span.rollout_id = rollout.rollout_id),
             (SELECT COUNT(*) FROM span WHERE span.rollout_id = rollout.rollout_id AND is_error = 1)
         FROM rollout ORDER BY start_ns DESC, rollout_id DESC LIMIT ?1",
    )?;
    let rows = statement.query_map(params![i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        let (attempts, spans, errors) = (unsigned(row.get(2)?), unsigned(row.get(3)?), unsigned(row.get(4)?));
        Ok(RolloutSummary { rollout: decode_rollout(row)?, attempts, spans, errors })
    })?;
    rows.collect()
}

/// A rollout's attempts in order.
pub(super) fn attempts(connection: &Connection, id: &RolloutId) -> rusqlite::Result<Vec<Attempt>> {
    let sql = "SELECT json FROM attempt WHERE rollout_id = ?1 ORDER BY sequence_id";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![id.as_str()], |row| decode(&row.get::<_, String>(0)?))?;
    rows.collect()
}

/// A rollout's spans in order, with their long texts.
pub(super) fn spans(
    connection: &Connection,
    rollout: &RolloutId,
    attempt: Option<&AttemptId>,
) -> rusqlite::Result<Vec<Span>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, json, start_ns, end_ns FROM span WHERE rollout_id = ?1 AND (?2 IS NULL OR attempt_id = ?2)
         ORDER BY sequence_id, start_ns, id",
    )?;
    let mut rows = statement.query(params![rollout.as_str(), attempt.map(AttemptId::as_str)])?;
    let mut spans = Vec::new();
    // Pieces repeat within a rollout: each is fetched and unpacked once.
    let mut pieces = Pieces::default();
    while let Some(row) = rows.next()? {
        let mut span: Span = decode(&row.get::<_, String>(1)?)?;
        // JSON has float seconds; the columns are exact.
        span.start_time = row.get::<_, Option<i64>>(2)?.map(timestamp);
        span.end_time = row.get::<_, Option<i64>>(3)?.map(timestamp);
        for (name, number) in references(connection, row.get(0)?)? {
            span.attributes.insert(name, pieces.value(connection, number)?);
        }
        spans.push(span);
    }
    Ok(spans)
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

/// The rollouts that are meant, each with its latest attempt, by start time.
pub(super) fn attempted(connection: &Connection, filter: &RolloutFilter) -> rusqlite::Result<Vec<AttemptedRollout>> {
    let list = |words: Vec<&str>| serde_json::Value::from(words).to_string();
    let ids = filter.ids.as_ref().map(|ids| list(ids.iter().map(RolloutId::as_str).collect()));
    let statuses = filter.statuses.as_ref().map(|all| list(all.iter().map(|status| status.as_str()).collect()));
    let mut sql = "SELECT json, start_ns,
             (SELECT json FROM attempt WHERE attempt.rollout_id = rollout.rollout_id ORDER BY sequence_id DESC LIMIT 1)
         FROM rollout WHERE TRUE"
        .to_owned();
    // Conditions that are there can use their indexes.
    if ids.is_some() {
        sql.push_str(" AND rollout_id IN (SELECT value FROM json_each(:ids))");
    }
    if statuses.is_some() {
        sql.push_str(" AND json_extract(json, '$.status') IN (SELECT value FROM json_each(:statuses))");
    }
    sql.push_str(" ORDER BY start_ns, rollout_id");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut named: Vec<(&str, &dyn rusqlite::ToSql)> = Vec::new();
    if let Some(ids) = &ids {
        named.push((":ids", ids));
    }
    if let Some(statuses) = &statuses {
        named.push((":statuses", statuses));
    }
    let rows = statement.query_map(named.as_slice(), |row| {
        let attempt = row.get::<_, Option<String>>(2)?.map(|json| decode(&json)).transpose()?;
        Ok(AttemptedRollout { rollout: decode_rollout(row)?, attempt })
    })?;
    rows.collect()
}

/// All rows of a table of JSON, in the order in which they came.
pub(super) fn all<T: DeserializeOwned>(connection: &Connection, table: &'static str) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare_cached(&format!("SELECT json FROM {table} ORDER BY position"))?;
    let rows = statement.query_map([], |row| decode(&row.get::<_, String>(0)?))?;
    rows.collect()
}

/// The attempts that traces belong to.
pub(super) fn owners(
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

/// A page of the log of rollouts that have ended.
pub(super) fn terminal(connection: &Connection, after: u64, limit: usize) -> rusqlite::Result<TerminalPage> {
    let sql = "SELECT rollout_id FROM terminal WHERE position >= ?1 ORDER BY position LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![signed(after), signed(limit as u64)], |row| {
        Ok(RolloutId::from(row.get::<_, String>(0)?.as_str()))
    })?;
    let ids = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let sql = "SELECT COALESCE(MAX(position) + 1, 0) FROM terminal";
    let total = connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0))?;
    Ok(TerminalPage { ids, total: unsigned(total) })
}

/// What the hot path must know of a rollout.
pub(super) fn standing(connection: &Connection, id: &RolloutId) -> rusqlite::Result<Standing> {
    let sql = "SELECT registered, last_sequence_id FROM rollout WHERE rollout_id = ?1";
    let found = connection.prepare_cached(sql)?.query_row(params![id.as_str()], |row| {
        Ok(Standing { registered: row.get(0)?, last_sequence_id: unsigned(row.get(1)?) })
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// Counts.
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

fn references(connection: &Connection, span: i64) -> rusqlite::Result<BTreeMap<String, i64>> {
    let mut statement = connection.prepare_cached("SELECT attribute, text FROM span_text WHERE span = ?1")?;
    let rows = statement.query_map(params![span], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// The pieces of texts and lists that were read, by their number.
#[derive(Default)]
struct Pieces(HashMap<i64, Piece>);

struct Piece {
    before: Option<i64>,
    hash: Hash,
    kind: Kind,
    bytes: Vec<u8>,
}

impl Pieces {
    /// The value whose last piece has this number.
    fn value(&mut self, connection: &Connection, last: i64) -> rusqlite::Result<Value> {
        let mut chain = Vec::new();
        let mut next = Some(last);
        while let Some(number) = next {
            chain.push(number);
            let sql = "SELECT parent FROM text WHERE id = ?1";
            let parent = match self.0.get(&number) {
                Some(piece) => piece.before,
                None => {
                    connection.prepare_cached(sql)?.query_row(params![number], |row| row.get(0)).optional()?.flatten()
                }
            };
            // A piece is stored after the one before it; in a damaged file a chain could have no end.
            next = parent.filter(|parent| *parent < number);
        }
        let (mut before, mut kind, mut whole) = (None, Kind::Text, Vec::new());
        for number in chain.into_iter().rev() {
            let piece = match self.0.entry(number) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(Self::fetch(connection, number, before)?),
            };
            (before, kind) = (Some((number, piece.hash)), piece.kind);
            whole.extend_from_slice(&piece.bytes);
        }
        kind.value(whole).map_err(|error| damaged(error.into()))
    }

    fn fetch(connection: &Connection, number: i64, before: Option<(i64, Hash)>) -> rusqlite::Result<Piece> {
        let mut statement = connection.prepare_cached("SELECT hash, data FROM text WHERE id = ?1")?;
        let (hash, data): (Hash, Vec<u8>) =
            statement.query_row(params![number], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let unpacked = unpack(before.as_ref().map(|(_, hash)| hash), &hash, &data);
        let (kind, bytes) = unpacked.map_err(|error| damaged(error.into()))?;
        Ok(Piece { before: before.map(|(number, _)| number), hash, kind, bytes })
    }
}

fn damaged(error: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, error)
}

pub(super) fn decode_rollout(row: &rusqlite::Row<'_>) -> rusqlite::Result<Rollout> {
    let mut rollout: Rollout = decode(&row.get::<_, String>(0)?)?;
    rollout.start_time = timestamp(row.get(1)?);
    Ok(rollout)
}

pub(super) fn decode<T: DeserializeOwned>(json: &str) -> rusqlite::Result<T> {
    serde_json::from_str(json)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}

fn timestamp(nanos: i64) -> Timestamp {
    Timestamp::from_unix_nanos(unsigned(nanos))
}
