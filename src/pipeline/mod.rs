//! From exchanges to stored spans: build, redact, batch, append, on a thread of its own.
//!
//! It must never hold up the traffic: when the store is in trouble it tries again while the queue fills, and what finds
//! no room there is counted by `capture`. Nothing leaves it unredacted.

pub mod span;

use crate::capture::Captured;
use crate::store::SharedStore;
use span::{SpanOptions, span_of};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// A running pipeline.
pub struct Pipeline {
    stopping: Arc<AtomicBool>,
    finish: mpsc::Sender<()>,
    done: oneshot::Receiver<()>,
    counters: Arc<Counters>,
}

/// What the pipeline counts; every one is a metric.
#[derive(Debug, Default)]
pub struct Counters {
    /// Spans stored.
    pub stored: AtomicU64,
    /// Appends that the store refused; each is tried again.
    pub store_errors: AtomicU64,
    /// Spans that could not be stored before the program ended.
    pub lost: AtomicU64,
}

impl Pipeline {
    /// Starts the thread. `store` is used on the current tokio runtime.
    pub fn start(queue: mpsc::Receiver<Captured>, store: SharedStore, options: SpanOptions) -> std::io::Result<Self> {
        let (stopping, counters) = (Arc::new(AtomicBool::new(false)), Arc::new(Counters::default()));
        let (finish, finishing) = mpsc::channel(1);
        let (ended, done) = oneshot::channel();
        let runtime = Handle::current();
        let worker = Worker { store, options, stopping: Arc::clone(&stopping), counters: Arc::clone(&counters) };
        std::thread::Builder::new().name("pipeline".to_owned()).spawn(move || {
            runtime.block_on(worker.run(queue, finishing));
            let _ = ended.send(());
        })?;
        Ok(Self { stopping, finish, done, counters })
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Takes nothing new, stores what is admitted, and ends. Returns how many spans could not be stored.
    pub async fn finish(self) -> u64 {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.finish.send(()).await;
        if tokio::time::timeout(FINISH_DEADLINE, self.done).await.is_err() {
            tracing::error!("the pipeline did not end in time");
        }
        self.counters.lost.load(Ordering::Relaxed)
    }
}

struct Worker {
    store: SharedStore,
    options: SpanOptions,
    stopping: Arc<AtomicBool>,
    counters: Arc<Counters>,
}

impl Worker {
    async fn run(self, mut queue: mpsc::Receiver<Captured>, mut finishing: mpsc::Receiver<()>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut closed = false;
        loop {
            let received = tokio::select! {
                biased;
                received = queue.recv_many(&mut batch, BATCH) => received,
                _ = finishing.recv(), if !closed => {
                    // No new slots; those already given out still deliver, and the queue ends after the last.
                    queue.close();
                    closed = true;
                    continue;
                }
            };
            if received == 0 {
                return;
            }
            self.store(std::mem::take(&mut batch)).await;
        }
    }

    async fn store(&self, batch: Vec<Captured>) {
        let (mut spans, mut waiting) = (Vec::with_capacity(batch.len()), Vec::new());
        for Captured { exchange, committed, held } in batch {
            spans.push(span_of(&exchange, &self.options));
            waiting.extend(committed);
            // The captured bytes are in the span now, or dropped with the exchange.
            drop(held);
        }
        let (count, mut pause, mut tries) = (spans.len() as u64, FIRST_PAUSE, 0);
        loop {
            match self.store.append(spans.clone()).await {
                Ok(_) => {
                    self.counters.stored.fetch_add(count, Ordering::Relaxed);
                    answer(&mut waiting, true);
                    if tries > 0 {
                        tracing::info!(tries, "the store takes spans again");
                    }
                    return;
                }
                Err(error) => {
                    // Whoever waits for the commit must not wait for the store to recover.
                    answer(&mut waiting, false);
                    self.counters.store_errors.fetch_add(1, Ordering::Relaxed);
                    tries += 1;
                    if tries == 1 {
                        tracing::error!(%error, spans = count, "spans can't be stored; trying again, the traffic goes on");
                    }
                    if self.stopping.load(Ordering::Relaxed) && tries >= LAST_TRIES {
                        self.counters.lost.fetch_add(count, Ordering::Relaxed);
                        tracing::error!(%error, spans = count, "spans are lost");
                        return;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Tells everybody who waits; whoever left needs no answer.
fn answer(waiting: &mut Vec<oneshot::Sender<bool>>, committed: bool) {
    for waiter in waiting.drain(..) {
        let _ = waiter.send(committed);
    }
}

const BATCH: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const LAST_TRIES: u32 = 3;
const FINISH_DEADLINE: Duration = Duration::from_secs(30);
