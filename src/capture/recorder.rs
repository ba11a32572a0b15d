//! Starts recordings: a slot of the bounded queue is reserved first, so that whatever is recorded is delivered.

use super::captured::Captured;
use super::counters::CaptureCounters;
use super::memory::Memory;
use super::recording::Recording;
use super::recording_state::RecordingOptions;
use super::settings::{Absorb, CaptureSettings, Durability};
use crate::error::Side;
use crate::shared_state::SequenceLease;
use crate::trace::exchange::{
    Body, ConnectionFacts, Exchange, ExchangeKind, Identity, Injection, Messages, Outcome, RequestHead, Timing,
    TraceContext,
};
use http::Method;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};
use tokio::sync::mpsc;

/// Starts recordings, if the pipeline's queue has room: the slot of an exchange is reserved before its request is sent.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Captured>,
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
    /// With `durability = auto`: true if the response waits for its commit.
    pub auto_durable: bool,
    /// True when bodies are recorded whatever `capture.include_bodies` says.
    pub records_bodies: bool,
}

impl Recorder {
    /// A recorder, and the queue that it feeds. What memory is short for is spilled to a file in `spill_folder`.
    pub fn new(settings: CaptureSettings, spill_folder: PathBuf) -> (Self, mpsc::Receiver<Captured>) {
        let (queue, receiver) = mpsc::channel(settings.queue_exchanges.max(1));
        let memory = Memory::new(settings.memory_budget_bytes, spill_folder);
        (Self { queue, settings: Arc::new(settings), memory, counters: Arc::default() }, receiver)
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

    /// Starts to record an exchange. If the queue is full the exchange is counted and passes unrecorded.
    pub fn start(&self, start: ExchangeStart) -> Recording {
        let Ok(permit) = self.queue.clone().try_reserve_owned() else {
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
            Durability::Auto => start.auto_durable,
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
        let exchange = Exchange {
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
        };
        Recording::new(exchange, permit, start.sequence, options)
    }
}

/// True for a request that exports spans by OTLP over HTTP.
pub(crate) fn is_trace_export(request: &RequestHead) -> bool {
    let path = request.target.split('?').next().unwrap_or_default();
    request.method == Method::POST && path.trim_end_matches('/').ends_with("/v1/traces")
}
