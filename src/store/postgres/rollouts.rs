//! Storing of rollouts and attempts one by one.

use super::rows::encode;
use super::statements::{execute, query_one};
use crate::store::sql::{signed, unsigned};
use crate::trace::{Attempt, Rollout, RolloutId, RolloutStatus, Timestamp};
use deadpool_postgres::Transaction;
use tokio_postgres::Error;

/// Adds an attempt, or replaces the one with its ids. A new one gets the next sequence id of its rollout, so that the
/// rollout's row has to be locked.
pub(super) async fn upsert_attempt(transaction: &Transaction<'_>, attempt: &Attempt) -> Result<Attempt, Error> {
    let (rollout, id) = (attempt.rollout_id.as_str(), attempt.attempt_id.as_str());
    let sql = "INSERT INTO attempt (rollout_id, attempt_id, sequence_id, json)
         SELECT $1, $2, COALESCE(MAX(sequence_id), 0) + 1, $3 FROM attempt WHERE rollout_id = $1
         ON CONFLICT (rollout_id, attempt_id) DO UPDATE SET json = excluded.json RETURNING sequence_id";
    let row = query_one(transaction, sql, &[&rollout, &id, &encode(attempt)]).await?;
    Ok(Attempt { sequence_id: unsigned(row.get(0)), ..attempt.clone() })
}

/// Locks a rollout, which is created as running if it is missing. Returns the name of its status.
pub(super) async fn lock_rollout(
    transaction: &Transaction<'_>,
    id: &RolloutId,
    start: Timestamp,
) -> Result<String, Error> {
    let sql = "INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, status, is_limited, json)
         VALUES ($1, FALSE, 0, $2, $3, FALSE, $4)
         ON CONFLICT (rollout_id) DO UPDATE SET rollout_id = excluded.rollout_id RETURNING status";
    let new = Rollout::running(id.clone(), start);
    let (start, status, json) = (signed(start.unix_nanos), new.status.as_str(), encode(&new));
    Ok(query_one(transaction, sql, &[&id.as_str(), &start, &status, &json]).await?.get(0))
}

/// What [`upsert_rollout`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    /// The rollout entered a final state.
    Ended,
    Other,
}

/// Adds a rollout, or replaces the one with its id, and marks it as registered.
pub(super) async fn upsert_rollout(transaction: &Transaction<'_>, rollout: &Rollout) -> Result<Transition, Error> {
    let mut transition = Transition::Other;
    if rollout.status.is_final() {
        let before = lock_rollout(transaction, &rollout.rollout_id, rollout.start_time).await?;
        let was_final = RolloutStatus::ALL.into_iter().any(|status| status.is_final() && status.as_str() == before);
        transition = if was_final { Transition::Other } else { Transition::Ended };
    }
    let sql = "INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, status, is_limited, json)
         VALUES ($1, TRUE, 0, $2, $3, $4, $5)
         ON CONFLICT (rollout_id) DO UPDATE SET registered = TRUE, start_ns = excluded.start_ns,
             status = excluded.status, is_limited = excluded.is_limited, json = excluded.json";
    let (start, has_deadline) = (signed(rollout.start_time.unix_nanos), rollout.config.has_deadline());
    let (id, status, json) = (rollout.rollout_id.as_str(), rollout.status.as_str(), encode(rollout));
    execute(transaction, sql, &[&id, &start, &status, &has_deadline, &json]).await?;
    Ok(transition)
}
