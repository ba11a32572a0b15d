//! The thread of a store tracer: stores queued spans in batches, and retries while the store can't be reached.

use crate::store::{FailedAppend, SequenceAuthority, SharedStore, StoreError, StoreExt};
use crate::trace::{RolloutId, Span, SpanId};
use crate::util::lru::{LruCache, lru};
use crate::wire::redact::{RedactSettings, Redactor};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// What the thread has done.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Spans in the store.
    pub(super) stored: u64,
    /// Spans that the store rejected.
    pub(super) refused: u64,
    /// Tries that ended because the store could not be reached.
    pub(super) failures: u64,
    /// Why the store can't be reached. `None` if the last append succeeded.
    pub(super) last_error: Option<String>,
}

impl Progress {
    /// Spans that are no longer waiting.
    pub(super) fn done(&self) -> u64 {
        self.stored + self.refused
    }
}

pub(super) struct Writer {
    store: SharedStore,
    spans: mpsc::Receiver<Arc<Span>>,
    progress: watch::Sender<Progress>,
    /// Ends the wait for a retry.
    hurry: Arc<Notify>,
    /// At most [`MAX_BATCH`]. The first [`Self::prepared`] are as they will be stored.
    batch: Vec<Arc<Span>>,
    prepared: usize,
    /// The root span that may have been stored by an append that failed.
    uncertain_root: Option<String>,
    /// The highest sequence id of each rollout that is known here.
    sequences: LruCache<RolloutId, u64>,
    redactor: Redactor,
    /// When the tracer was dropped. `None` before.
    closed: Option<Instant>,
}

impl Writer {
    pub(super) fn new(
        store: SharedStore,
        spans: mpsc::Receiver<Arc<Span>>,
        progress: watch::Sender<Progress>,
        hurry: Arc<Notify>,
    ) -> Self {
        Self {
            store,
            spans,
            progress,
            hurry,
            batch: Vec::new(),
            prepared: 0,
            uncertain_root: None,
            sequences: lru(MAX_ROLLOUTS),
            redactor: Redactor::new(RedactSettings::default()),
            closed: None,
        }
    }

    /// Runs until the tracer is gone and its spans are stored, or can't be stored within [`CLOSE_TIMEOUT`] after that.
    pub(super) async fn run(mut self) {
        let mut delay = MIN_DELAY;
        loop {
            if self.batch.is_empty() && self.closed.is_none() {
                let span = self.spans.recv().await;
                self.take(span);
            }
            while self.batch.len() < MAX_BATCH
                && let Ok(span) = self.spans.try_recv()
            {
                self.batch.push(span);
            }
            if self.batch.is_empty() && self.closed.is_some() {
                return;
            }
            match self.store_batch().await {
                Ok(()) => {
                    self.progress.send_if_modified(|progress| progress.last_error.take().is_some());
                    delay = MIN_DELAY;
                }
                // A store that was closed stays closed.
                Err(StoreError::Closed) if self.closed.is_some() => return,
                Err(_) if self.closed.is_some_and(|closed| closed.elapsed() >= CLOSE_TIMEOUT) => return,
                Err(cause) => {
                    self.note_failure(cause.to_string());
                    self.wait(delay).await;
                    delay = (delay * 2).min(MAX_DELAY);
                }
            }
        }
    }

    fn note_failure(&self, cause: String) {
        if self.progress.borrow().last_error.is_none() {
            tracing::warn!(cause, "spans of a tracer can't be stored now; retrying");
        }
        self.progress.send_modify(|progress| {
            progress.failures += 1;
            progress.last_error = Some(cause);
        });
    }

    /// Waits for a retry. A flush ends the wait, and so does the end of the tracer.
    async fn wait(&mut self, delay: Duration) {
        let retry = Instant::now() + delay;
        loop {
            let has_room = self.closed.is_none() && self.batch.len() < MAX_BATCH;
            tokio::select! {
                () = sleep_until(retry) => return,
                () = self.hurry.notified() => return,
                span = self.spans.recv(), if has_room => {
                    self.take(span);
                    if self.closed.is_some() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes a span, or the end of the tracer.
    fn take(&mut self, span: Option<Arc<Span>>) {
        match span {
            Some(span) => self.batch.push(span),
            None => self.closed = Some(Instant::now()),
        }
    }

    /// Stores the batch, and empties it. After an error, what is left of it was not stored.
    async fn store_batch(&mut self) -> Result<(), StoreError> {
        self.prepare_batch().await?;
        self.store_roots().await?;
        if self.batch.is_empty() {
            return Ok(());
        }
        match answered(self.store.append(self.batch.clone())).await {
            Ok(_) => {
                self.note_stored(self.batch.len());
                self.batch.clear();
                self.prepared = 0;
                return Ok(());
            }
            Err(error) if error.failed_append() == FailedAppend::Retry => return Err(error),
            Err(_) => {}
        }
        while let Some(span) = self.batch.first() {
            let appended = answered(self.store.append(vec![Arc::clone(span)])).await;
            self.conclude(0, appended.map(drop))?;
        }
        Ok(())
    }

    /// Gives each new span its sequence id, once, and redacts it.
    async fn prepare_batch(&mut self) -> Result<(), StoreError> {
        while let Some(span) = self.batch.get(self.prepared) {
            let next = next_sequence(&self.store, &span.rollout_id, &mut self.sequences);
            let sequence_id = answered(next).await?;
            // The trace in memory keeps the original.
            let mut stored = Span { sequence_id, ..(**span).clone() };
            self.redactor.span(&mut stored);
            self.batch[self.prepared] = Arc::new(stored);
            self.prepared += 1;
        }
        Ok(())
    }

    /// Stores the roots of attempts, which have the same id in every process: one that another process has stored already
    /// stays in the batch, below that one.
    async fn store_roots(&mut self) -> Result<(), StoreError> {
        while let Some(at) = self.batch.iter().position(|span| is_attempt_root(span)) {
            let root = Arc::clone(&self.batch[at]);
            let key = format!("{}/{}", root.rollout_id, root.attempt_id);
            let is_ours = self.uncertain_root.take().is_some_and(|uncertain| uncertain == key);
            match answered(self.store.append(vec![Arc::clone(&root)])).await {
                Ok(appended) if appended.duplicates > 0 && !is_ours => {
                    self.batch[at] = Arc::new(Span {
                        span_id: SpanId::from_random(fastrand::u64(..)).to_string(),
                        parent_id: Some(root.span_id.clone()),
                        ..Arc::unwrap_or_clone(root)
                    });
                }
                appended => {
                    if appended.is_err() {
                        self.uncertain_root = Some(key);
                    }
                    self.conclude(at, appended.map(drop))?;
                }
            }
        }
        Ok(())
    }

    /// Removes a span of the batch that was stored or rejected. Returns the error if it has to be tried again.
    fn conclude(&mut self, at: usize, appended: Result<(), StoreError>) -> Result<(), StoreError> {
        match appended {
            Ok(()) => self.note_stored(1),
            Err(error) if error.failed_append() == FailedAppend::Retry => return Err(error),
            Err(error) => {
                tracing::error!(%error, "the store rejected a span of a tracer");
                self.progress.send_modify(|progress| progress.refused += 1);
            }
        }
        self.batch.remove(at);
        self.prepared -= 1;
        Ok(())
    }

    fn note_stored(&self, spans: usize) {
        self.progress.send_modify(|progress| progress.stored += spans as u64);
    }
}

/// The result of a store, or the error of one that has not answered in time.
async fn answered<T>(future: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let silent = || StoreError::Other(format!("it has not answered for {} s", ANSWER_TIMEOUT.as_secs()));
    timeout(ANSWER_TIMEOUT, future).await.unwrap_or_else(|_| Err(silent()))
}

fn is_attempt_root(span: &Span) -> bool {
    span.parent_id.is_none() && span.span_id == SpanId::of_attempt_root(&span.rollout_id, &span.attempt_id).to_string()
}

async fn next_sequence(
    store: &SharedStore,
    rollout: &RolloutId,
    sequences: &mut LruCache<RolloutId, u64>,
) -> Result<u64, StoreError> {
    let known = sequences.get(rollout).copied();
    let id = match store.sequence_authority() {
        SequenceAuthority::Store => store.next_sequence(rollout.clone(), known.unwrap_or(0)).await?.last_sequence_id,
        SequenceAuthority::Process => {
            let last = match known {
                Some(last) => last,
                None => store.sequence_state(rollout.clone()).await?.last_sequence_id,
            };
            store.take_sequence(rollout, last + 1)
        }
    };
    sequences.put(rollout.clone(), id);
    Ok(id)
}

/// How long spans are tried to be stored after the tracer is gone.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BATCH: usize = 512;
const MAX_ROLLOUTS: usize = 1024;
const MIN_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(4);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
