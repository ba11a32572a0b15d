//! What the spans of recently shown rollouts add up to. Only spans that were stored since are read.

use crate::query::RolloutTotals;
use crate::store::{Result, RolloutCounts, SharedStore};
use crate::trace::RolloutId;
use crate::util::lru::{LruCache, lru};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The totals of at most [`MAX_ROLLOUTS`] rollouts; those of others are read again.
pub(crate) struct TotalsCache(Mutex<LruCache<RolloutId, Entry>>);

#[derive(Clone, Default)]
struct Entry {
    totals: RolloutTotals,
    /// How many spans were added.
    spans: u64,
    /// The number of the last of them.
    last: u64,
}

impl Default for TotalsCache {
    fn default() -> Self {
        Self(Mutex::new(lru(MAX_ROLLOUTS)))
    }
}

impl TotalsCache {
    /// The totals of a rollout with these counts. At most `budget` spans are read, and subtracted from it; `None` if there are
    /// more. What was read is kept, so that a later call continues.
    pub(crate) async fn of(
        &self,
        store: &SharedStore,
        rollout: &RolloutId,
        counts: &RolloutCounts,
        budget: &mut usize,
    ) -> Result<Option<RolloutTotals>> {
        let mut entry = self.entries().get(rollout).cloned().unwrap_or_default();
        if entry.spans > counts.spans {
            // Spans were removed.
            entry = Entry::default();
        }
        while entry.spans < counts.spans && *budget > 0 {
            let limit = PAGE_SPANS.min(*budget);
            let page = store.span_outlines(rollout.clone(), entry.last, limit).await?;
            *budget -= page.len();
            entry.spans += page.len() as u64;
            entry.last = page.last().map_or(entry.last, |outline| outline.number);
            page.iter().for_each(|outline| entry.totals.add(&outline.span));
            if page.len() < limit {
                // Some were removed since they were counted.
                entry.spans = entry.spans.max(counts.spans);
            }
        }
        let is_complete = entry.spans >= counts.spans;
        let totals = is_complete.then(|| entry.totals.clone());
        self.entries().put(rollout.clone(), entry);
        Ok(totals)
    }

    fn entries(&self) -> MutexGuard<'_, LruCache<RolloutId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const MAX_ROLLOUTS: usize = 16 * 1024;
const PAGE_SPANS: usize = 2000;
