//! Rollouts, attempts, workers, resources and the queue, as one transaction reads and writes them.
//!
//! Storage only: `crate::rollout` decides what is written.

use super::error::Result;
use super::export_cursor::ExportCursor;
use crate::trace::{Attempt, AttemptId, AttemptPosition, ResourcesUpdate, Rollout, RolloutId, Timestamp, Worker};

/// The code of a transaction: all its writes are applied, or none if it returns an error. It may run on any thread, and
/// runs again if another transaction conflicts with it. It has to check before it writes, because the memory store can't
/// undo writes.
pub type Change = Box<dyn FnMut(&mut dyn Records) -> Result<()> + Send>;

/// Reads and writes of one transaction, isolated from all others.
pub trait Records {
    /// `None` if no rollout has this id.
    fn rollout(&mut self, id: &RolloutId) -> Result<Option<Rollout>>;

    /// Adds a rollout, or replaces the one with its id, and marks it as registered. If it enters a final state, it gets an
    /// entry in the log of ended rollouts.
    fn upsert_rollout(&mut self, rollout: &Rollout) -> Result<()>;

    /// Removes a rollout with its attempts, spans, traces, place in the queue and sequence counter. Its entries in the log
    /// of ended rollouts remain. Returns the number of removed spans; 0 if the rollout does not exist.
    fn remove_rollout(&mut self, id: &RolloutId) -> Result<u64>;

    /// `None` if the rollout has no attempt with this id.
    fn attempt(&mut self, rollout: &RolloutId, attempt: &AttemptId) -> Result<Option<Attempt>>;

    /// The attempt with the highest sequence id.
    fn latest_attempt(&mut self, rollout: &RolloutId) -> Result<Option<Attempt>>;

    /// Adds an attempt, or replaces the one with its ids, and returns it as stored. A new attempt gets the next sequence
    /// id of its rollout, a replaced one keeps its own, whatever `attempt` contains.
    fn upsert_attempt(&mut self, attempt: Attempt) -> Result<Attempt>;

    /// The rollouts in progress that have a deadline, each with its latest attempt.
    fn rollouts_with_deadline(&mut self) -> Result<Vec<(Rollout, Attempt)>>;

    /// Adds a rollout at the queue's tail, unless the queue contains it.
    fn enqueue(&mut self, rollout: &RolloutId) -> Result<()>;

    /// Removes the rollout at the queue's head. Rollouts that a concurrent transaction is removing are skipped.
    fn dequeue(&mut self) -> Result<Option<RolloutId>>;

    /// `None` if no worker has this id.
    fn worker(&mut self, id: &str) -> Result<Option<Worker>>;

    /// Adds a worker, or replaces the one with its id.
    fn upsert_worker(&mut self, worker: &Worker) -> Result<()>;

    /// `None` if no resources have this id.
    fn resources(&mut self, id: &str) -> Result<Option<ResourcesUpdate>>;

    /// The resources with the latest update time.
    fn latest_resources(&mut self) -> Result<Option<ResourcesUpdate>>;

    /// Adds resources, or replaces those with their id.
    fn upsert_resources(&mut self, resources: &ResourcesUpdate) -> Result<()>;

    /// The cursor of the export with this name. `None` if it has none yet.
    fn export_cursor(&mut self, name: &str) -> Result<Option<ExportCursor>>;

    /// Adds a cursor, or replaces the one with its name.
    fn upsert_export_cursor(&mut self, cursor: &ExportCursor) -> Result<()>;
}

/// Called within the transaction that stores spans, once for each attempt of a registered rollout that got new spans. It
/// updates the attempt's heartbeat and state, and the rollout's if the attempt is its latest; the store writes both in the
/// same commit. A pure function; it must not move a rollout into a final state.
pub type SpanObserver = fn(rollout: &mut Rollout, attempt: &mut Attempt, position: AttemptPosition, now: Timestamp);
