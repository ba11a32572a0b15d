//! Operations on any store that are expressed by those of [`Store`].

use super::api::{RolloutSequenceState, Store};
use super::error::{Result, StoreError};
use super::pruning::{PruneCursor, PruneRequest, Pruned};
use super::records::Records;
use super::span_pages;
use super::span_query::SpanQuery;
use crate::trace::{Attempt, AttemptId, Rollout, RolloutId, Span};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

/// Implemented for every [`Store`].
pub trait StoreExt: Store {
    /// Runs `job` as a transaction and returns its result. `job` may run several times, see [`super::Change`].
    fn transaction<T: Send + 'static>(
        &self,
        mut job: impl FnMut(&mut dyn Records) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send {
        let result = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&result);
        let changed = self.change(Box::new(move |records| {
            let done = job(records)?;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
            Ok(())
        }));
        async move {
            changed.await?;
            result.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(StoreError::Closed)
        }
    }

    /// All spans of a rollout in their order; of all attempts if `attempt` is `None`. They are in memory at once.
    fn spans(&self, rollout: RolloutId, attempt: Option<AttemptId>) -> impl Future<Output = Result<Vec<Span>>> + Send {
        span_pages::all(self, SpanQuery { attempt_id: attempt, ..SpanQuery::of_rollout(rollout) })
    }

    /// Applies the limits that the store was opened with, in slices.
    fn prune(&self) -> impl Future<Output = Result<Pruned>> + Send {
        self.prune_all(PruneRequest::OwnLimits, |_| {})
    }

    /// Removes what a request selects, in slices. After each, `progress` gets what was removed so far.
    fn prune_all(
        &self,
        request: PruneRequest,
        mut progress: impl FnMut(&Pruned) + Send,
    ) -> impl Future<Output = Result<Pruned>> + Send {
        async move {
            let (mut removed, mut from) = (Pruned::default(), PruneCursor::default());
            loop {
                let slice = self.prune_slice(request.clone(), from).await?;
                removed.add(slice.removed);
                progress(&removed);
                match slice.next {
                    Some(next) => from = next,
                    None => return Ok(removed),
                }
            }
        }
    }

    /// Assigns the next sequence id of a rollout, above `above`: [`Store::next_sequences`] for one.
    fn next_sequence(&self, id: RolloutId, above: u64) -> impl Future<Output = Result<RolloutSequenceState>> + Send {
        self.next_sequences(id, above, 1)
    }

    /// [`Records::upsert_rollout`] as a transaction.
    fn upsert_rollout(&self, rollout: Rollout) -> impl Future<Output = Result<()>> + Send {
        self.transaction(move |records| records.upsert_rollout(&rollout))
    }

    /// [`Records::upsert_attempt`] as a transaction.
    fn upsert_attempt(&self, attempt: Attempt) -> impl Future<Output = Result<Attempt>> + Send {
        self.transaction(move |records| records.upsert_attempt(attempt.clone()))
    }
}

impl<S: Store + ?Sized> StoreExt for S {}
