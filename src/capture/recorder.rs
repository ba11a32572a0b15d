//! Starts recordings: a slot of a bounded queue is reserved first, so that whatever is recorded is delivered. The exchanges of a
//! rollout go to the same queue, so that they stay in order.

use super::counters::CaptureCounters;
use super::memory::Memory;
use super::queue::{CaptureQueue, CaptureQueueSender, QueueSlot, capture_queue};
use super::recording::Recording;
use super::recording_state::RecordingOptions;
use super::settings::{Absorb, CaptureSettings, Durability, WhenFull};
use crate::error::Side;
use crate::shared_state::SequenceLease;
use crate::trace::RolloutId;
use crate::trace::exchange::{
    Body, ConnectionFacts, Exchange, ExchangeKind, Identity, Injection, Messages, Outcome, RequestHead, Timing,
    TraceContext,
};
use http::Method;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::error::TrySendError;

/// Starts recordings, if the pipeline's queues have room: the slot of an exchange is reserved before its request is sent.
#[derive(Clone)]
pub struct Recorder {
    /// One for each worker of the pipeline.
    queues: Arc<[CaptureQueueSender]>,
    hasher: RandomState,
    settings: Arc<CaptureSettings>,
    memory: Memory,
    counters: Arc<CaptureCounters>,
}

/// What is known of an exchange when it starts.
pub struct ExchangeStart {
    /// The rollout and attempt that the exchange belongs to, its sequence id, and how they were found.
    pub identity: Identity,
    /// Keeps the rollout's counter in memory until the span is stored or lost.
    pub sequence: SequenceLease,
    /// The ids of its trace, of its span and of the parent span.
    pub trace: TraceContext,
    /// What sort of exchange it is; an upgrade changes it later.
    pub kind: ExchangeKind,
    /// The request's head as the agent sent it.
    pub request: RequestHead,
    /// The agent's connection. That to the endpoint is added when it exists.
    pub connection: ConnectionFacts,
    /// When the request's head had been read.
    pub started: Instant,
    /// True if the exchange must not be lost: with `durability = auto` the response waits for its commit, and with
    /// `when_full = auto` the request waits for room.
    pub is_required: bool,
    /// True when bodies are recorded whatever `capture.include_bodies` says.
    pub records_bodies: bool,
}

impl Recorder {
    /// A recorder, and the queues that it feeds, one for each worker. What memory is short for is spilled to a file in
    /// `spill_folder`.
    pub fn new(settings: CaptureSettings, spill_folder: PathBuf) -> (Self, Vec<CaptureQueue>) {
        let workers = settings.worker_count();
        let capacity = settings.queue_exchanges.div_ceil(workers).clamp(1, Semaphore::MAX_PERMITS);
        let (queues, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| capture_queue(capacity)).unzip();
        let memory = Memory::new(settings.memory_budget_bytes, spill_folder);
        let (queues, settings) = (queues.into(), Arc::new(settings));
        (Self { queues, hasher: RandomState::new(), settings, memory, counters: Arc::default() }, receivers)
    }

    /// A recorder with one queue.
    pub fn with_one_queue(settings: CaptureSettings, spill_folder: PathBuf) -> (Self, CaptureQueue) {
        let (recorder, mut queues) = Self::new(CaptureSettings { workers: 1, ..settings }, spill_folder);
        (recorder, queues.remove(0))
    }

    /// The settings that it was made with.
    pub fn settings(&self) -> &CaptureSettings {
        &self.settings
    }

    /// The counters of all recordings, for the metrics.
    pub fn counters(&self) -> &Arc<CaptureCounters> {
        &self.counters
    }

    /// The memory that everything in flight shares.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Starts to record an exchange. If its queue is full, it waits for room as the settings say.
    pub async fn start(&self, start: ExchangeStart) -> Recording {
        let queue = self.queue_of(&start.identity.rollout_id);
        let waits = match self.settings.when_full {
            WhenFull::Auto => start.is_required,
            WhenFull::Wait => true,
            WhenFull::Pass => false,
        };
        let slot = match queue.try_reserve() {
            Err(TrySendError::Full(queue)) if waits => self.wait_for_room(queue).await,
            slot => slot.ok(),
        };
        self.start_in(slot, start)
    }

    /// Starts to record an exchange that can't wait: it passes unrecorded if its queue is full.
    pub fn start_now(&self, start: ExchangeStart) -> Recording {
        let slot = self.queue_of(&start.identity.rollout_id).try_reserve().ok();
        self.start_in(slot, start)
    }

    /// True if an exchange would find its queue full now.
    pub fn is_full(&self) -> bool {
        self.queues.iter().any(CaptureQueueSender::is_full)
    }

    fn queue_of(&self, rollout: &RolloutId) -> &CaptureQueueSender {
        let at = self.hasher.hash_one(rollout) % self.queues.len() as u64;
        &self.queues[at as usize]
    }

    /// `None` if there is no room in time.
    async fn wait_for_room(&self, queue: CaptureQueueSender) -> Option<QueueSlot> {
        if self.counters.waited.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!(
                "the capture queue is full: requests wait for room; raise capture.queue_exchanges, or check the disk"
            );
        }
        let _waiting = Waiting::new(&self.counters.waiting);
        tokio::time::timeout(self.settings.full_wait, queue.reserve()).await.ok()?
    }

    /// Starts to record an exchange in a slot. Without one, the exchange is counted and passes unrecorded.
    fn start_in(&self, slot: Option<QueueSlot>, start: ExchangeStart) -> Recording {
        let Some(slot) = slot else {
            if self.counters.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::error!("the capture queue is full: exchanges pass unrecorded; raise capture.queue_exchanges");
            }
            return Recording::off();
        };
        self.counters.started.fetch_add(1, Ordering::Relaxed);
        if start.identity.conflict.is_some() {
            self.counters.identity_conflicts.fetch_add(1, Ordering::Relaxed);
        }
        let durable = match self.settings.durability {
            Durability::Auto => start.is_required,
            Durability::Commit => true,
            Durability::Async => false,
        };
        let absorbs = self.settings.absorb_telemetry != Absorb::Off && is_trace_export(&start.request);
        let options = RecordingOptions {
            started: start.started,
            durable,
            is_absorbed: absorbs,
            settings: Arc::clone(&self.settings),
            counters: Arc::clone(&self.counters),
            memory: self.memory.clone(),
        };
        let wall = SystemTime::now().checked_sub(start.started.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        let exchange = Box::new(Exchange {
            identity: start.identity,
            trace: start.trace,
            kind: start.kind,
            request: start.request,
            response: None,
            informational: Vec::new(),
            injection: Injection::default(),
            request_body: Body::default(),
            response_body: Body::default(),
            messages: Messages::default(),
            timing: Timing { started_at: wall.into(), ..Timing::default() },
            connection: start.connection,
            records_bodies: start.records_bodies,
            gateway: None,
            // If the recording is dropped without another outcome, the agent's connection went away.
            outcome: Outcome::Aborted { by: Side::Downstream },
        });
        Recording::new(exchange, slot, start.sequence, options)
    }
}

/// Counts an exchange that waits, also if its agent goes away meanwhile.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// True for a request that exports spans by OTLP over HTTP.
pub(crate) fn is_trace_export(request: &RequestHead) -> bool {
    let path = request.target.split('?').next().unwrap_or_default();
    request.method == Method::POST && path.trim_end_matches('/').ends_with("/v1/traces")
}
