//! Counts of OTLP ingest since the start of the program, for `/metrics`.

use std::sync::atomic::AtomicU64;

/// Counts of spans.
#[derive(Debug, Default)]
pub(crate) struct IngestCounters {
    /// Spans that were stored, or were in the store already.
    pub(crate) accepted: AtomicU64,
    /// Spans that break the protocol, or belong to a rollout that the caller's token excludes.
    pub(crate) rejected: AtomicU64,
    /// Accepted spans that name no rollout.
    pub(crate) unassigned: AtomicU64,
}
