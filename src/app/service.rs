//! Answers the questions of the API server and the gateway about rollouts, from the store and from counters in memory.

use crate::api::Sequences;
use crate::gateway::{CallMode, RolloutLookup, RolloutLookupError, RolloutLookupFuture, RolloutRegistration};
use crate::rollout::Rollouts;
use crate::shared_state::{RecordedCalls, SequenceAllocator, SequenceStart, SequenceStarts, TokenUsageTracker};
use crate::store::{BoxFuture, SequenceAuthority, SharedStore, StoreError};
use crate::trace::span::SpanContext;
use crate::trace::{Rollout, RolloutId};
use crate::util::lru::LruCache;
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex, PoisonError};

/// Allocates sequence ids for the API server, from the same allocator as the proxy.
pub(super) struct SequenceService {
    pub(super) rollouts: Rollouts,
    pub(super) sequences: SequenceAllocator,
    pub(super) recorded_calls: RecordedCalls,
    /// The highest id reserved in the store per rollout: a restart continues after it. Of at most [`MAX_RESERVED`] entries;
    /// an evicted one costs one more write.
    pub(super) reserved: Mutex<LruCache<RolloutId, u64>>,
}

impl SequenceService {
    /// Reserves `id` and the next [`RESERVED_AT_ONCE`] ids in the store.
    async fn reserve(&self, rollout: &RolloutId, id: u64) {
        if self.rollouts.store().sequence_authority() == SequenceAuthority::Store {
            return;
        }
        let reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner).get(rollout).copied();
        if reserved.is_some_and(|reserved| reserved >= id) {
            return;
        }
        let (owner, last) = (rollout.clone(), id + RESERVED_AT_ONCE);
        if let Err(error) =
            self.rollouts.transact_silently(move |records, _| Ok(records.raise_sequence(&owner, last)?)).await
        {
            return tracing::warn!(%error, rollout_id = %rollout, "cannot reserve sequence ids in the store; after a restart ids may be used twice");
        }
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = reserved.get_or_insert_mut(rollout.clone(), || 0);
        *highest = last.max(*highest);
    }
}

const RESERVED_AT_ONCE: u64 = 64;
pub(super) const MAX_RESERVED: usize = 16 * 1024;

impl Sequences for SequenceService {
    fn next<'a>(&'a self, rollout: &'a RolloutId) -> BoxFuture<'a, u64> {
        Box::pin(async move {
            // Its lease ends when the store knows the id.
            let allocated = self.sequences.next(rollout).await;
            self.reserve(rollout, allocated.sequence_id).await;
            allocated.sequence_id
        })
    }

    fn recorded(&self, rollout: &RolloutId, response_id: &str) -> Option<SpanContext> {
        self.recorded_calls.span_of(rollout, response_id)
    }

    fn claim<'a>(&'a self, rollout: &'a RolloutId, requested: u64) -> BoxFuture<'a, u64> {
        Box::pin(async move { self.sequences.allocate(rollout, Some(requested)).await.sequence_id })
    }
}

/// Looks up registered rollouts for the gateway.
pub(super) struct RegisteredRollouts {
    pub(super) store: SharedStore,
    pub(super) token_usage: TokenUsageTracker,
}

impl RolloutLookup for RegisteredRollouts {
    fn registered<'a>(&'a self, rollout: &'a RolloutId) -> RolloutLookupFuture<'a> {
        Box::pin(async move {
            let failed = |error: StoreError| {
                tracing::warn!(%error, rollout_id = %rollout, "cannot read a rollout from the store");
                RolloutLookupError::new(error)
            };
            if !self.store.sequence_state(rollout.clone()).await.map_err(failed)?.registered {
                return Ok(None);
            }
            Ok(self.store.rollout(rollout.clone()).await.map_err(failed)?.map(|rollout| registered(&rollout)))
        })
    }

    fn tokens_spent(&self, rollout: &RolloutId) -> u64 {
        self.token_usage.of(rollout)
    }
}

/// The part of a rollout that its LLM calls depend on. Metadata that cannot be parsed counts as missing.
fn registered(rollout: &Rollout) -> RolloutRegistration {
    fn read<T: DeserializeOwned>(rollout: &Rollout, name: &str) -> Option<T> {
        serde_json::from_value(rollout.metadata.get(name)?.clone()).ok()
    }
    RolloutRegistration {
        final_status: rollout.status.is_final().then_some(rollout.status),
        mode: rollout.mode.as_deref().and_then(CallMode::from_name),
        budget: read(rollout, "budget"),
        staleness: read(rollout, "staleness"),
        max_staleness: read(rollout, "max_staleness"),
        sampling: read(rollout, "sampling_params").unwrap_or_default(),
    }
}

/// Reads from the store where a rollout's sequence ids continue.
pub(super) fn sequence_starts(store: &SharedStore) -> SequenceStarts {
    let store = Arc::clone(store);
    Arc::new(move |id, above| {
        let store = Arc::clone(&store);
        Box::pin(async move {
            let shared = store.sequence_authority() == SequenceAuthority::Store;
            let state =
                if shared { store.next_sequence(id, above).await } else { store.sequence_state(id).await }.ok()?;
            Some(SequenceStart { last_sequence_id: state.last_sequence_id, registered: state.registered, shared })
        })
    })
}
