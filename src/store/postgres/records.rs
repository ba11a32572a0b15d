//! The server's transactions: rollouts and what belongs to them. Rows that are read are locked, so that nobody else's
//! change comes between.

use super::append::{lock_rollout, put_attempt, put_rollout};
use super::{decode, encode};
use crate::store::{Records, Result, StoreError};
use crate::store::{signed, unsigned};
use crate::trace::{Attempt, AttemptId, ResourcesUpdate, Rollout, RolloutId, Timestamp, Worker};
use serde::de::DeserializeOwned;
use std::future::Future;
use tokio::runtime::Handle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Transaction};

/// A transaction, used from a thread that may block.
pub(super) struct Blocking<'a> {
    runtime: Handle,
    transaction: &'a Transaction<'a>,
    /// What the server said, whatever the change makes of it.
    pub(super) failure: Option<Error>,
    /// The rollouts that came into a final state; they are logged when all else is done.
    pub(super) ended: Vec<RolloutId>,
}

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

impl<'a> Blocking<'a> {
    pub(super) fn new(runtime: Handle, transaction: &'a Transaction<'a>) -> Self {
        Self { runtime, transaction, failure: None, ended: Vec::new() }
    }

    fn wait<T>(&mut self, work: impl Future<Output = std::result::Result<T, Error>>) -> Result<T> {
        self.runtime.block_on(work).map_err(|error| {
            let told = StoreError::Other(super::cause(&error));
            self.failure.get_or_insert(error);
            told
        })
    }

    fn query(&mut self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>> {
        let transaction = self.transaction;
        self.wait(async {
            let statement = transaction.prepare(sql).await?;
            transaction.query(&statement, parameters).await
        })
    }

    fn one<T: DeserializeOwned>(&mut self, sql: &str, parameters: Parameters<'_>) -> Result<Option<T>> {
        let rows = self.query(sql, parameters)?;
        rows.first().map(|row| decode(row.get(0))).transpose().map_err(StoreError::Other)
    }
}

/// A rollout's row: its JSON and its start.
pub(super) fn rollout_of(row: &Row) -> std::result::Result<Rollout, String> {
    let start_time = Timestamp::from_unix_nanos(unsigned(row.get(1)));
    Ok(Rollout { start_time, ..decode(row.get(0))? })
}

/// An attempt's columns: its JSON and its sequence id; none where there is no attempt.
pub(super) fn attempt_of(row: &Row, at: usize) -> std::result::Result<Option<Attempt>, String> {
    let json: Option<&str> = row.get(at);
    let attempt = json.map(decode::<Attempt>).transpose()?;
    Ok(attempt.map(|attempt| Attempt { sequence_id: unsigned(row.get(at + 1)), ..attempt }))
}

/// The attempt of the first row, if there is one.
fn first_attempt(rows: &[Row]) -> Result<Option<Attempt>> {
    rows.first().map_or(Ok(None), |row| attempt_of(row, 0)).map_err(StoreError::Other)
}

impl Records for Blocking<'_> {
    fn rollout(&mut self, id: &RolloutId) -> Result<Option<Rollout>> {
        let sql = "SELECT json, start_ns FROM rollout WHERE rollout_id = $1 FOR UPDATE";
        self.query(sql, &[&id.as_str()])?.first().map(rollout_of).transpose().map_err(StoreError::Other)
    }

    fn put_rollout(&mut self, rollout: &Rollout) -> Result<()> {
        let transaction = self.transaction;
        if self.wait(put_rollout(transaction, rollout))? {
            self.ended.push(rollout.rollout_id.clone());
        }
        Ok(())
    }

    fn remove_rollout(&mut self, id: &RolloutId) -> Result<u64> {
        // The queue comes first, as it does for whoever takes from it.
        self.query("DELETE FROM queue WHERE rollout_id = $1", &[&id.as_str()])?;
        let sql = "DELETE FROM rollout WHERE rollout_id = $1 RETURNING rollout_id";
        if self.query(sql, &[&id.as_str()])?.is_empty() {
            // Spans that come in this moment make it anew, and stay.
            return Ok(0);
        }
        for table in ["attempt", "trace"] {
            self.query(&format!("DELETE FROM {table} WHERE rollout_id = $1"), &[&id.as_str()])?;
        }
        let sql = "WITH gone AS (DELETE FROM span WHERE rollout_id = $1 RETURNING id),
                 loose AS (DELETE FROM span_text WHERE span IN (SELECT id FROM gone))
             SELECT COUNT(*) FROM gone";
        Ok(self.query(sql, &[&id.as_str()])?.first().map_or(0, |row| unsigned(row.get(0))))
    }

    fn raise_sequence(&mut self, id: &RolloutId, to: u64) -> Result<()> {
        let sql = "UPDATE rollout SET last_sequence_id = GREATEST(last_sequence_id, $2) WHERE rollout_id = $1";
        self.query(sql, &[&id.as_str(), &signed(to)]).map(drop)
    }

    fn attempt(&mut self, rollout: &RolloutId, attempt: &AttemptId) -> Result<Option<Attempt>> {
        let sql = "SELECT json, sequence_id FROM attempt WHERE rollout_id = $1 AND attempt_id = $2 FOR UPDATE";
        let rows = self.query(sql, &[&rollout.as_str(), &attempt.as_str()])?;
        first_attempt(&rows)
    }

    fn latest_attempt(&mut self, rollout: &RolloutId) -> Result<Option<Attempt>> {
        let sql = "SELECT json, sequence_id FROM attempt WHERE rollout_id = $1
             ORDER BY sequence_id DESC LIMIT 1 FOR UPDATE";
        first_attempt(&self.query(sql, &[&rollout.as_str()])?)
    }

    fn put_attempt(&mut self, attempt: Attempt) -> Result<Attempt> {
        let transaction = self.transaction;
        self.wait(async {
            // It numbers its attempts.
            lock_rollout(transaction, &attempt.rollout_id, attempt.start_time).await?;
            put_attempt(transaction, &attempt).await
        })
    }

    fn watched(&mut self) -> Result<Vec<(Rollout, Attempt)>> {
        let sql = "SELECT json, start_ns FROM rollout WHERE is_limited AND status IN ('preparing', 'running')
             ORDER BY rollout_id FOR UPDATE SKIP LOCKED";
        let rollouts: std::result::Result<Vec<Rollout>, _> = self.query(sql, &[])?.iter().map(rollout_of).collect();
        let mut watched = Vec::new();
        for rollout in rollouts.map_err(StoreError::Other)? {
            if let Some(attempt) = self.latest_attempt(&rollout.rollout_id)? {
                watched.push((rollout, attempt));
            }
        }
        Ok(watched)
    }

    fn push(&mut self, rollout: &RolloutId) -> Result<()> {
        let sql = "INSERT INTO queue (rollout_id) VALUES ($1) ON CONFLICT (rollout_id) DO NOTHING";
        self.query(sql, &[&rollout.as_str()]).map(drop)
    }

    fn pop(&mut self) -> Result<Option<RolloutId>> {
        let sql = "DELETE FROM queue WHERE position = (
                 SELECT position FROM queue ORDER BY position LIMIT 1 FOR UPDATE SKIP LOCKED
             ) RETURNING rollout_id";
        Ok(self.query(sql, &[])?.first().map(|row| RolloutId::from(row.get::<_, &str>(0))))
    }

    fn worker(&mut self, id: &str) -> Result<Option<Worker>> {
        self.one("SELECT json FROM worker WHERE worker_id = $1 FOR UPDATE", &[&id])
    }

    fn put_worker(&mut self, worker: &Worker) -> Result<()> {
        let sql = "INSERT INTO worker (worker_id, json) VALUES ($1, $2)
             ON CONFLICT (worker_id) DO UPDATE SET json = excluded.json";
        self.query(sql, &[&worker.worker_id, &encode(worker)]).map(drop)
    }

    fn resources(&mut self, id: &str) -> Result<Option<ResourcesUpdate>> {
        self.one("SELECT json FROM resources WHERE resources_id = $1 FOR UPDATE", &[&id])
    }

    fn latest_resources(&mut self) -> Result<Option<ResourcesUpdate>> {
        self.one("SELECT json FROM resources ORDER BY update_ns DESC, position DESC LIMIT 1", &[])
    }

    fn put_resources(&mut self, resources: &ResourcesUpdate) -> Result<()> {
        let sql = "INSERT INTO resources (resources_id, update_ns, json) VALUES ($1, $2, $3)
             ON CONFLICT (resources_id) DO UPDATE SET update_ns = excluded.update_ns, json = excluded.json";
        let updated = signed(resources.update_time.unix_nanos);
        self.query(sql, &[&resources.resources_id, &updated, &encode(resources)]).map(drop)
    }
}
