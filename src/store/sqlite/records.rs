//! The file's transactions: rollouts and what belongs to them, read and written on the writer's connection.

use super::reader::{decode, decode_rollout};
use super::retention::remove_rollout;
use super::statements::{encode, ensure_rollout, put_attempt, put_rollout};
use super::{fault, signed};
use crate::store::{Change, Records, Result, StoreError};
use crate::trace::{Attempt, AttemptId, ResourcesUpdate, Rollout, RolloutId, Worker};
use rusqlite::{Connection, OptionalExtension, Params, params};
use serde::de::DeserializeOwned;
use std::path::Path;

/// Runs a change. The inner error is the change's own: nothing of it is to stay; the outer one is the file's.
pub(super) fn run(connection: &Connection, path: &Path, mut change: Change) -> rusqlite::Result<()> {
    let mut records = Transaction { connection, path, failure: None };
    let result = change(&mut records);
    match (records.failure, result) {
        (Some(failure), _) => Err(failure),
        (None, Err(error)) => Err(rusqlite::Error::ToSqlConversionFailure(Box::new(error))),
        (None, Ok(())) => Ok(()),
    }
}

struct Transaction<'a> {
    connection: &'a Connection,
    path: &'a Path,
    // What the file did, whatever the change makes of it.
    failure: Option<rusqlite::Error>,
}

impl Transaction<'_> {
    fn with<T>(&mut self, job: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        job(self.connection).map_err(|error| {
            let told = fault(self.path, &error);
            self.failure.get_or_insert(error);
            told
        })
    }

    fn one<T: DeserializeOwned>(&mut self, sql: &str, params: impl Params) -> Result<Option<T>> {
        self.with(|connection| {
            let found: Option<String> =
                connection.prepare_cached(sql)?.query_row(params, |row| row.get(0)).optional()?;
            found.map(|json| decode(&json)).transpose()
        })
    }

    fn write(&mut self, sql: &str, params: impl Params) -> Result<()> {
        self.with(|connection| connection.prepare_cached(sql)?.execute(params).map(drop))
    }
}

impl Records for Transaction<'_> {
    fn rollout(&mut self, id: &RolloutId) -> Result<Option<Rollout>> {
        self.with(|connection| super::reader::rollout(connection, id))
    }

    fn put_rollout(&mut self, rollout: &Rollout) -> Result<()> {
        self.with(|connection| put_rollout(connection, rollout, true))
    }

    fn remove_rollout(&mut self, id: &RolloutId) -> Result<u64> {
        self.with(|connection| remove_rollout(connection, id))
    }

    fn raise_sequence(&mut self, id: &RolloutId, to: u64) -> Result<()> {
        let sql = "UPDATE rollout SET last_sequence_id = MAX(last_sequence_id, ?2) WHERE rollout_id = ?1";
        self.write(sql, params![id.as_str(), signed(to)])
    }

    fn attempt(&mut self, rollout: &RolloutId, attempt: &AttemptId) -> Result<Option<Attempt>> {
        let sql = "SELECT json FROM attempt WHERE rollout_id = ?1 AND attempt_id = ?2";
        self.one(sql, params![rollout.as_str(), attempt.as_str()])
    }

    fn latest_attempt(&mut self, rollout: &RolloutId) -> Result<Option<Attempt>> {
        let sql = "SELECT json FROM attempt WHERE rollout_id = ?1 ORDER BY sequence_id DESC LIMIT 1";
        self.one(sql, params![rollout.as_str()])
    }

    fn put_attempt(&mut self, attempt: Attempt) -> Result<Attempt> {
        self.with(|connection| {
            ensure_rollout(connection, &attempt.rollout_id, 0, attempt.start_time)?;
            put_attempt(connection, attempt)
        })
    }

    fn watched(&mut self) -> Result<Vec<(Rollout, Attempt)>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT json, start_ns,
                     (SELECT json FROM attempt WHERE attempt.rollout_id = rollout.rollout_id
                      ORDER BY sequence_id DESC LIMIT 1)
                 FROM rollout WHERE json_extract(json, '$.status') IN ('preparing', 'running')
                     AND (json_extract(json, '$.config.timeout_seconds') IS NOT NULL
                          OR json_extract(json, '$.config.unresponsive_seconds') IS NOT NULL)",
            )?;
            let mut rows = statement.query([])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                if let Some(attempt) = row.get::<_, Option<String>>(2)? {
                    all.push((decode_rollout(row)?, decode(&attempt)?));
                }
            }
            Ok(all)
        })
    }

    fn push(&mut self, rollout: &RolloutId) -> Result<()> {
        self.write("INSERT OR IGNORE INTO queue (rollout_id) VALUES (?1)", params![rollout.as_str()])
    }

    fn pop(&mut self) -> Result<Option<RolloutId>> {
        let sql = "DELETE FROM queue WHERE position = (SELECT MIN(position) FROM queue) RETURNING rollout_id";
        self.with(|connection| {
            let popped: Option<String> = connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
            Ok(popped.map(|id| RolloutId::from(id.as_str())))
        })
    }

    fn worker(&mut self, id: &str) -> Result<Option<Worker>> {
        self.one("SELECT json FROM worker WHERE worker_id = ?1", params![id])
    }

    fn put_worker(&mut self, worker: &Worker) -> Result<()> {
        let json = json_of(worker)?;
        let sql = "INSERT INTO worker (worker_id, json) VALUES (?1, ?2)
                   ON CONFLICT (worker_id) DO UPDATE SET json = excluded.json";
        self.write(sql, params![worker.worker_id, json])
    }

    fn resources(&mut self, id: &str) -> Result<Option<ResourcesUpdate>> {
        self.one("SELECT json FROM resources WHERE resources_id = ?1", params![id])
    }

    fn latest_resources(&mut self) -> Result<Option<ResourcesUpdate>> {
        self.one("SELECT json FROM resources ORDER BY update_ns DESC, position DESC LIMIT 1", [])
    }

    fn put_resources(&mut self, resources: &ResourcesUpdate) -> Result<()> {
        let json = json_of(resources)?;
        let sql = "INSERT INTO resources (resources_id, update_ns, json) VALUES (?1, ?2, ?3)
                   ON CONFLICT (resources_id) DO UPDATE SET update_ns = excluded.update_ns, json = excluded.json";
        let updated = signed(resources.update_time.unix_nanos);
        self.write(sql, params![resources.resources_id, updated, json])
    }
}

fn json_of(value: &impl serde::Serialize) -> Result<String> {
    encode(value).map_err(|error| StoreError::Other(error.to_string()))
}
