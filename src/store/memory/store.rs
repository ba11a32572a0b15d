//! The store: its state behind a lock that is never held across an await.

use super::state::State;
use super::usage::usage;
use crate::store::api::{
    Appended, BoxFuture, EndedRollouts, NumberedSpans, RolloutCounts, RolloutFilter, RolloutSequenceState,
    RolloutSummary, SequenceAuthority, SpanOutline, Statistics, Store,
};
use crate::store::error::{Result, StoreError};
use crate::store::pruning::{PruneCursor, PruneRequest, PruneSlice, Pruned};
use crate::store::records::{Change, SpanObserver};
use crate::store::retention::Retention;
use crate::store::span_query::{SpanContent, SpanPage, SpanPlace, SpanQuery, SpansAt};
use crate::store::usage::{StoreUsage, Vacuum};
use crate::store::words::{FoundRollouts, WordBatch, WordSearch};
use crate::trace::{Attempt, AttemptId, AttemptedRollout, ResourcesUpdate, Rollout, RolloutId, Span, Worker};
use crate::util::lru::{LruCache, lru};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A store in memory. Creating one is cheap.
#[derive(Debug)]
pub struct MemoryStore {
    retention: Retention,
    observer: Option<SpanObserver>,
    state: Mutex<State>,
    /// The last sequence ids of rollouts that were taken, not stored yet.
    taken: Mutex<LruCache<RolloutId, u64>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(retention: Retention) -> Self {
        Self {
            retention,
            observer: None,
            state: Mutex::new(State::default()),
            taken: Mutex::new(lru(MAX_COUNTED_ROLLOUTS)),
        }
    }

    /// Calls `observer` for stored spans.
    pub fn with_observer(self, observer: SpanObserver) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// Runs `job` under the lock.
    fn with<'a, T: Send + 'a>(&'a self, job: impl FnOnce(&mut State) -> T + Send + 'a) -> BoxFuture<'a, Result<T>> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.is_closed() { Err(StoreError::Closed) } else { Ok(job(&mut state)) }
        })
    }
}

impl Store for MemoryStore {
    fn append(&self, spans: Vec<Arc<Span>>) -> BoxFuture<'_, Result<Appended>> {
        self.with(move |state| {
            let appended = state.append(spans, self.observer);
            if state.may_exceed(self.retention) {
                state.prune(&PruneRequest::OwnLimits, self.retention);
            }
            appended
        })
    }

    fn change(&self, mut change: Change) -> BoxFuture<'_, Result<()>> {
        let changed = self.with(move |state| change(state));
        Box::pin(async move { changed.await? })
    }

    fn rollout(&self, id: RolloutId) -> BoxFuture<'_, Result<Option<Rollout>>> {
        self.with(move |state| state.entry(&id).map(|entry| entry.rollout.clone()))
    }

    fn rollouts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<RolloutSummary>>> {
        self.with(move |state| state.summaries(limit))
    }

    fn attempted_rollouts(&self, filter: RolloutFilter) -> BoxFuture<'_, Result<Vec<AttemptedRollout>>> {
        self.with(move |state| state.attempted_rollouts(&filter))
    }

    fn count_rollouts(&self, filter: RolloutFilter) -> BoxFuture<'_, Result<u64>> {
        self.with(move |state| state.count_rollouts(&filter.without_page()))
    }

    fn attempts(&self, id: RolloutId) -> BoxFuture<'_, Result<Vec<Attempt>>> {
        self.with(move |state| state.entry(&id).map(|entry| entry.attempts.clone()).unwrap_or_default())
    }

    fn span_page(&self, query: SpanQuery) -> BoxFuture<'_, Result<SpanPage>> {
        self.with(move |state| state.span_page(&query))
    }

    fn spans_at(
        &self,
        rollout: RolloutId,
        places: Vec<SpanPlace>,
        content: SpanContent,
    ) -> BoxFuture<'_, Result<SpansAt>> {
        self.with(move |state| state.spans_at(&rollout, &places, content))
    }

    fn span_outlines(&self, rollout: RolloutId, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<SpanOutline>>> {
        self.with(move |state| state.span_outlines(&rollout, after, limit))
    }

    fn spans_by_number(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<NumberedSpans>> {
        self.with(move |state| state.spans_by_number(after, limit))
    }

    fn span(&self, rollout: RolloutId, attempt: AttemptId, span_id: String) -> BoxFuture<'_, Result<Option<Span>>> {
        self.with(move |state| state.span(&rollout, &attempt, &span_id))
    }

    fn words_through(&self) -> BoxFuture<'_, Result<u64>> {
        // The spans themselves are searched.
        self.with(|_| u64::MAX)
    }

    fn add_words(&self, _: WordBatch) -> BoxFuture<'_, Result<()>> {
        self.with(|_| ())
    }

    fn find_words(&self, search: WordSearch) -> BoxFuture<'_, Result<FoundRollouts>> {
        self.with(move |state| state.find_words(&search))
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<Worker>>> {
        self.with(|state| state.workers.clone())
    }

    fn all_resources(&self) -> BoxFuture<'_, Result<Vec<ResourcesUpdate>>> {
        self.with(|state| state.resources.clone())
    }

    fn llm_calls(&self, rollouts: Vec<RolloutId>) -> BoxFuture<'_, Result<HashMap<RolloutId, u64>>> {
        self.with(move |state| {
            let counts = rollouts.into_iter().map(|id| {
                let calls = state.llm_calls(&id);
                (id, calls)
            });
            counts.filter(|(_, calls)| *calls > 0).collect()
        })
    }

    fn rollout_counts(&self, rollouts: Vec<RolloutId>) -> BoxFuture<'_, Result<HashMap<RolloutId, RolloutCounts>>> {
        self.with(move |state| rollouts.into_iter().filter_map(|id| Some((id.clone(), state.counts(&id)?))).collect())
    }

    fn trace_owners(&self, traces: Vec<String>) -> BoxFuture<'_, Result<HashMap<String, (RolloutId, AttemptId)>>> {
        self.with(move |state| {
            let owner = |trace: String| state.trace_owner(&trace).map(|owner| (trace, owner));
            traces.into_iter().filter_map(owner).collect()
        })
    }

    fn sequence_authority(&self) -> SequenceAuthority {
        SequenceAuthority::Process
    }

    fn next_sequences(&self, id: RolloutId, above: u64, count: u64) -> BoxFuture<'_, Result<RolloutSequenceState>> {
        self.with(move |state| state.next_sequences(&id, above, count))
    }

    fn take_sequence(&self, id: &RolloutId, at_least: u64) -> u64 {
        let stored = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.entry(id).map_or(0, |entry| entry.sequence_state().last_sequence_id)
        };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let last = stored.max(taken.get(id).copied().unwrap_or(0));
        let next = at_least.max(last + 1);
        taken.put(id.clone(), next);
        next
    }

    fn sequence_state(&self, id: RolloutId) -> BoxFuture<'_, Result<RolloutSequenceState>> {
        self.with(move |state| state.entry(&id).map(|entry| entry.sequence_state()).unwrap_or_default())
    }

    fn ended_rollouts(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<EndedRollouts>> {
        self.with(move |state| {
            let after = usize::try_from(after).unwrap_or(usize::MAX);
            let ids = state.ended.iter().skip(after).take(limit).cloned().collect();
            EndedRollouts { ids, total: state.ended.len() as u64 }
        })
    }

    fn statistics(&self) -> BoxFuture<'_, Result<Statistics>> {
        self.with(|state| state.statistics())
    }

    fn usage(&self) -> BoxFuture<'_, Result<StoreUsage>> {
        self.with(|state| usage(state))
    }

    fn prune_slice(&self, request: PruneRequest, _: PruneCursor) -> BoxFuture<'_, Result<PruneSlice>> {
        self.with(move |state| state.prune(&request, self.retention))
    }

    fn prune_preview(&self, request: PruneRequest) -> BoxFuture<'_, Result<Pruned>> {
        self.with(move |state| state.prune_preview(&request, self.retention))
    }

    fn vacuum(&self, _: Vacuum) -> BoxFuture<'_, Result<()>> {
        self.with(|_| ())
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::closed();
            Ok(())
        })
    }
}

/// Rollouts with spans on their way at one time.
const MAX_COUNTED_ROLLOUTS: usize = 4096;
