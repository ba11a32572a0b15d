//! Transactions on rollouts and what belongs to them. Rows that are read are locked, so that no other transaction changes
//! them before the commit.

use super::connections::Blocking;
use super::error::QueryError;
use super::rollouts::{Transition, lock_rollout, upsert_attempt, upsert_rollout};
use super::rows::{self, decode, encode};
use super::statements::{Parameters, query};
use super::{ended, retention};
use crate::store::error::{Result, StoreError};
use crate::store::export_cursor::ExportCursor;
use crate::store::records::{Change, Records};
use crate::store::sql::{signed, status_list};
use crate::trace::{Attempt, AttemptId, ResourcesUpdate, Rollout, RolloutId, RolloutStatus, Worker};
use deadpool_postgres::{Object, Transaction};
use serde::de::DeserializeOwned;
use tokio_postgres::{Error, Row};

/// What a change did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changed {
    /// True if a rollout was removed, so that its texts have to be removed too.
    pub(super) has_removed: bool,
}

/// Runs a change as a transaction, on a thread that may block.
pub(super) fn run(
    connection: &mut Object,
    blocking: &Blocking,
    change: &mut Change,
) -> std::result::Result<Changed, QueryError> {
    let transaction = blocking.wait(connection.transaction())?;
    let mut records =
        BlockingRecords { blocking, transaction: &transaction, failure: None, ended: Vec::new(), has_removed: false };
    let done = change(&mut records);
    if let Some(failure) = records.failure {
        return Err(failure);
    }
    done.map_err(QueryError::Rejected)?;
    let (ended, has_removed) = (records.ended, records.has_removed);
    blocking.wait(ended::log(&transaction, &ended))?;
    blocking.wait(transaction.commit())?;
    Ok(Changed { has_removed })
}

struct BlockingRecords<'a> {
    blocking: &'a Blocking,
    transaction: &'a Transaction<'a>,
    /// The first failed statement. The transaction fails with it even if the change ignores it.
    failure: Option<QueryError>,
    /// The rollouts that entered a final state. They are logged at the end, see [`ended::log`].
    ended: Vec<RolloutId>,
    has_removed: bool,
}

impl BlockingRecords<'_> {
    fn wait<T>(&mut self, work: impl Future<Output = std::result::Result<T, Error>>) -> Result<T> {
        let done = self.blocking.wait(work);
        done.map_err(|failure| self.failed(failure))
    }

    /// Notes a failure, and returns it as an error for the change.
    fn failed(&mut self, failure: QueryError) -> StoreError {
        let error = failure.store_error(&self.blocking.server);
        self.failure.get_or_insert(failure);
        error
    }

    fn query(&mut self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>> {
        let transaction = self.transaction;
        self.wait(query(transaction, sql, parameters))
    }

    /// The first row of a query, decoded; `None` if it has no rows.
    fn first<T>(
        &mut self,
        sql: &str,
        parameters: Parameters<'_>,
        decode: impl FnOnce(&Row) -> std::result::Result<T, QueryError>,
    ) -> Result<Option<T>> {
        let found = self.query(sql, parameters)?;
        found.first().map(decode).transpose().map_err(|failure| self.failed(failure))
    }

    fn json<T: DeserializeOwned>(&mut self, sql: &str, parameters: Parameters<'_>) -> Result<Option<T>> {
        self.first(sql, parameters, |row| decode(row.get(0)))
    }
}

impl Records for BlockingRecords<'_> {
    fn rollout(&mut self, id: &RolloutId) -> Result<Option<Rollout>> {
        let sql = "SELECT json, start_ns FROM rollout WHERE rollout_id = $1 FOR UPDATE";
        self.first(sql, &[&id.as_str()], rows::rollout)
    }

    fn upsert_rollout(&mut self, rollout: &Rollout) -> Result<()> {
        let transaction = self.transaction;
        if self.wait(upsert_rollout(transaction, rollout))? == Transition::Ended {
            self.ended.push(rollout.rollout_id.clone());
        }
        Ok(())
    }

    fn remove_rollout(&mut self, id: &RolloutId) -> Result<u64> {
        let transaction = self.transaction;
        let spans = self.wait(retention::remove_rollout(transaction, id))?;
        self.has_removed |= spans.is_some();
        Ok(spans.unwrap_or_default())
    }

    fn attempt(&mut self, rollout: &RolloutId, attempt: &AttemptId) -> Result<Option<Attempt>> {
        let sql = "SELECT json, sequence_id FROM attempt WHERE rollout_id = $1 AND attempt_id = $2 FOR UPDATE";
        let found = self.first(sql, &[&rollout.as_str(), &attempt.as_str()], |row| rows::attempt(row, 0))?;
        Ok(found.flatten())
    }

    fn latest_attempt(&mut self, rollout: &RolloutId) -> Result<Option<Attempt>> {
        let sql = "SELECT json, sequence_id FROM attempt WHERE rollout_id = $1
             ORDER BY sequence_id DESC LIMIT 1 FOR UPDATE";
        Ok(self.first(sql, &[&rollout.as_str()], |row| rows::attempt(row, 0))?.flatten())
    }

    fn upsert_attempt(&mut self, attempt: Attempt) -> Result<Attempt> {
        let transaction = self.transaction;
        self.wait(async {
            lock_rollout(transaction, &attempt.rollout_id, attempt.start_time).await?;
            upsert_attempt(transaction, &attempt).await
        })
    }

    fn rollouts_with_deadline(&mut self) -> Result<Vec<(Rollout, Attempt)>> {
        let sql = format!(
            "SELECT json, start_ns FROM rollout WHERE is_limited AND registered AND status IN ({})
             ORDER BY rollout_id FOR UPDATE SKIP LOCKED",
            status_list(RolloutStatus::is_in_progress)
        );
        let rollouts: std::result::Result<Vec<Rollout>, _> = self.query(&sql, &[])?.iter().map(rows::rollout).collect();
        let mut all = Vec::new();
        for rollout in rollouts.map_err(|failure| self.failed(failure))? {
            if let Some(attempt) = self.latest_attempt(&rollout.rollout_id)? {
                all.push((rollout, attempt));
            }
        }
        Ok(all)
    }

    fn enqueue(&mut self, rollout: &RolloutId) -> Result<()> {
        let sql = "INSERT INTO queue (rollout_id) VALUES ($1) ON CONFLICT (rollout_id) DO NOTHING";
        self.query(sql, &[&rollout.as_str()]).map(drop)
    }

    fn dequeue(&mut self) -> Result<Option<RolloutId>> {
        let sql = "DELETE FROM queue WHERE position = (
                 SELECT position FROM queue ORDER BY position LIMIT 1 FOR UPDATE SKIP LOCKED
             ) RETURNING rollout_id";
        self.first(sql, &[], |row| Ok(RolloutId::from(row.get::<_, &str>(0))))
    }

    fn worker(&mut self, id: &str) -> Result<Option<Worker>> {
        self.json("SELECT json FROM worker WHERE worker_id = $1 FOR UPDATE", &[&id])
    }

    fn upsert_worker(&mut self, worker: &Worker) -> Result<()> {
        let sql = "INSERT INTO worker (worker_id, json) VALUES ($1, $2)
             ON CONFLICT (worker_id) DO UPDATE SET json = excluded.json";
        self.query(sql, &[&worker.worker_id, &encode(worker)]).map(drop)
    }

    fn resources(&mut self, id: &str) -> Result<Option<ResourcesUpdate>> {
        self.json("SELECT json FROM resources WHERE resources_id = $1 FOR UPDATE", &[&id])
    }

    fn latest_resources(&mut self) -> Result<Option<ResourcesUpdate>> {
        self.json("SELECT json FROM resources ORDER BY update_ns DESC, position DESC LIMIT 1", &[])
    }

    fn upsert_resources(&mut self, resources: &ResourcesUpdate) -> Result<()> {
        let sql = "INSERT INTO resources (resources_id, update_ns, json) VALUES ($1, $2, $3)
             ON CONFLICT (resources_id) DO UPDATE SET update_ns = excluded.update_ns, json = excluded.json";
        let updated = signed(resources.update_time.unix_nanos);
        self.query(sql, &[&resources.resources_id, &updated, &encode(resources)]).map(drop)
    }

    fn export_cursor(&mut self, name: &str) -> Result<Option<ExportCursor>> {
        // A row to lock, so that of two programs that start at once, one comes after the other.
        let sql = "INSERT INTO export_cursor (name, json) VALUES ($1, 'null') ON CONFLICT (name) DO NOTHING";
        self.query(sql, &[&name])?;
        let found =
            self.json::<Option<ExportCursor>>("SELECT json FROM export_cursor WHERE name = $1 FOR UPDATE", &[&name]);
        Ok(found?.flatten())
    }

    fn upsert_export_cursor(&mut self, cursor: &ExportCursor) -> Result<()> {
        let sql = "INSERT INTO export_cursor (name, json) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET json = excluded.json";
        self.query(sql, &[&cursor.name, &encode(cursor)]).map(drop)
    }
}
