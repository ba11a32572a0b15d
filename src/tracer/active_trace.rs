//! A trace that is being recorded: its ids, the spans that have ended, and the operations that have not.

use super::baggage::Baggage;
use super::error::{Result, TracerError};
use super::finished::Trace;
use super::new_span::NewSpan;
use super::processor::SpanProcessor;
use crate::trace::semconv as names;
use crate::trace::span::Resource;
use crate::trace::{AttemptId, RolloutId, Span, SpanId, Timestamp, TraceId};
use crate::wire::traceparent::TraceParent;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

/// A trace between its start and its end. Shared by the contexts and operations that belong to it.
pub(super) struct ActiveTrace {
    pub(super) name: String,
    pub(super) tracer: Arc<str>,
    pub(super) rollout_id: RolloutId,
    pub(super) attempt_id: AttemptId,
    pub(super) root_id: SpanId,
    trace_id: TraceId,
    trace_id_text: String,
    resource: Resource,
    processor: Arc<dyn SpanProcessor>,
    // Locked for moments only.
    recorded: Mutex<Recorded>,
}

/// An operation that has not ended: the handle and the trace share it. `None` once it has ended.
pub(super) type OpenSpan = Arc<Mutex<Option<Unended>>>;

/// The span of an operation so far.
pub(super) struct Unended {
    pub(super) span: Span,
    /// `None` if the caller named the start: the end is then the wall clock's time.
    started: Option<Instant>,
}

#[derive(Default)]
struct Recorded {
    has_ended: bool,
    sequence: u64,
    /// At most [`MAX_KEPT_SPANS`]; the processor gets all.
    spans: Vec<Arc<Span>>,
    unkept: u64,
    /// Operations without an end, by span id. At most [`MAX_OPEN_SPANS`]: the trace does not end those beyond.
    open: HashMap<SpanId, OpenSpan>,
}

/// Where a new trace belongs.
pub(super) struct TraceIdentity {
    pub(super) rollout_id: RolloutId,
    pub(super) attempt_id: AttemptId,
    pub(super) parent: Option<TraceParent>,
    pub(super) root_id: SpanId,
}

impl ActiveTrace {
    pub(super) fn new(
        name: String,
        tracer: Arc<str>,
        identity: TraceIdentity,
        processor: Arc<dyn SpanProcessor>,
    ) -> Self {
        let TraceIdentity { rollout_id, attempt_id, parent, root_id } = identity;
        let trace_id = parent.map_or_else(|| TraceId::of_attempt(&rollout_id, &attempt_id), |parent| parent.trace_id);
        let mut resource = Resource { schema_url: names::SCHEMA_URL.to_owned(), ..Resource::default() };
        resource.attributes.insert(names::TRACER_NAME.to_owned(), tracer.as_ref().into());
        Self {
            name,
            tracer,
            rollout_id,
            attempt_id,
            root_id,
            trace_id,
            trace_id_text: trace_id.to_string(),
            resource,
            processor,
            recorded: Mutex::default(),
        }
    }

    /// The value of a `traceparent` header that names a span of this trace.
    pub(super) fn traceparent(&self, span_id: SpanId) -> TraceParent {
        TraceParent { trace_id: self.trace_id, span_id, flags: 1 }
    }

    /// A span of this trace, without an end.
    pub(super) fn span(&self, new: NewSpan, id: SpanId, parent: Option<SpanId>, baggage: &Baggage) -> Span {
        let NewSpan { name, kind, mut attributes, start_time, status } = new;
        if !baggage.is_empty() {
            baggage.add_to(&mut attributes);
        }
        Span {
            rollout_id: self.rollout_id.clone(),
            attempt_id: self.attempt_id.clone(),
            sequence_id: 0,
            trace_id: self.trace_id_text.clone(),
            span_id: id.to_string(),
            parent_id: parent.map(|parent| parent.to_string()),
            name,
            kind: Some(kind),
            status,
            attributes,
            events: Vec::new(),
            links: Vec::new(),
            start_time: Some(start_time.unwrap_or_else(now)),
            end_time: None,
            // The ids say the same, and texts cost the traced code time.
            context: None,
            parent: None,
            resource: self.resource.clone(),
        }
    }

    /// Opens an operation, or the root. Fails if the trace has ended.
    pub(super) fn open(&self, new: NewSpan, id: SpanId, parent: Option<SpanId>, baggage: &Baggage) -> Result<OpenSpan> {
        let started = new.start_time.is_none().then(Instant::now);
        let span = self.span(new, id, parent, baggage);
        let open = Arc::new(Mutex::new(Some(Unended { span, started })));
        let mut recorded = self.recorded();
        if recorded.has_ended {
            return Err(self.ended());
        }
        // The root ends with the trace, so it is never left open.
        if id != self.root_id && recorded.open.len() < MAX_OPEN_SPANS {
            recorded.open.insert(id, Arc::clone(&open));
        }
        Ok(open)
    }

    /// Ends an operation; `end` is now if it is `None`. An operation that has ended already stays as it is.
    pub(super) fn end(&self, id: SpanId, open: &OpenSpan, end: Option<Timestamp>) -> Option<Arc<Span>> {
        let span = lock(open).take().map(|unended| unended.end(end))?;
        self.recorded().open.remove(&id);
        Some(self.deliver(span))
    }

    /// Records a span that has ended. Fails if the trace has ended.
    pub(super) fn record(&self, span: Span) -> Result<Arc<Span>> {
        let span = {
            let mut recorded = self.recorded();
            if recorded.has_ended {
                return Err(self.ended());
            }
            recorded.add(span)
        };
        self.processor.on_end(Arc::clone(&span));
        Ok(span)
    }

    /// True after [`Self::finish`].
    pub(super) fn has_ended(&self) -> bool {
        self.recorded().has_ended
    }

    /// Takes a span that the proxy recorded in the attempt of this trace. Calls without a `traceparent` are below the root.
    pub(super) fn adopt(&self, mut span: Span) {
        let attempt_root = SpanId::of_attempt_root(&self.rollout_id, &self.attempt_id).to_string();
        if span.parent_id.as_deref().is_none_or(|parent| parent == attempt_root) {
            span.parent_id = Some(self.root_id.to_string());
        }
        let attempt_trace = TraceId::of_attempt(&self.rollout_id, &self.attempt_id).to_string();
        if span.trace_id == attempt_trace {
            span.trace_id.clone_from(&self.trace_id_text);
            for context in span.context.iter_mut().chain(span.parent.iter_mut()) {
                context.trace_id.clone_from(&self.trace_id_text);
            }
            if let (Some(parent), Some(id)) = (&mut span.parent, &span.parent_id) {
                parent.span_id.clone_from(id);
            }
        }
        self.deliver(span);
    }

    /// Ends the trace: operations that are still open, then the root. `None` if it has ended already.
    pub(super) fn finish(&self, root: &OpenSpan) -> Option<Trace> {
        let open = {
            let mut recorded = self.recorded();
            if std::mem::replace(&mut recorded.has_ended, true) {
                return None;
            }
            std::mem::take(&mut recorded.open)
        };
        let mut unended: Vec<_> = open.into_values().filter_map(|open| lock(&open).take()).collect();
        unended.sort_by_key(|unended| unended.span.start_time);
        for unended in unended {
            let mut span = unended.end(None);
            span.set(names::SPAN_UNENDED, true);
            self.deliver(span);
        }
        if let Some(root) = lock(root).take() {
            self.deliver(root.end(None));
        }
        let (spans, unkept) = {
            let mut recorded = self.recorded();
            (std::mem::take(&mut recorded.spans), recorded.unkept)
        };
        let spans = spans.into_iter().map(Arc::unwrap_or_clone).collect();
        Some(Trace::new(self.name.clone(), self.rollout_id.clone(), self.attempt_id.clone(), spans, unkept))
    }

    fn deliver(&self, span: Span) -> Arc<Span> {
        let span = self.recorded().add(span);
        self.processor.on_end(Arc::clone(&span));
        span
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        lock(&self.recorded)
    }

    fn ended(&self) -> TracerError {
        TracerError::TraceEnded { trace: self.name.clone() }
    }
}

impl Recorded {
    fn add(&mut self, mut span: Span) -> Arc<Span> {
        self.sequence += 1;
        span.sequence_id = self.sequence;
        let span = Arc::new(span);
        if self.spans.len() < MAX_KEPT_SPANS {
            self.spans.push(Arc::clone(&span));
        } else {
            self.unkept += 1;
        }
        span
    }
}

impl Unended {
    fn end(self, end: Option<Timestamp>) -> Span {
        let Self { mut span, started } = self;
        // By the monotonic clock if it saw the start: the wall clock may be set meanwhile.
        span.end_time = end.or_else(|| match (started, span.start_time) {
            (Some(started), Some(start)) => Some(start.after(started.elapsed())),
            (_, start) => Some(now()).max(start),
        });
        span
    }
}

/// A lock that a panic of its holder does not close.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The id of a new span.
pub(super) fn random_id() -> SpanId {
    SpanId::from_random(fastrand::u64(..))
}

/// The wall clock.
pub(super) fn now() -> Timestamp {
    SystemTime::now().into()
}

const MAX_KEPT_SPANS: usize = 65_536;
const MAX_OPEN_SPANS: usize = 65_536;
