//! From exchanges to stored spans: build, redact, batch, append, on a thread of its own.
//!
//! It must never hold up the traffic: when the store is in trouble it tries again while the queue fills, and what finds
//! no room there is counted by `capture`. Nothing leaves it unredacted.

mod absorb;
mod calls;
mod gateway;
mod latency;
mod llm;
mod messages;
mod relations;
mod socket;
pub mod span;

use crate::capture::Captured;
use crate::llm::token_ids::TokenIdIssue;
use crate::store::{Appended, SharedStore, StoreError};
use crate::trace::Span;
use span::{Built, SpanOptions, span_of};

pub use latency::Latencies;
pub use relations::Relations;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
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
    /// Spans that could not be built or stored.
    pub lost: AtomicU64,
    /// Spans that were inferred, besides those of exchanges.
    pub inferred: AtomicU64,
    /// Calls whose token ids are not proved, by the reason's place in [`TokenIdIssue::ALL`].
    pub unproved: [AtomicU64; TokenIdIssue::ALL.len()],
    /// How long exchanges, and the steps behind them, take.
    pub latencies: Latencies,
}

impl Pipeline {
    /// Starts the thread. `store` is used on the current tokio runtime.
    pub fn start(queue: mpsc::Receiver<Captured>, store: SharedStore, options: SpanOptions) -> std::io::Result<Self> {
        let (stopping, counters) = (Arc::new(AtomicBool::new(false)), Arc::new(Counters::default()));
        let (finish, finishing) = mpsc::channel(1);
        let (ended, done) = oneshot::channel();
        let runtime = Handle::current();
        let worker = Worker {
            store,
            options,
            stopping: Arc::clone(&stopping),
            counters: Arc::clone(&counters),
            relations: Relations::default(),
        };
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

    /// Takes nothing new, stores what is admitted, and ends. What `begun` recordings did not become spans is lost, also
    /// what is neither stored nor given up when time runs out.
    pub async fn finish(self, begun: &AtomicU64) -> u64 {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.finish.send(()).await;
        if tokio::time::timeout(FINISH_DEADLINE, self.done).await.is_err() {
            tracing::error!("the pipeline did not end in time");
        }
        let made = begun.load(Ordering::Relaxed) + self.counters.inferred.load(Ordering::Relaxed);
        made.saturating_sub(self.counters.stored.load(Ordering::Relaxed))
    }
}

struct Worker {
    store: SharedStore,
    options: SpanOptions,
    stopping: Arc<AtomicBool>,
    counters: Arc<Counters>,
    relations: Relations,
}

impl Worker {
    async fn run(mut self, mut queue: mpsc::Receiver<Captured>, mut finishing: mpsc::Receiver<()>) {
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
            if !closed && batch.len() < BATCH {
                gather(&mut batch, &mut queue).await;
            }
            self.store(std::mem::take(&mut batch), &mut queue).await;
        }
    }

    /// Stores a batch. While the store refuses it, what else arrives is taken in too, so that a span which the store
    /// can't take is told from a store that takes none.
    async fn store(&mut self, batch: Vec<Captured>, queue: &mut mpsc::Receiver<Captured>) {
        let mut pending = Pending::default();
        self.build(batch, &mut pending);
        let (mut pause, mut tries) = (FIRST_PAUSE, 0);
        loop {
            let Err(error) = self.append(&mut pending, tries).await else {
                if tries > 0 {
                    tracing::info!(tries, "the store takes spans again");
                }
                return;
            };
            // Whoever waits for the commit must not wait for the store to recover.
            answer(&mut pending.waiting, false);
            self.counters.store_errors.fetch_add(1, Ordering::Relaxed);
            tries += 1;
            let spans = pending.spans.len();
            if tries == 1 {
                tracing::error!(%error, spans, "spans can't be stored; trying again, the traffic goes on");
            }
            if self.stopping.load(Ordering::Relaxed) && tries >= LAST_TRIES {
                self.counters.lost.fetch_add(spans as u64, Ordering::Relaxed);
                tracing::error!(%error, spans, "spans are lost");
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let mut more = Vec::new();
            while pending.spans.len() + more.len() < MAX_PENDING
                && let Ok(captured) = queue.try_recv()
            {
                more.push(captured);
            }
            self.build(more, &mut pending);
        }
    }

    /// Appends what is pending as one commit; after some failures one by one, and what fails while others don't is lost.
    async fn append(&self, pending: &mut Pending, tries: u32) -> Result<(), StoreError> {
        let all = pending.spans.len() as u64;
        let Err(mut failure) = self.append_measured(pending.spans.clone()).await else {
            self.counters.stored.fetch_add(all, Ordering::Relaxed);
            pending.spans.clear();
            answer(&mut pending.waiting, true);
            return Ok(());
        };
        if tries < WHOLE_TRIES || pending.spans.len() < 2 {
            return Err(failure);
        }
        let mut taken = None;
        for span in std::mem::take(&mut pending.spans) {
            match self.append_measured(vec![Arc::clone(&span)]).await {
                Ok(_) => {
                    self.counters.stored.fetch_add(1, Ordering::Relaxed);
                    taken = Some(span);
                }
                Err(error) => {
                    failure = error;
                    pending.spans.push(span);
                }
            }
        }
        let Some(taken) = taken else { return Err(failure) };
        for span in std::mem::take(&mut pending.spans) {
            match self.append_measured(vec![Arc::clone(&span)]).await {
                Ok(_) => drop(self.counters.stored.fetch_add(1, Ordering::Relaxed)),
                // A span that is stored already changes nothing: it tells whether the store is there at all.
                Err(error) if self.append_measured(vec![Arc::clone(&taken)]).await.is_ok() => {
                    self.counters.lost.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, rollout_id = %span.rollout_id, span_id = span.span_id, "the store can't take this span; it is lost");
                }
                Err(error) => {
                    failure = error;
                    pending.spans.push(span);
                }
            }
        }
        if pending.spans.is_empty() { Ok(()) } else { Err(failure) }
    }

    /// One append, measured.
    async fn append_measured(&self, spans: Vec<Arc<Span>>) -> Result<Appended, StoreError> {
        let started = Instant::now();
        let appended = self.store.append(spans).await;
        self.counters.latencies.store.observe(started.elapsed().as_secs_f64());
        appended
    }

    /// Turns exchanges into spans. One that can't be turned is counted as lost, and the others go on.
    fn build(&mut self, batch: Vec<Captured>, pending: &mut Pending) {
        for Captured { mut exchange, queued_at, committed, held } in batch {
            self.counters.latencies.exchange_received(&exchange.timing, queued_at.elapsed());
            match catch_unwind(AssertUnwindSafe(|| span_of(&mut exchange, &mut self.relations, &self.options))) {
                Ok(Built { span, inferred, unproved }) => {
                    unproved.iter().for_each(|faults| self.count(&span, faults));
                    self.counters.inferred.fetch_add(inferred.len() as u64, Ordering::Relaxed);
                    pending.spans.push(Arc::new(span));
                    pending.spans.extend(inferred.into_iter().map(Arc::new));
                    pending.waiting.extend(committed);
                }
                Err(_) => {
                    self.counters.lost.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(
                        host = exchange.request.host,
                        "an exchange could not be turned into a span; it is lost"
                    );
                }
            }
            // The captured bytes are in the span now, or dropped with the exchange.
            drop(held);
        }
    }
}

impl Worker {
    /// Counts what speaks against a call's token ids; that there are none though they were asked for is also said.
    fn count(&self, span: &Span, unproved: &BTreeSet<TokenIdIssue>) {
        for (fault, counter) in TokenIdIssue::ALL.iter().zip(&self.counters.unproved) {
            if unproved.contains(fault) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
        if unproved.contains(&TokenIdIssue::IdsAbsent) {
            tracing::warn!(rollout_id = %span.rollout_id, call = span.name, "token ids were asked for, and none came");
        }
    }
}

/// Adds what comes within a while, so that many exchanges share what one commit costs; nobody who waits for a commit is
/// kept waiting.
async fn gather(batch: &mut Vec<Captured>, queue: &mut mpsc::Receiver<Captured>) {
    let enough = tokio::time::sleep(GATHER);
    tokio::pin!(enough);
    while batch.len() < MAX_PENDING && batch.iter().all(|captured| captured.committed.is_none()) {
        tokio::select! {
            biased;
            received = queue.recv_many(batch, BATCH) => if received == 0 { return },
            () = &mut enough => return,
        }
    }
}

/// Spans on their way into the store, and who waits for them to be committed.
#[derive(Default)]
struct Pending {
    spans: Vec<Arc<Span>>,
    waiting: Vec<oneshot::Sender<bool>>,
}

/// Tells everybody who waits; whoever left needs no answer.
fn answer(waiting: &mut Vec<oneshot::Sender<bool>>, committed: bool) {
    for waiter in waiting.drain(..) {
        let _ = waiter.send(committed);
    }
}

const BATCH: usize = 256;
const MAX_PENDING: usize = 4 * BATCH;
/// How long a span that nobody waits for may wait for company.
const GATHER: Duration = Duration::from_millis(40);
/// Tries with the whole batch before its spans are tried one by one.
const WHOLE_TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const LAST_TRIES: u32 = 3;
const FINISH_DEADLINE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
