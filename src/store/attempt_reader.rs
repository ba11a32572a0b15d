//! Reads the spans of many rollouts a little ahead of the caller, so that several threads read and convert while it works.

use super::api::SharedStore;
use super::error::{Result, StoreError};
use super::extension::StoreExt;
use super::selected_rollouts::SelectedRollouts;
use crate::trace::{AttemptScope, AttemptedRollout, Span};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Makes something of the spans of each rollout's latest attempt, or of all its attempts, in the order of the rollouts.
pub(crate) struct AttemptReader<T> {
    store: SharedStore,
    rollouts: SelectedRollouts,
    attempts: AttemptScope,
    convert: Arc<Convert<T>>,
    // At most READ_AHEAD.
    reads: VecDeque<JoinHandle<Result<T>>>,
}

type Convert<T> = dyn Fn(AttemptedRollout, Vec<Span>) -> T + Send + Sync;

impl<T: Send + 'static> AttemptReader<T> {
    /// `convert` runs for several attempts at once, on threads where it may take its time. Nothing is read before the first
    /// call of [`next`](Self::next).
    pub(crate) fn new(
        store: &SharedStore,
        rollouts: SelectedRollouts,
        attempts: AttemptScope,
        convert: impl Fn(AttemptedRollout, Vec<Span>) -> T + Send + Sync + 'static,
    ) -> Self {
        Self { store: Arc::clone(store), rollouts, attempts, convert: Arc::new(convert), reads: VecDeque::new() }
    }

    /// What the next attempt was converted to. `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<T>> {
        while self.reads.len() < READ_AHEAD
            && let Some(found) = self.rollouts.next().await?
        {
            let (store, convert) = (Arc::clone(&self.store), Arc::clone(&self.convert));
            let attempts = self.attempts;
            self.reads.push_back(tokio::spawn(async move {
                let latest = found.attempt.as_ref().filter(|_| attempts == AttemptScope::Latest);
                let attempt = latest.map(|attempt| attempt.attempt_id.clone());
                let spans = store.spans(found.rollout.rollout_id.clone(), attempt).await?;
                Ok(tokio::task::block_in_place(|| convert(found, spans)))
            }));
        }
        let Some(read) = self.reads.pop_front() else { return Ok(None) };
        // A task ends without a result if the runtime shuts down, or if the conversion panicked.
        read.await.unwrap_or(Err(StoreError::Closed)).map(Some)
    }
}

/// Attempts that are being read, or wait for the caller.
const READ_AHEAD: usize = 4;
