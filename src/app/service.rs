//! What the doors must know of rollouts, put together from the store and from what is counted in memory.

use crate::api::Sequences;
use crate::capture::{Calls, SequenceAllocator, SequenceStart, SequenceStarts, TokenUsageTracker};
use crate::gateway::routing::Mode;
use crate::gateway::{RolloutLookup, RolloutLookupError, RolloutLookupFuture, RolloutRegistration};
use crate::rollout::Rollouts;
use crate::store::{BoxFuture, SequenceAuthority, SharedStore, StoreError};
use crate::trace::span::SpanContext;
use crate::trace::{Rollout, RolloutId};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What the server door does with rollouts; the sequence ids are those that the proxy door gives out too.
pub(super) struct Service {
    pub(super) rollouts: Rollouts,
    pub(super) sequences: SequenceAllocator,
    pub(super) calls: Calls,
    // Up to which id the store knows that they are given out, so that a restart goes on behind them.
    pub(super) reserved: Mutex<HashMap<RolloutId, u64>>,
}

impl Service {
    /// Has the store know of this id, and of some to come.
    async fn reserve(&self, rollout: &RolloutId, id: u64) {
        if self.rollouts.store().sequence_authority() == SequenceAuthority::Store {
            return;
        }
        let is_reserved = |reserved: &HashMap<RolloutId, u64>| reserved.get(rollout).is_some_and(|known| *known >= id);
        if is_reserved(&self.reserved.lock().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let (of, to) = (rollout.clone(), id + RESERVED_AT_ONCE);
        if let Err(error) = self.rollouts.quietly(move |records, _| Ok(records.raise_sequence(&of, to)?)).await {
            return tracing::warn!(%error, rollout_id = %rollout, "the store could not be told which ids are given out");
        }
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if reserved.len() >= MAX_RESERVED {
            reserved.clear();
        }
        let known = reserved.entry(rollout.clone()).or_default();
        *known = to.max(*known);
    }
}

const RESERVED_AT_ONCE: u64 = 64;
const MAX_RESERVED: usize = 16 * 1024;

impl Sequences for Service {
    fn next<'a>(&'a self, rollout: &'a RolloutId) -> BoxFuture<'a, u64> {
        Box::pin(async move {
            let (id, _) = self.sequences.next(rollout, None).await;
            self.reserve(rollout, id).await;
            id
        })
    }

    fn recorded(&self, rollout: &RolloutId, response_id: &str) -> Option<SpanContext> {
        self.calls.of(rollout, response_id)
    }

    fn raise<'a>(&'a self, rollout: &'a RolloutId, to: u64) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let _ = self.sequences.next(rollout, Some(to)).await;
        })
    }
}

/// What the gateway must know of rollouts.
pub(super) struct Register {
    pub(super) store: SharedStore,
    pub(super) spent: TokenUsageTracker,
}

impl RolloutLookup for Register {
    fn registered<'a>(&'a self, rollout: &'a RolloutId) -> RolloutLookupFuture<'a> {
        Box::pin(async move {
            let said = |error: StoreError| {
                tracing::warn!(%error, rollout_id = %rollout, "the store does not say what is registered");
                RolloutLookupError::new(error)
            };
            if !self.store.sequence_state(rollout.clone()).await.map_err(said)?.registered {
                return Ok(None);
            }
            Ok(self.store.rollout(rollout.clone()).await.map_err(said)?.map(|rollout| registered(&rollout)))
        })
    }

    fn tokens_spent(&self, rollout: &RolloutId) -> u64 {
        self.spent.of(rollout)
    }
}

/// What of a rollout its calls depend on. What can't be read in its metadata is not there.
fn registered(rollout: &Rollout) -> RolloutRegistration {
    fn read<T: DeserializeOwned>(rollout: &Rollout, name: &str) -> Option<T> {
        serde_json::from_value(rollout.metadata.get(name)?.clone()).ok()
    }
    RolloutRegistration {
        final_status: rollout.status.is_final().then_some(rollout.status),
        mode: rollout.mode.as_deref().and_then(Mode::of),
        budget: read(rollout, "budget"),
        staleness: read(rollout, "staleness"),
        max_staleness: read(rollout, "max_staleness"),
        sampling: read(rollout, "sampling_params").unwrap_or_default(),
    }
}

/// Where sequence ids go on from.
pub(super) fn seeds(store: &SharedStore) -> SequenceStarts {
    let store = Arc::clone(store);
    Arc::new(move |id| {
        let store = Arc::clone(&store);
        Box::pin(async move {
            let shared = store.sequence_authority() == SequenceAuthority::Store;
            let state = if shared { store.next_sequence(id).await } else { store.sequence_state(id).await }.ok()?;
            Some(SequenceStart { last_sequence_id: state.last_sequence_id, registered: state.registered, shared })
        })
    })
}
