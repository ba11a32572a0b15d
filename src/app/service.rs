//! Answers the questions of the API server and the gateway about rollouts, from the store and from counters in memory.

use crate::api::Sequences;
use crate::gateway::{CallMode, RolloutLookup, RolloutLookupError, RolloutLookupFuture, RolloutRegistration};
use crate::shared_state::{
    RecordedCalls, SequenceAllocator, SequenceSource, SequenceStart, SequenceStartFuture, TokenUsageTracker,
};
use crate::store::{BoxFuture, SequenceAuthority, SharedStore, StoreError};
use crate::trace::span::SpanContext;
use crate::trace::{Rollout, RolloutId};
use serde::de::DeserializeOwned;

/// Allocates sequence ids for the API server, from the same allocator as the proxy.
pub(super) struct SequenceService {
    pub(super) sequences: SequenceAllocator,
    pub(super) recorded_calls: RecordedCalls,
}

impl Sequences for SequenceService {
    fn next<'a>(&'a self, rollout: &'a RolloutId) -> BoxFuture<'a, u64> {
        Box::pin(async move { self.sequences.next(rollout).await.sequence_id })
    }

    fn next_run<'a>(&'a self, rollout: &'a RolloutId, count: u64) -> BoxFuture<'a, Vec<u64>> {
        Box::pin(self.sequences.next_run(rollout, count))
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

/// The sequence ids of a store.
pub(super) struct StoreSequences(pub(super) SharedStore);

impl SequenceSource for StoreSequences {
    fn start(&self, id: RolloutId, above: u64, count: u64) -> SequenceStartFuture<'_> {
        let Self(store) = self;
        Box::pin(async move {
            let shared = store.sequence_authority() == SequenceAuthority::Store;
            let state =
                if shared { store.next_sequences(id, above, count).await } else { store.sequence_state(id).await };
            let state = state.ok()?;
            Some(SequenceStart { last_sequence_id: state.last_sequence_id, registered: state.registered, shared })
        })
    }

    fn take(&self, rollout: &RolloutId, at_least: u64) -> u64 {
        self.0.take_sequence(rollout, at_least)
    }
}
