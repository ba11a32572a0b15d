//! Steps that several operations share: starting and storing attempts within a transaction.

use super::lifecycle;
use super::rollouts::{Result, RolloutError};
use crate::store::Records;
use crate::trace::{Attempt, AttemptId, AttemptStatus, Rollout, RolloutId, RolloutStatus, Timestamp, Worker};
use serde_json::Value as JsonValue;

/// Starts another attempt: stores it, and the rollout as preparing.
pub(super) fn new_attempt(
    records: &mut dyn Records,
    rollout: &mut Rollout,
    worker_id: Option<String>,
    now: Timestamp,
) -> Result<Attempt> {
    let id = AttemptId::from_random(fastrand::u32(..));
    let attempt = Attempt {
        status: AttemptStatus::Preparing,
        worker_id,
        metadata: JsonValue::Null,
        ..Attempt::running(rollout.rollout_id.clone(), id, now)
    };
    lifecycle::set_rollout_status(rollout, RolloutStatus::Preparing, now);
    records.upsert_rollout(rollout)?;
    Ok(records.upsert_attempt(attempt)?)
}

/// Stores an attempt. If it is the latest, the rollout's status is updated to match, and the rollout queued if it is
/// tried again.
pub(super) fn store_attempt(
    records: &mut dyn Records,
    rollout: &mut Rollout,
    attempt: Attempt,
    now: Timestamp,
) -> Result<Attempt> {
    let attempt = records.upsert_attempt(attempt)?;
    let latest = records.latest_attempt(&attempt.rollout_id)?;
    if latest.is_some_and(|latest| latest.attempt_id == attempt.attempt_id)
        && let Some(must_queue) = lifecycle::follow_attempt(rollout, &attempt, now)
    {
        records.upsert_rollout(rollout)?;
        if must_queue {
            records.enqueue(&rollout.rollout_id)?;
        }
    }
    Ok(attempt)
}

/// Updates the worker of an attempt, if it has one, to the attempt's status.
pub(super) fn update_worker_of(records: &mut dyn Records, attempt: &Attempt, now: Timestamp) -> Result<()> {
    let Some(id) = &attempt.worker_id else { return Ok(()) };
    let mut worker = records.worker(id)?.unwrap_or_else(|| Worker::new(id));
    lifecycle::follow_attempt_as_worker(&mut worker, attempt, now);
    Ok(records.upsert_worker(&worker)?)
}

/// The rollout, or [`RolloutError::NotFound`].
pub(super) fn existing_rollout(records: &mut dyn Records, id: &RolloutId) -> Result<Rollout> {
    records.rollout(id)?.ok_or_else(|| RolloutError::NotFound(format!("Rollout {id} not found")))
}
