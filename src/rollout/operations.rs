//! The operations of trainers and runners, each one transaction of the store.

use super::attempts::{existing_rollout, new_attempt, store_attempt, update_worker_of};
use super::lifecycle;
use super::requests::{AttemptChange, NewRollout, RolloutChange};
use super::rollouts::{Result, RolloutError, Rollouts};
use crate::store::Records;
use crate::trace::{
    Attempt, AttemptId, AttemptedRollout, ResourcesUpdate, Rollout, RolloutId, RolloutStatus, Timestamp, Worker,
};
use serde_json::Value as JsonValue;
use std::time::Duration;

impl Rollouts {
    /// Creates rollouts and appends them to the queue.
    pub async fn enqueue(&self, new: Vec<NewRollout>) -> Result<Vec<Rollout>> {
        self.transact(move |records, now| {
            let latest = latest_resources(records)?;
            // Listings are sorted by start time: each gets one of its own.
            let rollouts: Vec<Rollout> = (0..)
                .zip(&new)
                .map(|(position, new)| {
                    let start_time = now.after(Duration::from_nanos(position));
                    rollout_from(new.clone(), RolloutStatus::Queuing, latest.clone(), start_time)
                })
                .collect();
            for rollout in &rollouts {
                records.upsert_rollout(rollout)?;
                records.enqueue(&rollout.rollout_id)?;
            }
            Ok(rollouts)
        })
        .await
    }

    /// Takes up to `limit` rollouts from the head of the queue and starts an attempt of each. A rollout that was cancelled or
    /// started since it was queued is skipped.
    pub async fn dequeue(&self, limit: usize, worker_id: Option<String>) -> Result<Vec<AttemptedRollout>> {
        self.transact(move |records, now| {
            let mut dequeued = Vec::new();
            while dequeued.len() < limit
                && let Some(id) = records.dequeue()?
            {
                let Some(mut rollout) = records.rollout(&id)? else { continue };
                if lifecycle::is_queued(rollout.status) {
                    let attempt = new_attempt(records, &mut rollout, worker_id.clone(), now)?;
                    dequeued.push(AttemptedRollout { rollout, attempt: Some(attempt) });
                }
            }
            let Some(worker_id) = &worker_id else { return Ok(dequeued) };
            let mut worker = records.worker(worker_id)?.unwrap_or_else(|| Worker::new(worker_id));
            // A worker has one current attempt: the last.
            match dequeued.last().and_then(|last| last.attempt.as_ref()) {
                Some(attempt) => {
                    worker.last_dequeue_time = Some(now);
                    lifecycle::follow_attempt_as_worker(&mut worker, attempt, now);
                }
                None => lifecycle::on_empty_queue(&mut worker, now),
            }
            records.upsert_worker(&worker)?;
            Ok(dequeued)
        })
        .await
    }

    /// Creates a rollout and starts its first attempt, without queueing it.
    pub async fn start(&self, new: NewRollout, worker_id: Option<String>) -> Result<AttemptedRollout> {
        self.transact(move |records, now| {
            let latest = latest_resources(records)?;
            let mut rollout = rollout_from(new.clone(), RolloutStatus::Preparing, latest, now);
            let attempt = new_attempt(records, &mut rollout, worker_id.clone(), now)?;
            update_worker_of(records, &attempt, now)?;
            Ok(AttemptedRollout { rollout, attempt: Some(attempt) })
        })
        .await
    }

    /// Starts another attempt, also beyond `max_attempts`.
    pub async fn start_attempt(&self, id: RolloutId, worker_id: Option<String>) -> Result<AttemptedRollout> {
        self.transact(move |records, now| {
            let mut rollout = existing_rollout(records, &id)?;
            let attempt = new_attempt(records, &mut rollout, worker_id.clone(), now)?;
            update_worker_of(records, &attempt, now)?;
            Ok(AttemptedRollout { rollout, attempt: Some(attempt) })
        })
        .await
    }

    /// Changes a rollout; a status of `queuing` or `requeuing` puts it into the queue.
    pub async fn update(&self, id: RolloutId, change: RolloutChange) -> Result<Rollout> {
        self.transact(move |records, now| {
            // Agent Lightning's store has other words here than elsewhere, which its clients know.
            let not_found = || format!("Item does not exist with primary key(s): rollout_id={id}");
            let mut rollout = records.rollout(&id)?.ok_or_else(|| RolloutError::NotFound(not_found()))?;
            let RolloutChange { input, mode, resources_id, status, config, metadata } = change.clone();
            rollout.input = input.unwrap_or(rollout.input);
            rollout.mode = mode.map_or(rollout.mode, |mode| mode.map(|mode| mode.as_str().to_owned()));
            rollout.resources_id = resources_id.unwrap_or(rollout.resources_id);
            rollout.config = config.unwrap_or(rollout.config);
            rollout.metadata = metadata.map_or(rollout.metadata, |new| new.map_or(JsonValue::Null, JsonValue::Object));
            let must_queue = status.is_some_and(|status| lifecycle::set_rollout_status(&mut rollout, status, now));
            records.upsert_rollout(&rollout)?;
            if must_queue {
                records.enqueue(&id)?;
            }
            Ok(rollout)
        })
        .await
    }

    /// Removes a rollout with its attempts and spans; returns the number of spans. The log of the store keeps its end.
    pub async fn remove(&self, id: RolloutId) -> Result<u64> {
        let removed = id.clone();
        let spans = self.transact(move |records, _| Ok(records.remove_rollout(&removed)?)).await?;
        self.known_attempts().remove(&id);
        Ok(spans)
    }

    /// Changes an attempt, by default the latest; updates its rollout and its worker to match.
    pub async fn update_attempt(
        &self,
        id: RolloutId,
        attempt: Option<AttemptId>,
        change: AttemptChange,
    ) -> Result<Attempt> {
        self.transact(move |records, now| {
            let mut rollout = existing_rollout(records, &id)?;
            let latest = records.latest_attempt(&id)?;
            let latest = latest.ok_or_else(|| RolloutError::NotFound(format!("No attempts found for rollout {id}")))?;
            let mut attempt = match &attempt {
                None => latest,
                Some(named) => records
                    .attempt(&id, named)?
                    .ok_or_else(|| RolloutError::NotFound(format!("Attempt {named} not found for rollout {id}")))?,
            };
            let AttemptChange { status, worker_id, last_heartbeat_time, metadata } = change.clone();
            let changes_worker = worker_id.is_some() || status.is_some();
            attempt.worker_id = worker_id.or(attempt.worker_id);
            attempt.last_heartbeat_time = last_heartbeat_time.or(attempt.last_heartbeat_time);
            if let Some(metadata) = metadata {
                attempt.replace_metadata(metadata);
            }
            if let Some(status) = status {
                lifecycle::set_attempt_status(&mut attempt, status, now);
            }
            let attempt = store_attempt(records, &mut rollout, attempt, now)?;
            if changes_worker {
                update_worker_of(records, &attempt, now)?;
            }
            Ok(attempt)
        })
        .await
    }

    /// Records a heartbeat of a worker, which is created if it is new. `None` keeps its last statistics.
    pub async fn update_worker(&self, id: String, heartbeat_stats: Option<JsonValue>) -> Result<Worker> {
        self.transact(move |records, now| {
            let mut worker = records.worker(&id)?.unwrap_or_else(|| Worker::new(&id));
            worker.last_heartbeat_time = Some(now);
            worker.heartbeat_stats = heartbeat_stats.clone().or(worker.heartbeat_stats);
            records.upsert_worker(&worker)?;
            Ok(worker)
        })
        .await
    }

    /// Stores a set of resources: under a new id, or as the next version of the set with this id.
    pub async fn put_resources(&self, id: Option<String>, resources: JsonValue) -> Result<ResourcesUpdate> {
        self.transact(move |records, now| {
            let id = id.clone().unwrap_or_else(|| format!("rs-{:012x}", fastrand::u64(..) & 0xffff_ffff_ffff));
            let before = records.resources(&id)?;
            let update = ResourcesUpdate {
                create_time: before.as_ref().map_or(now, |before| before.create_time),
                version: before.map_or(1, |before| before.version + 1),
                update_time: now,
                resources_id: id,
                resources: resources.clone(),
            };
            records.upsert_resources(&update)?;
            Ok(update)
        })
        .await
    }
}

fn latest_resources(records: &mut dyn Records) -> Result<Option<String>> {
    Ok(records.latest_resources()?.map(|latest| latest.resources_id))
}

fn rollout_from(new: NewRollout, status: RolloutStatus, latest: Option<String>, start_time: Timestamp) -> Rollout {
    Rollout {
        rollout_id: RolloutId::from_random(fastrand::u64(..)),
        input: new.input,
        start_time,
        end_time: None,
        mode: new.mode.map(|mode| mode.as_str().to_owned()),
        resources_id: new.resources_id.or(latest),
        status,
        config: new.config.unwrap_or_default(),
        metadata: JsonValue::Object(new.metadata.unwrap_or_default()),
    }
}
