//! What every tracer has: its workers, the processor of its spans, and its last trace.

use super::active_trace::{ActiveTrace, TraceIdentity, lock, random_id};
use super::context::Context;
use super::error::{Result, TracerError};
use super::finished::Trace;
use super::new_span::NewSpan;
use super::operation::Operation;
use super::options::TraceOptions;
use super::processor::SpanProcessor;
use crate::store::BoxFuture;
use crate::trace::{AttemptId, RolloutId, Span, SpanId, StatusCode};
use crate::util::lru::{LruCache, lru};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};

/// The part that all tracers share. A new tracer holds one and returns it from [`Tracer::core`](super::Tracer::core).
/// Cloning it is cheap; the clones are the same tracer.
#[derive(Clone)]
pub struct TracerCore(Arc<Shared>);

struct Shared {
    name: Arc<str>,
    processor: Arc<dyn SpanProcessor>,
    // Locked for moments only.
    state: Mutex<State>,
}

struct State {
    /// At most [`MAX_WORKERS`].
    workers: BTreeSet<u32>,
    had_workers: bool,
    last_trace: Option<Arc<Trace>>,
    /// Attempts with a root span of this tracer: span ids are unique within an attempt.
    rooted: LruCache<(RolloutId, AttemptId), ()>,
}

impl TracerCore {
    /// A tracer without workers. `name` is in errors, and in the resource of each span (`agentlightning.tracer.name`).
    pub fn new(name: &str, processor: impl SpanProcessor) -> Self {
        Self::with_shared(name, Arc::new(processor))
    }

    pub(super) fn with_shared(name: &str, processor: Arc<dyn SpanProcessor>) -> Self {
        let state =
            State { workers: BTreeSet::new(), had_workers: false, last_trace: None, rooted: lru(MAX_ROOTED_ATTEMPTS) };
        Self(Arc::new(Shared { name: name.into(), processor, state: Mutex::new(state) }))
    }

    /// The name of the tracer.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub(super) fn init_worker(&self, worker: u32) -> Result<()> {
        let mut state = lock(&self.0.state);
        if state.workers.contains(&worker) {
            return Err(TracerError::AlreadyInitialized { tracer: self.name().to_owned(), worker });
        }
        if state.workers.len() >= MAX_WORKERS {
            return Err(TracerError::TooManyWorkers { tracer: self.name().to_owned(), limit: MAX_WORKERS });
        }
        state.workers.insert(worker);
        state.had_workers = true;
        Ok(())
    }

    /// Removes a worker. It may be unknown: a tear-down runs after failures too.
    pub(super) fn remove_worker(&self, worker: u32) {
        lock(&self.0.state).workers.remove(&worker);
    }

    pub(super) fn flush(&self) -> BoxFuture<'_, Result<()>> {
        self.0.processor.force_flush()
    }

    /// Fails unless a worker is initialized.
    pub(super) fn check_worker(&self) -> Result<()> {
        let state = lock(&self.0.state);
        let tracer = || self.name().to_owned();
        match (state.workers.is_empty(), state.had_workers) {
            (false, _) => Ok(()),
            (true, false) => Err(TracerError::NotInitialized { tracer: tracer() }),
            (true, true) => Err(TracerError::TornDown { tracer: tracer() }),
        }
    }

    /// The current context, if it belongs to this tracer.
    pub(super) fn current(&self) -> Result<Context> {
        self.check_worker()?;
        let context = Context::current()?;
        if Arc::ptr_eq(&context.trace.tracer, &self.0.name) {
            Ok(context)
        } else {
            let (tracer, active) = (self.name().to_owned(), context.trace.tracer.to_string());
            Err(TracerError::OtherTracer { tracer, active })
        }
    }

    pub(super) fn start(&self, options: TraceOptions) -> Result<OpenTrace> {
        self.check_worker()?;
        // A task that outlives its trace may start another.
        if let Some(outer) = Context::try_current().filter(|outer| !outer.trace.has_ended()) {
            return Err(TracerError::Nested { outer: outer.trace.name.clone(), inner: options.name });
        }
        let (rollout_id, attempt_id) = options.ids()?;
        let attempt_root = SpanId::of_attempt_root(&rollout_id, &attempt_id);
        let is_first = lock(&self.0.state).rooted.put((rollout_id.clone(), attempt_id.clone()), ()).is_none();
        let (root_id, parent_id) = match options.parent {
            Some(parent) => (random_id(), Some(parent.span_id)),
            None if is_first => (attempt_root, None),
            None => (random_id(), Some(attempt_root)),
        };
        let identity = TraceIdentity { rollout_id, attempt_id, parent: options.parent, root_id };
        let TraceOptions { name, baggage, attributes, .. } = options;
        let processor = Arc::clone(&self.0.processor);
        let trace = ActiveTrace::new(name.clone(), Arc::clone(&self.0.name), identity, processor);
        let new = NewSpan::new(name).attributes(attributes);
        let context = Context::new(Arc::new(trace), root_id, baggage);
        let root = Operation::open(&context, new, root_id, parent_id)?;
        Ok(OpenTrace { core: self.clone(), root })
    }

    /// An attempt for spans that were made elsewhere. Its `root_id` is their parent: the one of the options, or the attempt's
    /// root.
    pub(super) fn attempt_trace(&self, options: TraceOptions) -> Result<ActiveTrace> {
        let (rollout_id, attempt_id) = options.ids()?;
        let attempt_root = SpanId::of_attempt_root(&rollout_id, &attempt_id);
        let root_id = options.parent.map_or(attempt_root, |parent| parent.span_id);
        let identity = TraceIdentity { rollout_id, attempt_id, parent: options.parent, root_id };
        Ok(ActiveTrace::new(options.name, Arc::clone(&self.0.name), identity, Arc::clone(&self.0.processor)))
    }

    /// Gives the processor a span that was made elsewhere.
    pub(super) fn record(&self, span: Arc<Span>) {
        self.0.processor.on_end(span);
    }

    pub(super) fn last_trace(&self) -> Result<Arc<Trace>> {
        let last = lock(&self.0.state).last_trace.clone();
        last.ok_or_else(|| TracerError::NoTrace { tracer: self.name().to_owned() })
    }
}

impl fmt::Debug for TracerCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TracerCore").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// A trace that ends when this is dropped.
pub(super) struct OpenTrace {
    core: TracerCore,
    pub(super) root: Operation,
}

impl OpenTrace {
    /// Ends the trace. Returns the same trace if it has ended already.
    pub(super) fn finish(&self) -> Option<Arc<Trace>> {
        let trace = Arc::new(self.root.finish_trace()?);
        lock(&self.core.0.state).last_trace = Some(Arc::clone(&trace));
        Some(trace)
    }
}

impl Drop for OpenTrace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.root.record_status(StatusCode::Error, Some("panicked"));
        }
        self.finish();
    }
}

const MAX_WORKERS: usize = 4096;
const MAX_ROOTED_ATTEMPTS: usize = 4096;
