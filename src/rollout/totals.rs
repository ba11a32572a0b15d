//! What the spans of recently shown rollouts add up to. Only spans that were stored since are read, unless some were removed.

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
    /// The number of spans, and of the newest one, for which all were read anew. Spans that go meanwhile are missing.
    renewed_for: Option<(u64, u64)>,
}

impl Entry {
    /// True if spans that were added are not among the counted ones any more, or others came before them.
    fn is_outdated(&self, counts: &RolloutCounts) -> bool {
        let is_complete = self.last >= counts.newest;
        self.last > counts.newest || self.spans > counts.spans || (is_complete && self.spans != counts.spans)
    }

    /// Adds the counted spans that are missing, as far as the budget goes.
    async fn read_on(
        &mut self,
        store: &SharedStore,
        rollout: &RolloutId,
        counts: &RolloutCounts,
        budget: &mut usize,
    ) -> Result<()> {
        while self.last < counts.newest && *budget > 0 {
            let limit = PAGE_SPANS.min(*budget);
            let page = store.span_outlines(rollout.clone(), self.last, limit).await?;
            *budget -= page.len();
            // The others are not counted yet.
            let counted = page.iter().take_while(|outline| outline.number <= counts.newest);
            for outline in counted {
                self.totals.add(&outline.span);
                (self.spans, self.last) = (self.spans + 1, outline.number);
            }
            if page.len() < limit || page.last().is_some_and(|outline| outline.number > counts.newest) {
                // The last ones may have been removed since they were counted.
                self.last = counts.newest;
            }
        }
        Ok(())
    }
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
        let counted = Some((counts.spans, counts.newest));
        loop {
            entry.read_on(store, rollout, counts, budget).await?;
            if entry.renewed_for == counted || !entry.is_outdated(counts) {
                break;
            }
            entry = Entry { renewed_for: counted, ..Entry::default() };
        }
        let totals = (entry.last >= counts.newest).then(|| entry.totals.clone());
        self.entries().put(rollout.clone(), entry);
        Ok(totals)
    }

    fn entries(&self) -> MutexGuard<'_, LruCache<RolloutId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const MAX_ROLLOUTS: usize = 16 * 1024;
const PAGE_SPANS: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Retention;
    use crate::store::memory::MemoryStore;
    use crate::trace::Span;
    use serde_json::json;
    use std::sync::Arc;

    #[tokio::test]
    async fn spans_that_go_while_they_are_read_do_not_keep_the_totals_from_an_end() {
        let store: SharedStore = Arc::new(MemoryStore::new(Retention::default()));
        let id = RolloutId::from("r");
        let span = |number: u64| {
            let span: Span = serde_json::from_value(json!({
                "rollout_id": "r", "attempt_id": "a", "sequence_id": number, "trace_id": "t", "span_id": number.to_string(),
                "parent_id": null, "name": "x", "status": {"status_code": "OK", "description": null}, "attributes": {},
                "events": [], "links": [], "start_time": null, "end_time": null, "context": null, "parent": null,
                "resource": {"attributes": {}, "schema_url": ""}
            }))
            .unwrap();
            Arc::new(span)
        };
        store.append((1..=10).map(span).collect()).await.unwrap();
        let counts = store.rollout_counts(vec![id.clone()]).await.unwrap().remove(&id).unwrap();
        // Two more were counted.
        let counts = RolloutCounts { spans: counts.spans + 2, ..counts };
        let totals = TotalsCache::default();
        for _ in 0..12 {
            if totals.of(&store, &id, &counts, &mut 4).await.unwrap().is_some() {
                return;
            }
        }
        panic!("the totals have no end");
    }
}
