//! When a file's limits are checked, and how far a prune by them is.

use super::checkpoint::OnErased;
use super::pruning::prune_slice;
use super::recent::Recent;
use crate::store::pruning::{PruneBackoff, PruneCounters, PruneCursor, PruneRequest, PruneSlice};
use crate::store::retention::Retention;
use rusqlite::{Connection, TransactionBehavior};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// The limits of a file that is written to. They are applied in slices; between two of them the log is copied into the file.
pub(super) struct Limits {
    retention: Retention,
    recent: Arc<Recent>,
    pruned: Arc<PruneCounters>,
    /// Spans stored since the last check.
    unchecked_spans: usize,
    backoff: PruneBackoff,
    /// True while the log of a slice is copied, after which the next slice follows.
    is_pruning: Arc<AtomicBool>,
}

impl Limits {
    /// An old file may exceed the limits: the first command checks them.
    pub(super) fn new(retention: Retention, recent: Arc<Recent>, pruned: Arc<PruneCounters>) -> Self {
        let (unchecked_spans, backoff) = (SPANS_PER_CHECK, PruneBackoff::default());
        Self { retention, recent, pruned, unchecked_spans, backoff, is_pruning: Arc::default() }
    }

    /// Counts spans that were stored.
    pub(super) fn stored(&mut self, spans: usize) {
        self.unchecked_spans = self.unchecked_spans.saturating_add(spans);
    }

    /// Removes the slice at `from`, or the first one if enough spans were stored since the last check. `None` if there is nothing to
    /// do.
    pub(super) fn apply(&mut self, connection: &mut Connection, from: Option<PruneCursor>) -> Option<PruneSlice> {
        let is_due =
            self.unchecked_spans >= SPANS_PER_CHECK && !self.retention.is_unlimited() && self.backoff.is_over();
        let from = match from {
            Some(from) => from,
            None if is_due && !self.is_pruning.load(Ordering::Relaxed) => PruneCursor::default(),
            None => return None,
        };
        self.unchecked_spans = 0;
        self.is_pruning.store(false, Ordering::Relaxed);
        match self.slice(connection, from) {
            Ok(slice) => {
                self.backoff.note(&slice);
                Some(slice)
            }
            Err(error) => {
                tracing::warn!(%error, "the store's retention limits could not be applied; trying again later");
                None
            }
        }
    }

    fn slice(&self, connection: &mut Connection, from: PruneCursor) -> rusqlite::Result<PruneSlice> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let now = SystemTime::now().into();
        let slice = prune_slice(&transaction, &PruneRequest::OwnLimits, from, self.retention, &self.recent, now)?;
        transaction.commit()?;
        self.pruned.add(&slice);
        Ok(slice)
    }

    /// What to call when the log was copied. `request` asks for the next slice; if it returns false, the next check begins anew.
    pub(super) fn resume(&self, request: impl FnOnce() -> bool + Send + 'static) -> OnErased {
        let is_pruning = Arc::clone(&self.is_pruning);
        is_pruning.store(true, Ordering::Relaxed);
        Box::new(move || {
            if !request() {
                is_pruning.store(false, Ordering::Relaxed);
            }
        })
    }
}

/// Spans stored between two checks.
const SPANS_PER_CHECK: usize = 256;
