//! Where recordings begin: a slot in the bounded queue is reserved first, so that what was admitted is delivered.

use super::budget::{Budget, Held};
use super::recording::Recording;
use super::{CaptureSettings, Durability};
use crate::error::Side;
use crate::trace::exchange::{
    Body, ConnectionFacts, Exchange, ExchangeKind, Identity, Injection, Messages, Outcome, RequestHead, Timing,
    TraceContext,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};
use tokio::sync::{mpsc, oneshot};

/// Begins recordings.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Captured>,
    settings: Arc<CaptureSettings>,
    budget: Budget,
    counters: Arc<Counters>,
}

/// A finished exchange on its way to the pipeline.
#[derive(Debug)]
pub struct Captured {
    /// What was seen.
    pub exchange: Exchange,
    /// When the exchange ended and entered the queue.
    pub queued_at: Instant,
    /// Told true once the span is committed, false if it can't be for now.
    pub committed: Option<oneshot::Sender<bool>>,
    /// Its part of the memory budget, given back when this is dropped.
    pub held: Held,
}

/// What capture counts; every one is a metric.
#[derive(Debug, Default)]
pub struct Counters {
    /// Recordings begun.
    pub begun: AtomicU64,
    /// Exchanges that passed unrecorded because the queue was full.
    pub dropped: AtomicU64,
    /// Exchanges that passed unrecorded because a setting says so.
    pub filtered: AtomicU64,
    /// Bodies cut short in the record.
    pub truncated: AtomicU64,
    /// Answers whose end was delivered before their commit.
    pub commit_missed: AtomicU64,
    /// Exchanges whose carriers named different rollouts.
    pub identity_conflicts: AtomicU64,
}

/// What must be known to begin.
pub struct ExchangeStart {
    /// Whose exchange it is.
    pub identity: Identity,
    /// Where it stands in its trace.
    pub trace: TraceContext,
    /// What sort it is.
    pub kind: ExchangeKind,
    /// The request.
    pub request: RequestHead,
    /// The connections, as far as known.
    pub connection: ConnectionFacts,
    /// When the request's head had been read.
    pub started: Instant,
    /// True when the rollout is registered.
    pub registered: bool,
    /// True when bodies are recorded whatever the settings say.
    pub keeps_bodies: bool,
}

impl Recorder {
    /// A recorder, and the queue it feeds.
    pub fn new(settings: CaptureSettings) -> (Self, mpsc::Receiver<Captured>) {
        let (queue, receiver) = mpsc::channel(settings.queue_exchanges.max(1));
        let budget = Budget::new(settings.memory_budget_bytes);
        (Self { queue, settings: Arc::new(settings), budget, counters: Arc::default() }, receiver)
    }

    /// The settings it records by.
    pub fn settings(&self) -> &CaptureSettings {
        &self.settings
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The memory budget of all recordings.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Begins to record an exchange. Without a free slot nothing is recorded, and that is counted.
    pub fn begin(&self, begin: ExchangeStart) -> Recording {
        let Ok(permit) = self.queue.clone().try_reserve_owned() else {
            if self.counters.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::error!("the capture queue is full; exchanges pass unrecorded (raise capture.queue_exchanges)");
            }
            return Recording::off();
        };
        self.counters.begun.fetch_add(1, Ordering::Relaxed);
        if begin.identity.conflict.is_some() {
            self.counters.identity_conflicts.fetch_add(1, Ordering::Relaxed);
        }
        let durable = match self.settings.durability {
            Durability::Auto => begin.registered,
            Durability::Commit => true,
            Durability::Async => false,
        };
        let wall = SystemTime::now().checked_sub(begin.started.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        let exchange = Exchange {
            identity: begin.identity,
            trace: begin.trace,
            kind: begin.kind,
            request: begin.request,
            response: None,
            informational: Vec::new(),
            injection: Injection::default(),
            request_body: Body::default(),
            response_body: Body::default(),
            messages: Messages::default(),
            timing: Timing { started_at: wall.into(), ..Timing::default() },
            connection: begin.connection,
            keeps_bodies: begin.keeps_bodies,
            gateway: None,
            // Until something better is known: whoever drops the recording went away.
            outcome: Outcome::Aborted { by: Side::Downstream },
        };
        Recording::new(exchange, permit, self, begin.started, durable)
    }
}
