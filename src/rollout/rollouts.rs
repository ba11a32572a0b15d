//! The entry point of this module: the store, transactions on it, and notices of what they changed.
//!
//! The operations themselves are in `operations` and `watchdog`.

use super::ended_rollouts::EndedRollouts;
use super::known_attempts::KnownAttempts;
use crate::filter::SpanFilter;
use crate::store::{Appended, Records, SharedStore, StoreError};
use crate::trace::{AttemptId, RolloutId, Span, Timestamp};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, broadcast};

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The rollout or attempt does not exist. The text is that of Agent Lightning.
    #[error("{0}")]
    NotFound(String),
    /// The store failed; nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The result of an operation.
pub type Result<T> = std::result::Result<T, RolloutError>;

/// The operations on rollouts, attempts, workers and resources. Cheap to clone; clones share the store and the notices.
#[derive(Clone)]
pub struct Rollouts {
    store: SharedStore,
    filter: SpanFilter,
    changed: Arc<Notify>,
    ended: broadcast::Sender<RolloutId>,
    known_attempts: Arc<Mutex<KnownAttempts>>,
    clock: fn() -> Timestamp,
}

impl Rollouts {
    /// Operations on `store`.
    pub fn new(store: SharedStore) -> Self {
        let ended = broadcast::Sender::new(MAX_ENDED_UNREAD);
        let known_attempts = Arc::default();
        let (filter, changed) = (SpanFilter::default(), Arc::default());
        Self { store, filter, changed, ended, known_attempts, clock: || SystemTime::now().into() }
    }

    /// The same operations, with a filter for the spans that are appended.
    pub(crate) fn with_filter(self, filter: SpanFilter) -> Self {
        Self { filter, ..self }
    }

    /// The store, for reads.
    pub fn store(&self) -> &SharedStore {
        &self.store
    }

    /// Completes at the next change that this process makes after the call.
    pub fn next_change(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// The rollouts that this process ends from now on, each after the commit: those that entered a final state, were
    /// stored again in one, or were removed. A receiver that falls `MAX_ENDED_UNREAD` behind misses the oldest; the log
    /// of the store has them.
    pub fn subscribe_ended(&self) -> broadcast::Receiver<RolloutId> {
        self.ended.subscribe()
    }

    /// Stores the spans that pass the filter, and wakes callers that wait for a change.
    pub async fn append(&self, spans: Vec<Arc<Span>>) -> Result<Appended> {
        let filtered = self.filter.apply(spans).await;
        let counts = self.filter.sent_counts(&filtered);
        let spans = filtered.spans;
        let appended = if spans.is_empty() { Appended::default() } else { self.store.append(spans).await? };
        counts.arrived();
        self.notify_changed();
        Ok(appended)
    }

    /// Fails with [`RolloutError::NotFound`] unless the attempt exists.
    pub async fn require_attempt(&self, rollout: &RolloutId, attempt: &AttemptId) -> Result<()> {
        if self.known_attempts().contains(rollout, attempt) {
            return Ok(());
        }
        if self.store.rollout(rollout.clone()).await?.is_none() {
            return Err(RolloutError::NotFound(format!("Rollout {rollout} not found")));
        }
        let attempts = self.store.attempts(rollout.clone()).await?;
        if attempts.iter().all(|stored| stored.attempt_id != *attempt) {
            return Err(RolloutError::NotFound(format!("Attempt {attempt} not found for rollout {rollout}")));
        }
        self.known_attempts().insert(rollout.clone(), attempt.clone());
        Ok(())
    }

    /// Runs one transaction, then wakes those that wait for [`Self::next_change`]. If `job` fails, nothing is changed.
    /// The store may run `job` more than once.
    pub async fn transact<T: Send + 'static>(
        &self,
        job: impl FnMut(&mut dyn Records, Timestamp) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let value = self.transact_silently(job).await?;
        self.notify_changed();
        Ok(value)
    }

    /// As [`Self::transact`], without waking those that wait for [`Self::next_change`]. The ends of rollouts are sent all
    /// the same.
    pub async fn transact_silently<T: Send + 'static>(
        &self,
        mut job: impl FnMut(&mut dyn Records, Timestamp) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let outcome = Arc::new(Mutex::new(None));
        let (written, clock) = (Arc::clone(&outcome), self.clock);
        let change = self.store.change(Box::new(move |records| {
            let mut records = EndedRollouts::new(records);
            let result = job(&mut records, clock());
            let commit = if result.is_ok() {
                Ok(())
            } else {
                Err(StoreError::RolledBack("its code returned an error".to_owned()))
            };
            *written.lock().unwrap_or_else(PoisonError::into_inner) = Some((result, records.ended));
            commit
        }));
        let committed = change.await;
        let outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (outcome, committed) {
            (Some((Err(error), _)), _) => Err(error),
            (_, Err(error)) => Err(error.into()),
            (Some((Ok(value), ended)), Ok(())) => {
                for id in ended {
                    // No receiver, no error.
                    let _ = self.ended.send(id);
                }
                Ok(value)
            }
            (None, Ok(())) => Err(StoreError::Closed.into()),
        }
    }

    pub(super) fn notify_changed(&self) {
        self.changed.notify_waiters();
    }

    pub(super) fn known_attempts(&self) -> MutexGuard<'_, KnownAttempts> {
        self.known_attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

/// Ended rollouts that a receiver has not read yet.
const MAX_ENDED_UNREAD: usize = 4096;
