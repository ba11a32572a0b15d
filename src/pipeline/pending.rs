//! Spans on their way into the store.

use super::counters::PipelineCounters;
use crate::capture::CommitStatus;
use crate::shared_state::SequenceLease;
use crate::store::{Appended, FailedAppend, SharedStore, StoreError};
use crate::trace::Span;
use crate::util::in_flight::InFlightPermit;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::oneshot;

/// Spans that are not stored yet, and what their storage releases.
#[derive(Default)]
pub(super) struct PendingSpans {
    pub(super) spans: Vec<Arc<Span>>,
    /// Recorded bytes that the spans were made from, with those that were stored since.
    pub(super) content_bytes: u64,
    /// Responses that end after the commit.
    pub(super) waiting: Vec<oneshot::Sender<CommitStatus>>,
    /// Dropped with the batch: when all spans are stored or lost.
    pub(super) sequences: Vec<SequenceLease>,
    /// Count the exchanges as unstored until then. An exchange without spans has one, too.
    pub(super) unstored: Vec<InFlightPermit>,
}

impl PendingSpans {
    /// Adds spans that were built later.
    pub(super) fn add(&mut self, later: Self) {
        self.spans.extend(later.spans);
        self.content_bytes += later.content_bytes;
        self.waiting.extend(later.waiting);
        self.sequences.extend(later.sequences);
        self.unstored.extend(later.unstored);
    }

    /// Tells the responses that wait. Those that have gone need no answer.
    pub(super) fn notify(&mut self, status: CommitStatus) {
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(status);
        }
    }

    /// Appends all spans as one commit. If their data is rejected, or after `MAX_BATCH_TRIES`, they are appended one by one.
    /// A span is lost, and counted, if its own data is rejected, or if it fails while others can be stored and the state of
    /// the store is not the cause. What remains in `spans` is to be retried.
    pub(super) async fn append(
        &mut self,
        store: &SharedStore,
        counters: &PipelineCounters,
        tries: u32,
    ) -> Result<(), StoreError> {
        let all = self.spans.len() as u64;
        if all == 0 {
            // None of them is to be stored.
            self.notify(CommitStatus::Committed);
            return Ok(());
        }
        let Err(mut failure) = append_measured(store, counters, self.spans.clone()).await else {
            counters.stored.fetch_add(all, Ordering::Relaxed);
            self.spans.clear();
            self.notify(CommitStatus::Committed);
            return Ok(());
        };
        let is_rejected = failure.failed_append() == FailedAppend::Drop;
        if !is_rejected && (tries < MAX_BATCH_TRIES || self.spans.len() < 2) {
            return Err(failure);
        }
        let (mut stored, mut status) = (None, CommitStatus::Committed);
        let mut lose = |span: &Span, error: StoreError| {
            status = CommitStatus::NotCommitted;
            counters.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, rollout_id = %span.rollout_id, span_id = span.span_id, "a span is lost: the store rejects it");
        };
        // If an append panics, those that remain in `spans` are counted as lost.
        let mut remaining = Vec::new();
        for span in self.spans.clone() {
            match append_measured(store, counters, vec![Arc::clone(&span)]).await {
                Ok(_) => {
                    counters.stored.fetch_add(1, Ordering::Relaxed);
                    stored = Some(span);
                }
                Err(error) if error.failed_append() == FailedAppend::Drop => lose(&span, error),
                Err(error) => {
                    failure = error;
                    remaining.push(span);
                }
            }
        }
        self.spans = remaining;
        let untried = if stored.is_some() { std::mem::take(&mut self.spans) } else { Vec::new() };
        for span in untried {
            match append_measured(store, counters, vec![Arc::clone(&span)]).await {
                Ok(_) => drop(counters.stored.fetch_add(1, Ordering::Relaxed)),
                // To append a stored span again changes nothing: it shows whether the store works at all.
                Err(error)
                    if !error.is_temporary()
                        && append_measured(store, counters, stored.iter().cloned().collect()).await.is_ok() =>
                {
                    lose(&span, error);
                }
                Err(error) => {
                    failure = error;
                    self.spans.push(span);
                }
            }
        }
        if !self.spans.is_empty() {
            return Err(failure);
        }
        self.notify(status);
        Ok(())
    }
}

async fn append_measured(
    store: &SharedStore,
    counters: &PipelineCounters,
    spans: Vec<Arc<Span>>,
) -> Result<Appended, StoreError> {
    let started = Instant::now();
    let appended = store.append(spans).await;
    counters.latencies.store.observe(started.elapsed().as_secs_f64());
    appended
}

const MAX_BATCH_TRIES: u32 = 3;
