//! The workers: each takes exchanges from a capture queue, builds their spans, and appends them to the store in batches. The
//! exchanges of a rollout are in one queue, so that their order stays. While the spans of a batch are appended, its worker builds
//! those of the next one.

use super::counters::{PipelineCounters, Unstored};
use super::observed::{BuiltSpans, ObservedCall};
use super::observed_state::ObservedState;
use super::options::SpanOptions;
use super::pending::PendingSpans;
use super::relations::Relations;
use super::span::build_spans;
use crate::capture::{CaptureQueue, Captured, CommitStatus};
use crate::filter::{FilteredSpans, SpanFilter};
use crate::llm::token_ids::TokenIdIssue;
use crate::store::{SharedStore, StoreError};
use crate::util::panics::{Panicked, catch, caught};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running pipeline.
pub(crate) struct Pipeline {
    stopping: Arc<AtomicBool>,
    finish: CancellationToken,
    done: Vec<oneshot::Receiver<()>>,
    counters: Arc<PipelineCounters>,
}

impl Pipeline {
    /// Starts a thread for each queue. `store` is used on the current tokio runtime.
    pub(crate) fn start(
        queues: Vec<CaptureQueue>,
        store: SharedStore,
        filter: &SpanFilter,
        options: &SpanOptions,
        observed: ObservedState,
    ) -> std::io::Result<Self> {
        let (stopping, counters) = (Arc::new(AtomicBool::new(false)), Arc::new(PipelineCounters::default()));
        let (finish, mut done) = (CancellationToken::new(), Vec::with_capacity(queues.len()));
        for queue in queues {
            let (ended, end) = oneshot::channel();
            let (runtime, finishing) = (Handle::current(), finish.clone());
            let worker = PipelineWorker {
                store: Arc::clone(&store),
                filter: filter.clone(),
                options: options.clone(),
                observed: observed.clone(),
                stopping: Arc::clone(&stopping),
                counters: Arc::clone(&counters),
                relations: Relations::default(),
                under_way: None,
            };
            std::thread::Builder::new().name("pipeline".to_owned()).spawn(move || {
                runtime.block_on(worker.run(queue, finishing));
                let _ = ended.send(());
            })?;
            done.push(end);
        }
        Ok(Self { stopping, finish, done, counters })
    }

    /// What it counts.
    pub(crate) fn counters(&self) -> &Arc<PipelineCounters> {
        &self.counters
    }

    /// Stores what is in flight or queued, and ends. Returns how many of the `started` exchanges and of the inferred
    /// spans are not stored, for whatever reason, the deadline included.
    pub(crate) async fn finish(self, started: &AtomicU64) -> u64 {
        self.stopping.store(true, Ordering::Relaxed);
        self.finish.cancel();
        let all_done = async {
            for done in self.done {
                let _ = done.await;
            }
        };
        if tokio::time::timeout(FINISH_TIMEOUT, all_done).await.is_err() {
            tracing::error!("the pipeline did not store everything in time; the rest is lost");
        }
        let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let expected = counted(started) + counted(&counters.inferred) + counted(&counters.not_stored_counts);
        expected.saturating_sub(counted(&counters.stored) + counted(&counters.not_stored))
    }
}

struct PipelineWorker {
    store: SharedStore,
    filter: SpanFilter,
    options: SpanOptions,
    observed: ObservedState,
    stopping: Arc<AtomicBool>,
    counters: Arc<PipelineCounters>,
    relations: Relations,
    /// Spans that a task appends.
    under_way: Option<JoinHandle<Result<(), Unappended>>>,
}

/// Spans that the store did not take, and why.
type Unappended = Box<(PendingSpans, StoreError)>;

impl PipelineWorker {
    async fn run(mut self, mut queue: CaptureQueue, finishing: CancellationToken) {
        let mut batch = Vec::new();
        let mut is_closed = false;
        loop {
            if self.under_way.is_some() && queue.waiting() < ENOUGH {
                // What waits shares the next commit.
                self.store(PendingSpans::default(), &mut queue).await;
            }
            let received = tokio::select! {
                biased;
                received = queue.recv_many(&mut batch, MAX_PENDING) => received,
                () = finishing.cancelled(), if !is_closed => {
                    // No slot is reserved any more. Reserved ones still deliver, and the queue ends after the last.
                    queue.close();
                    is_closed = true;
                    continue;
                }
            };
            if received == 0 {
                return self.store(PendingSpans::default(), &mut queue).await;
            }
            if !is_closed {
                gather(&mut batch, &mut queue, &finishing).await;
            }
            // The spans of a batch are in memory together.
            while !batch.is_empty() {
                let rest = batch.split_off(light_part(&batch));
                let part = std::mem::replace(&mut batch, rest);
                let built = self.build(part).await;
                self.store(built, &mut queue).await;
            }
        }
    }

    /// Appends spans, after those that are being appended. If enough exchanges wait, a task does it while the caller builds their
    /// spans.
    async fn store(&mut self, built: PendingSpans, queue: &mut CaptureQueue) {
        let before = match self.under_way.take() {
            // The task catches panics. It is aborted only with the runtime, after the end of the program was waited for.
            Some(append) => append.await.unwrap_or(Ok(())),
            None => Ok(()),
        };
        if let Err(mut unappended) = before {
            unappended.0.add(built);
            return self.retry(unappended, queue).await;
        }
        let append = append(built, Arc::clone(&self.store), Arc::clone(&self.counters), 0);
        if queue.waiting() >= ENOUGH {
            self.under_way = Some(tokio::spawn(append));
        } else if let Err(unappended) = append.await {
            self.retry(unappended, queue).await;
        }
    }

    /// Appends spans that the store did not take, until it does. Meanwhile further exchanges are taken from the queue: if some
    /// spans can be stored and one can't, it is that span that is at fault, not the store.
    async fn retry(&mut self, mut unappended: Unappended, queue: &mut CaptureQueue) {
        let counters = Arc::clone(&self.counters);
        let (mut pause, mut tries, mut unstored) = (FIRST_PAUSE, 0, Unstored::of(&counters));
        loop {
            let (mut pending, error) = *unappended;
            // Responses don't wait for the store to recover.
            pending.notify(CommitStatus::NotCommitted);
            counters.store_errors.fetch_add(1, Ordering::Relaxed);
            tries += 1;
            let spans = pending.spans.len();
            unstored.set(spans as u64);
            if tries == 1 {
                tracing::error!(%error, spans, "spans can't be stored; retrying, traffic continues");
            }
            if self.stopping.load(Ordering::Relaxed) && tries >= MAX_TRIES_AT_END {
                counters.lost.fetch_add(spans as u64, Ordering::Relaxed);
                tracing::error!(%error, spans, "spans are lost: the store failed until the end of the program");
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
            let (mut more, mut bytes) = (Vec::new(), pending.content_bytes);
            while pending.spans.len() + more.len() < MAX_PENDING
                && bytes < MAX_PENDING_BYTES
                && let Ok(captured) = queue.try_recv()
            {
                bytes += captured.content_bytes();
                more.push(captured);
            }
            pending.add(self.build(more).await);
            match append(pending, Arc::clone(&self.store), Arc::clone(&counters), tries).await {
                Ok(()) => {
                    tracing::info!(tries, "the store accepts spans again");
                    return;
                }
                Err(again) => unappended = again,
            }
        }
    }

    /// Builds the spans of exchanges, and applies the filter. What can't be built is counted as lost.
    async fn build(&mut self, batch: Vec<Captured>) -> PendingSpans {
        let exchanges = batch.len() as u64;
        caught(Box::pin(self.build_caught(batch))).await.unwrap_or_else(|Panicked| {
            self.counters.lost.fetch_add(exchanges, Ordering::Relaxed);
            PendingSpans::default()
        })
    }

    async fn build_caught(&mut self, batch: Vec<Captured>) -> PendingSpans {
        let mut pending = PendingSpans::default();
        let mut spans = Vec::with_capacity(batch.len());
        for captured in batch {
            pending.content_bytes += captured.content_bytes();
            let Captured { mut exchange, begun, queued_at, committed, sequence, unstored, .. } = captured;
            self.counters.latencies.exchange_received(&exchange.timing, queued_at.elapsed());
            match catch(|| build_spans(&mut exchange, begun, &mut self.relations, &self.options)) {
                Ok(BuiltSpans { span, inferred, calls }) => {
                    calls.iter().for_each(|call| self.apply(call));
                    inferred.iter().chain([&span]).for_each(|span| self.counters.gen_ai.observe(span));
                    self.counters.inferred.fetch_add(inferred.len() as u64, Ordering::Relaxed);
                    spans.push(Arc::new(span));
                    spans.extend(inferred.into_iter().map(Arc::new));
                    pending.waiting.extend(committed);
                    pending.sequences.push(sequence);
                    pending.unstored.push(unstored);
                }
                Err(Panicked) => {
                    self.counters.lost.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(
                        host = exchange.request.host,
                        "an exchange is lost: its span could not be built (a bug in Tracewire)"
                    );
                }
            }
        }
        let FilteredSpans { spans, removed, added } = self.filter.apply(spans).await;
        self.counters.not_stored.fetch_add(removed, Ordering::Relaxed);
        self.counters.not_stored_counts.fetch_add(added, Ordering::Relaxed);
        pending.spans = spans;
        pending
    }

    /// Applies what was observed of a call, and counts the issues of its token ids.
    fn apply(&self, call: &ObservedCall) {
        self.observed.apply(call);
        for (issue, counter) in TokenIdIssue::ALL.iter().zip(&self.counters.token_id_issues) {
            if call.token_id_issues.contains(issue) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
        if call.token_id_issues.contains(&TokenIdIssue::IdsAbsent) {
            tracing::warn!(rollout_id = %call.rollout_id, call = call.span_name, "token ids were requested, but the response has none");
        }
    }
}

/// Appends spans. After a panic they are counted as lost.
async fn append(
    mut pending: PendingSpans,
    store: SharedStore,
    counters: Arc<PipelineCounters>,
    tries: u32,
) -> Result<(), Unappended> {
    let appended = caught(Box::pin(pending.append(&store, &counters, tries))).await;
    appended
        .unwrap_or_else(|Panicked| {
            counters.lost.fetch_add(pending.spans.len() as u64, Ordering::Relaxed);
            Ok(())
        })
        .map_err(|error| Box::new((pending, error)))
}

/// How many exchanges of a batch are stored together: their content is at most [`MAX_BATCH_BYTES`], but for the last one.
fn light_part(batch: &[Captured]) -> usize {
    let mut bytes = 0;
    let fits = batch.iter().take_while(|captured| {
        let before = bytes;
        let content = captured.content_bytes();
        bytes += if content > LONG_BYTES { content * LONG_WEIGHT } else { content };
        before < MAX_BATCH_BYTES
    });
    fits.count()
}

/// Adds the exchanges that arrive within a while, so that they share the cost of a commit. It ends at once if a response
/// waits for one, if the queue fills, or if the program ends.
async fn gather(batch: &mut Vec<Captured>, queue: &mut CaptureQueue, finishing: &CancellationToken) {
    queue.drain_into(batch, MAX_PENDING);
    if batch.len() >= ENOUGH || batch.iter().any(|captured| captured.committed.is_some()) {
        return;
    }
    tokio::select! {
        () = queue.early() => {}
        () = tokio::time::sleep(GATHER) => {}
        () = finishing.cancelled() => {}
    }
    queue.drain_into(batch, MAX_PENDING);
}

/// Exchanges that are stored without waiting for others.
const ENOUGH: usize = 256;
/// Recorded bytes that are made into spans at once, which takes several times as much memory.
const MAX_BATCH_BYTES: u64 = 6 << 20;
/// The content of a longer exchange counts [`LONG_WEIGHT`] times: a commit costs little beside it.
const LONG_BYTES: u64 = 64 << 10;
const LONG_WEIGHT: u64 = 3;
/// Maximum spans that wait for a store that fails. The others wait in the capture queue.
const MAX_PENDING: usize = 1024;
const MAX_PENDING_BYTES: u64 = 16 << 20;
/// How long an exchange without a waiting response waits for others.
const GATHER: Duration = Duration::from_millis(40);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);
const MAX_TRIES_AT_END: u32 = 3;
const FINISH_TIMEOUT: Duration = Duration::from_secs(30);
