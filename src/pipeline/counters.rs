//! What the pipeline counts. Each is a metric.

use super::gen_ai_metrics::GenAiMetrics;
use super::latency::Latencies;
use crate::llm::token_ids::TokenIdIssue;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the pipeline counts.
#[derive(Debug, Default)]
pub(crate) struct PipelineCounters {
    /// Spans stored.
    pub stored: AtomicU64,
    /// Appends that failed; each is retried.
    pub store_errors: AtomicU64,
    /// Spans that wait because the store fails, of all workers. 0 once it has accepted them.
    pub unstored: AtomicU64,
    /// Spans that could not be built or stored.
    pub lost: AtomicU64,
    /// Spans besides those of exchanges: of tools, of calls on WebSockets, of OTLP exports.
    pub inferred: AtomicU64,
    /// Spans that the filter left out.
    pub not_stored: AtomicU64,
    /// Spans that the filter added: counts of those that it left out.
    pub not_stored_counts: AtomicU64,
    /// Calls that have an issue with their token ids, by its index in [`TokenIdIssue::ALL`].
    pub token_id_issues: [AtomicU64; TokenIdIssue::ALL.len()],
    /// How long exchanges, and the steps behind them, take.
    pub latencies: Latencies,
    /// Tokens and times of model calls.
    pub gen_ai: GenAiMetrics,
}

/// The part of one worker in [`PipelineCounters::unstored`], which ends when this is dropped.
pub(super) struct Unstored<'a> {
    total: &'a AtomicU64,
    own: u64,
}

impl<'a> Unstored<'a> {
    pub(super) fn of(counters: &'a PipelineCounters) -> Self {
        Self { total: &counters.unstored, own: 0 }
    }

    pub(super) fn set(&mut self, spans: u64) {
        self.total.fetch_add(spans, Ordering::Relaxed);
        self.total.fetch_sub(std::mem::replace(&mut self.own, spans), Ordering::Relaxed);
    }
}

impl Drop for Unstored<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}
