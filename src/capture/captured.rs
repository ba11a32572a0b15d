//! A finished exchange on its way to the pipeline.

use super::memory_budget::MemoryShare;
use crate::shared_state::SequenceLease;
use crate::trace::exchange::Exchange;
use std::time::Instant;
use tokio::sync::oneshot;

/// A finished exchange, and what its storage has to release.
#[derive(Debug)]
pub struct Captured {
    /// The record.
    pub exchange: Exchange,
    /// When the exchange ended and entered the queue.
    pub queued_at: Instant,
    /// Set if the end of the response waits for the commit: it receives the outcome.
    pub committed: Option<oneshot::Sender<CommitStatus>>,
    /// Its share of the memory budget, to be dropped with the recorded bytes.
    pub memory: MemoryShare,
    /// To be dropped once the span is stored or lost.
    pub sequence: SequenceLease,
}

/// The state of a span that a response waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitStatus {
    /// It is stored durably.
    Committed,
    /// The store is in trouble, or the span is lost: the response goes on without it.
    NotCommitted,
}
