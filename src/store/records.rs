//! Rollouts, attempts, workers, resources and the queue, as one transaction sees them.
//!
//! It must not decide anything: what follows from what is for whoever asks for a transaction.

use super::Result;
use crate::trace::{Attempt, AttemptId, ResourcesUpdate, Rollout, RolloutId, Timestamp, Worker};

/// What is done in a transaction: all of it happens, or, if it ends with an error, nothing. It may be run on any thread, and
/// again if somebody else's came in between; it must look before it writes: the memory store can't take back.
pub type Change = Box<dyn FnMut(&mut dyn Records) -> Result<()> + Send>;

/// Reads and writes of one transaction. Nobody else's come between them.
pub trait Records {
    /// One rollout.
    fn rollout(&mut self, id: &RolloutId) -> Result<Option<Rollout>>;

    /// Registers a rollout, or replaces the one with its id. If that brings it into a final state, this is logged.
    fn put_rollout(&mut self, rollout: &Rollout) -> Result<()>;

    /// Removes a rollout with all that belongs to it: attempts, spans, its place in the queue, its traces, its count of
    /// sequence ids. What the log of ended rollouts has of it stays. How many spans it had; 0 if it is not there.
    fn remove_rollout(&mut self, id: &RolloutId) -> Result<u64>;

    /// Sequence ids up to this one are given out; a rollout that is not there is passed over.
    fn raise_sequence(&mut self, id: &RolloutId, to: u64) -> Result<()>;

    /// One attempt.
    fn attempt(&mut self, rollout: &RolloutId, attempt: &AttemptId) -> Result<Option<Attempt>>;

    /// The attempt with the highest sequence id.
    fn latest_attempt(&mut self, rollout: &RolloutId) -> Result<Option<Attempt>>;

    /// Adds an attempt, or replaces the one with its ids. A new one gets the next sequence id of its rollout.
    fn put_attempt(&mut self, attempt: Attempt) -> Result<Attempt>;

    /// The rollouts that are preparing or running and whose config limits how long, each with its latest attempt.
    fn watched(&mut self) -> Result<Vec<(Rollout, Attempt)>>;

    /// Puts a rollout at the queue's tail, unless it is in the queue.
    fn push(&mut self, rollout: &RolloutId) -> Result<()>;

    /// Takes the rollout at the queue's head. In a store that several processes share, one that nobody else is taking.
    fn pop(&mut self) -> Result<Option<RolloutId>>;

    /// One worker.
    fn worker(&mut self, id: &str) -> Result<Option<Worker>>;

    /// Adds a worker, or replaces the one with its id.
    fn put_worker(&mut self, worker: &Worker) -> Result<()>;

    /// One set of resources.
    fn resources(&mut self, id: &str) -> Result<Option<ResourcesUpdate>>;

    /// The set that was changed last.
    fn latest_resources(&mut self) -> Result<Option<ResourcesUpdate>>;

    /// Adds a set of resources, or replaces the one with its id.
    fn put_resources(&mut self, resources: &ResourcesUpdate) -> Result<()>;
}

/// What a span that is stored means for its attempt, if it is registered, and for its rollout, if the attempt is its
/// latest. True: they were changed. It never ends a rollout.
pub type SpanObserver = fn(rollout: &mut Rollout, attempt: &mut Attempt, is_latest: bool, now: Timestamp) -> bool;

/// Nothing follows.
pub fn nothing_heard(_: &mut Rollout, _: &mut Attempt, _: bool, _: Timestamp) -> bool {
    false
}
