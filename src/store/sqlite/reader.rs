//! Reading: a small pool of read-only connections, used on threads that may block.
//!
//! It must not write. Each job sees one snapshot, whatever the writer does meanwhile.

use super::retention::size_bytes;
use super::{fault, schema, unsigned};
use crate::store::blob::{Hash, Kind, unpack};
use crate::store::{Result, RolloutSummary, Standing, Statistics, StoreError};
use crate::trace::{Attempt, AttemptId, Rollout, RolloutId, Span, Timestamp, Value};
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
        spans: count("SELECT COUNT(*) FROM span")?,
        size_bytes: size_bytes(connection)?,
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

fn decode_rollout(row: &rusqlite::Row<'_>) -> rusqlite::Result<Rollout> {
    let mut rollout: Rollout = decode(&row.get::<_, String>(0)?)?;
    rollout.start_time = timestamp(row.get(1)?);
    Ok(rollout)
}

fn decode<T: DeserializeOwned>(json: &str) -> rusqlite::Result<T> {
    serde_json::from_str(json)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}

fn timestamp(nanos: i64) -> Timestamp {
    Timestamp::from_unix_nanos(unsigned(nanos))
}
