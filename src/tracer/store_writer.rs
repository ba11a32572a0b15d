//! The thread of a store tracer: stores queued spans in batches, and retries while the store can't be reached.

use super::active_trace::lock;
use crate::store::{FailedAppend, SequenceAuthority, SharedStore, StoreError};
use crate::trace::{RolloutId, Span};
use crate::util::lru::{LruCache, lru};
use crate::wire::redact::{RedactSettings, Redactor};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

pub(super) enum Command {
    Store(Arc<Span>),
    /// Answered with true when all spans before it are stored, and with false when the store has failed once more.
    Flush(oneshot::Sender<bool>),
}

/// What the thread has done.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) stored: AtomicU64,
    pub(super) refused: AtomicU64,
    // Locked for moments only.
    last_error: Mutex<Option<String>>,
}

impl Progress {
    /// Why the store can't be reached. `None` if the last append succeeded.
    pub(super) fn last_error(&self) -> Option<String> {
        lock(&self.last_error).clone()
    }

    /// Spans that are no longer waiting.
    pub(super) fn done(&self) -> u64 {
        self.stored.load(Ordering::Relaxed) + self.refused.load(Ordering::Relaxed)
    }
}

pub(super) struct Writer {
    store: SharedStore,
    commands: mpsc::Receiver<Command>,
    progress: Arc<Progress>,
    /// At most [`MAX_BATCH`].
    batch: Vec<Arc<Span>>,
    /// At most as many as callers wait.
    flushes: Vec<oneshot::Sender<bool>>,
    /// The highest sequence id of each rollout that is known here.
    sequences: LruCache<RolloutId, u64>,
    redactor: Redactor,
    is_closed: bool,
}

impl Writer {
    pub(super) fn new(store: SharedStore, commands: mpsc::Receiver<Command>, progress: Arc<Progress>) -> Self {
        Self {
            store,
            commands,
            progress,
            batch: Vec::new(),
            flushes: Vec::new(),
            sequences: lru(MAX_ROLLOUTS),
            redactor: Redactor::new(RedactSettings::default()),
            is_closed: false,
        }
    }

    /// Runs until the tracer is gone and its spans are stored, or the store has failed after that.
    pub(super) async fn run(mut self) {
        let mut delay = MIN_DELAY;
        while !(self.is_closed && self.batch.is_empty()) {
            if self.batch.is_empty() {
                let command = self.commands.recv().await;
                self.take(command);
            }
            self.take_waiting();
            match self.store_batch().await {
                Ok(()) => {
                    *lock(&self.progress.last_error) = None;
                    self.answer(true);
                    delay = MIN_DELAY;
                }
                Err(_) if self.is_closed => return,
                Err(cause) => {
                    if lock(&self.progress.last_error).replace(cause.clone()).is_none() {
                        tracing::warn!(cause, "spans of a tracer can't be stored now; retrying");
                    }
                    self.answer(false);
                    self.wait(delay).await;
                    delay = (delay * 2).min(MAX_DELAY);
                }
            }
        }
    }

    /// Waits for a retry. A flush ends the wait.
    async fn wait(&mut self, delay: Duration) {
        let retry = Instant::now() + delay;
        while self.batch.len() < MAX_BATCH && self.flushes.is_empty() && !self.is_closed {
            match timeout_at(retry, self.commands.recv()).await {
                Ok(command) => self.take(command),
                Err(_) => return,
            }
        }
        if self.flushes.is_empty() && !self.is_closed {
            tokio::time::sleep_until(retry).await;
        }
    }

    fn answer(&mut self, is_stored: bool) {
        for flush in self.flushes.drain(..) {
            // The caller may have given up.
            let _ = flush.send(is_stored);
        }
    }

    fn take(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Store(span)) => self.batch.push(span),
            Some(Command::Flush(flush)) => self.flushes.push(flush),
            None => self.is_closed = true,
        }
    }

    /// Takes what is queued. Not beyond a flush, which waits for what is before it.
    fn take_waiting(&mut self) {
        while self.batch.len() < MAX_BATCH && self.flushes.is_empty() {
            match self.commands.try_recv() {
                Ok(command) => self.take(Some(command)),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => return self.is_closed = true,
            }
        }
    }

    /// Stores the batch, and empties it. After an error, what is left of it was not stored.
    async fn store_batch(&mut self) -> Result<(), String> {
        let Self { store, batch, sequences, progress, redactor, .. } = self;
        match timeout(APPEND_TIMEOUT, append(store, batch, sequences, redactor, progress)).await {
            Ok(stored) => stored.map_err(|error| error.to_string()),
            Err(_) => Err(format!("the store has not answered for {} s", APPEND_TIMEOUT.as_secs())),
        }
    }
}

async fn append(
    store: &SharedStore,
    batch: &mut Vec<Arc<Span>>,
    sequences: &mut LruCache<RolloutId, u64>,
    redactor: &Redactor,
    progress: &Progress,
) -> Result<(), StoreError> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut numbered = Vec::with_capacity(batch.len());
    for span in batch.iter() {
        let sequence_id = next_sequence(store, &span.rollout_id, sequences).await?;
        // The trace in memory keeps the original.
        let mut span = Span { sequence_id, ..(**span).clone() };
        redactor.span(&mut span);
        numbered.push(Arc::new(span));
    }
    match store.append(numbered.clone()).await {
        Ok(_) => {
            progress.stored.fetch_add(batch.len() as u64, Ordering::Relaxed);
            batch.clear();
            return Ok(());
        }
        Err(error) if error.failed_append() == FailedAppend::Retry => return Err(error),
        Err(_) => {}
    }
    for span in numbered {
        match store.append(vec![span]).await {
            Ok(_) => progress.stored.fetch_add(1, Ordering::Relaxed),
            Err(error) if error.failed_append() == FailedAppend::Retry => return Err(error),
            Err(error) => {
                tracing::error!(%error, "the store rejected a span of a tracer");
                progress.refused.fetch_add(1, Ordering::Relaxed)
            }
        };
        batch.remove(0);
    }
    Ok(())
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

const MAX_BATCH: usize = 512;
const MAX_ROLLOUTS: usize = 1024;
const MIN_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(4);
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);
