//! Transactions on rollouts and what belongs to them, on the writer's connection.

use super::error::{CommandError, store_error};
use super::rows::{self, decode, encode};
use super::statements::{Registration, ensure_rollout, upsert_attempt, upsert_rollout};
use super::{queries, retention};
use crate::store::error::Result;
use crate::store::export_cursor::ExportCursor;
use crate::store::records::{Change, Records};
use crate::store::sql::{signed, status_list};
use crate::trace::{Attempt, AttemptId, ResourcesUpdate, Rollout, RolloutConfig, RolloutId, RolloutStatus, Worker};
use rusqlite::{Connection, OptionalExtension, Params, params};
use serde::de::DeserializeOwned;
use std::path::Path;

/// What a change did.
pub(super) struct Changed {
    /// True if a rollout was removed, so that its content has to be erased.
    pub(super) has_removed: bool,
}

/// Runs a change. After an error, the caller has to roll back.
pub(super) fn run(
    connection: &Connection,
    path: &Path,
    mut change: Change,
) -> std::result::Result<Changed, CommandError> {
    let mut transaction = Transaction { connection, path, failure: None, has_removed: false };
    let result = change(&mut transaction);
    match (transaction.failure, result) {
        (Some(failure), _) => Err(CommandError::Database(failure)),
        (None, Err(error)) => Err(CommandError::Rejected(error)),
        (None, Ok(())) => Ok(Changed { has_removed: transaction.has_removed }),
    }
}

struct Transaction<'a> {
    connection: &'a Connection,
    path: &'a Path,
    /// The first error of SQLite. The transaction fails with it even if the change ignores it.
    failure: Option<rusqlite::Error>,
    has_removed: bool,
}

impl Transaction<'_> {
    fn with<T>(&mut self, job: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        job(self.connection).map_err(|error| {
            let told = store_error(self.path, &error);
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

const LATEST_ATTEMPT: &str = "SELECT json FROM attempt WHERE rollout_id = ?1 ORDER BY sequence_id DESC LIMIT 1";

impl Records for Transaction<'_> {
    fn rollout(&mut self, id: &RolloutId) -> Result<Option<Rollout>> {
        self.with(|connection| queries::rollout(connection, id))
    }

    fn upsert_rollout(&mut self, rollout: &Rollout) -> Result<()> {
        self.with(|connection| upsert_rollout(connection, rollout, Registration::Registered))
    }

    fn remove_rollout(&mut self, id: &RolloutId) -> Result<u64> {
        let spans = self.with(|connection| retention::remove_rollout(connection, id))?;
        self.has_removed |= spans.is_some();
        Ok(spans.unwrap_or_default())
    }

    fn attempt(&mut self, rollout: &RolloutId, attempt: &AttemptId) -> Result<Option<Attempt>> {
        let sql = "SELECT json FROM attempt WHERE rollout_id = ?1 AND attempt_id = ?2";
        self.one(sql, params![rollout.as_str(), attempt.as_str()])
    }

    fn latest_attempt(&mut self, rollout: &RolloutId) -> Result<Option<Attempt>> {
        self.one(LATEST_ATTEMPT, params![rollout.as_str()])
    }

    fn upsert_attempt(&mut self, attempt: Attempt) -> Result<Attempt> {
        self.with(|connection| {
            ensure_rollout(connection, &attempt.rollout_id, 0, attempt.start_time)?;
            upsert_attempt(connection, attempt)
        })
    }

    fn rollouts_with_deadline(&mut self) -> Result<Vec<(Rollout, Attempt)>> {
        // Only registered rollouts can have a limit, and those of a status have an index: many that only spans name never end. Of
        // most, only the config is decoded.
        let sql = format!(
            "SELECT json, start_ns, json_extract(json, '$.config') FROM rollout
             WHERE registered AND json_extract(json, '$.status') IN ({})",
            status_list(RolloutStatus::is_in_progress)
        );
        self.with(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let mut latest = connection.prepare_cached(LATEST_ATTEMPT)?;
            let mut found = statement.query([])?;
            let mut all = Vec::new();
            while let Some(row) = found.next()? {
                let config: RolloutConfig = decode(&row.get::<_, String>(2)?)?;
                if !config.has_deadline() {
                    continue;
                }
                let rollout = rows::rollout(row)?;
                let attempt = latest.query_row(params![rollout.rollout_id.as_str()], |row| rows::attempt(row, 0));
                all.extend(attempt.optional()?.flatten().map(|attempt| (rollout, attempt)));
            }
            Ok(all)
        })
    }

    fn enqueue(&mut self, rollout: &RolloutId) -> Result<()> {
        self.write("INSERT OR IGNORE INTO queue (rollout_id) VALUES (?1)", params![rollout.as_str()])
    }

    fn dequeue(&mut self) -> Result<Option<RolloutId>> {
        let sql = "DELETE FROM queue WHERE position = (SELECT MIN(position) FROM queue) RETURNING rollout_id";
        self.with(|connection| {
            let head: Option<String> = connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
            Ok(head.map(|id| RolloutId::from(id.as_str())))
        })
    }

    fn worker(&mut self, id: &str) -> Result<Option<Worker>> {
        self.one("SELECT json FROM worker WHERE worker_id = ?1", params![id])
    }

    fn upsert_worker(&mut self, worker: &Worker) -> Result<()> {
        let json = self.with(|_| encode(worker))?;
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

    fn upsert_resources(&mut self, resources: &ResourcesUpdate) -> Result<()> {
        let json = self.with(|_| encode(resources))?;
        let sql = "INSERT INTO resources (resources_id, update_ns, json) VALUES (?1, ?2, ?3)
                   ON CONFLICT (resources_id) DO UPDATE SET update_ns = excluded.update_ns, json = excluded.json";
        let updated = signed(resources.update_time.unix_nanos);
        self.write(sql, params![resources.resources_id, updated, json])
    }

    fn export_cursor(&mut self, name: &str) -> Result<Option<ExportCursor>> {
        self.one("SELECT json FROM export_cursor WHERE name = ?1", params![name])
    }

    fn upsert_export_cursor(&mut self, cursor: &ExportCursor) -> Result<()> {
        let json = self.with(|_| encode(cursor))?;
        let sql = "INSERT INTO export_cursor (name, json) VALUES (?1, ?2)
                   ON CONFLICT (name) DO UPDATE SET json = excluded.json";
        self.write(sql, params![cursor.name, json])
    }
}
