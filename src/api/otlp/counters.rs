//! What OTLP ingest counts.

use std::sync::atomic::AtomicU64;

/// Counts since the start of the program, for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct IngestCounters {
    /// Spans that were stored, or were in the store already.
    pub accepted: AtomicU64,
    /// Spans that break the protocol, or belong to a rollout that the caller's token excludes.
    pub rejected: AtomicU64,
    /// Accepted spans that name no rollout.
    pub unassigned: AtomicU64,
}
