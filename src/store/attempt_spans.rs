//! Reads the spans of many attempts a little ahead of the caller, so that several threads read while the caller works.

use super::api::SharedStore;
use super::error::{Result, StoreError};
use crate::trace::{AttemptedRollout, Span};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// The spans of each rollout's latest attempt, in the order of the rollouts.
pub(crate) struct AttemptSpans {
    store: SharedStore,
    rollouts: std::vec::IntoIter<AttemptedRollout>,
    // At most READ_AHEAD.
    reads: VecDeque<(AttemptedRollout, JoinHandle<Result<Vec<Span>>>)>,
}

impl AttemptSpans {
    /// Nothing is read before the first call of [`next`](Self::next).
    pub(crate) fn new(store: &SharedStore, rollouts: Vec<AttemptedRollout>) -> Self {
        Self { store: Arc::clone(store), rollouts: rollouts.into_iter(), reads: VecDeque::new() }
    }

    /// The next rollout with its spans. `None` after the last one.
    pub(crate) async fn next(&mut self) -> Option<(AttemptedRollout, Result<Vec<Span>>)> {
        while self.reads.len() < READ_AHEAD
            && let Some(found) = self.rollouts.next()
        {
            let (store, rollout) = (Arc::clone(&self.store), found.rollout.rollout_id.clone());
            let attempt = found.attempt.as_ref().map(|attempt| attempt.attempt_id.clone());
            let read = tokio::spawn(async move { store.spans(rollout, attempt).await });
            self.reads.push_back((found, read));
        }
        let (found, read) = self.reads.pop_front()?;
        // A task ends without a result only if the runtime shuts down.
        Some((found, read.await.unwrap_or(Err(StoreError::Closed))))
    }
}

/// Attempts with spans that are being read or wait for the caller.
const READ_AHEAD: usize = 4;
