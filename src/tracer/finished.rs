//! A trace that has ended: what its spans are, as a tree, as text and in the formats of other programs.

use super::error::{Result, TracerError};
use crate::export::spans::{ALL, RecordedRollout, SpanFile, SpanTree};
use crate::export::timeline::{TimelineOptions, render};
use crate::store::{Store, StoreExt};
use crate::trace::{Attempt, AttemptId, AttemptedRollout, Rollout, RolloutId, Span, Timestamp};

/// The spans of one trace context, or those of an attempt in a store.
///
/// ```
/// use tracewire::tracer::{self, DummyTracer, Tracer, TracerError};
///
/// let tracer = DummyTracer::new();
/// tracer.init_worker(0)?;
/// let guard = tracer.trace_guard("solve")?;
/// tracer::operation("search")?.end();
/// drop(guard);
///
/// let trace = tracer.last_trace()?;
/// assert_eq!(trace.root().map(|span| span.name.as_str()), Some("solve"));
/// println!("{}", trace.timeline());
/// let jaeger: Vec<u8> = trace.to_jaeger()?;
/// # assert!(!jaeger.is_empty());
/// # Ok::<(), TracerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    name: String,
    rollout_id: RolloutId,
    attempt_id: AttemptId,
    spans: Vec<Span>,
    unkept: u64,
}

impl Trace {
    pub(super) fn new(
        name: String,
        rollout_id: RolloutId,
        attempt_id: AttemptId,
        spans: Vec<Span>,
        unkept: u64,
    ) -> Self {
        Self { name, rollout_id, attempt_id, spans, unkept }
    }

    /// Reads an attempt from a store, with what the proxy and other tracers recorded of it.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tracewire::store::{Retention, memory::MemoryStore};
    /// use tracewire::tracer::{StoreTracer, Trace, TraceOptions, Tracer, TracerError, traced};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), TracerError> {
    /// let store = Arc::new(MemoryStore::new(Retention::default()));
    /// let tracer = StoreTracer::new(store.clone())?;
    /// tracer.init_worker(0)?;
    /// let options = TraceOptions::new("solve").rollout("ro-1").attempt("at-1");
    /// tracer.trace_context(options, traced("search", async { Ok::<_, TracerError>(42) })).await?;
    /// tracer.teardown_worker(0).await?;
    ///
    /// let trace = Trace::read(&*store, "ro-1", "at-1").await?;
    /// assert_eq!(trace.spans().len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read(
        store: &(impl Store + ?Sized),
        rollout: impl Into<RolloutId>,
        attempt: impl Into<AttemptId>,
    ) -> Result<Self> {
        let (rollout, attempt) = (rollout.into(), attempt.into());
        let spans = store.spans(rollout.clone(), Some(attempt.clone())).await?;
        if spans.is_empty() {
            return Err(TracerError::NothingStored { rollout: rollout.to_string(), attempt: attempt.to_string() });
        }
        let root = spans.iter().find(|span| span.parent_id.is_none());
        let name = root.map_or_else(|| rollout.to_string(), |root| root.name.clone());
        Ok(Self::new(name, rollout, attempt, spans, 0))
    }

    /// The name that the trace was started with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rollout of the spans.
    pub fn rollout_id(&self) -> &RolloutId {
        &self.rollout_id
    }

    /// The attempt of the spans.
    pub fn attempt_id(&self) -> &AttemptId {
        &self.attempt_id
    }

    /// The spans in the order in which they ended; those of a store, in the order of their sequence ids.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Spans that are not here, because the trace has more than 65,536. The tracer's processor got them.
    pub fn unkept(&self) -> u64 {
        self.unkept
    }

    /// The span that is not below another one of the trace.
    pub fn root(&self) -> Option<&Span> {
        let has = |id: &str| self.spans.iter().any(|span| span.span_id == id);
        self.spans.iter().rev().find(|span| span.parent_id.as_deref().is_none_or(|parent| !has(parent)))
    }

    /// The first span with this name, in the order of [`Self::spans`].
    pub fn find(&self, name: &str) -> Option<&Span> {
        self.spans.iter().find(|span| span.name == name)
    }

    /// All spans with their depth, each above those below it. Siblings are in the order of their start.
    pub fn tree(&self) -> Vec<(usize, &Span)> {
        let order = self.order();
        SpanTree::of(&self.by_start()).walk().into_iter().map(|(at, depth)| (depth, &self.spans[order[at]])).collect()
    }

    /// The timeline as `tracewire trace show` prints it, in 80 columns.
    pub fn timeline(&self) -> String {
        render(&self.name, &self.by_start(), &TimelineOptions::default())
    }

    /// The spans as Agent Lightning's JSON: the lines of `tracewire export --format json`.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        self.to_format("json")
    }

    /// A file for Jaeger's web page.
    pub fn to_jaeger(&self) -> Result<Vec<u8>> {
        self.to_format("jaeger")
    }

    /// OTLP as protobuf: the body of a request to `/v1/traces`.
    pub fn to_otlp(&self) -> Result<Vec<u8>> {
        self.to_format("otlp")
    }

    /// Any format of `tracewire export --format`, by its name there.
    pub fn to_format(&self, name: &str) -> Result<Vec<u8>> {
        let Some(format) = ALL.iter().find(|format| format.name() == name) else {
            let known = ALL.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ");
            return Err(TracerError::UnknownFormat { name: name.chars().take(100).collect(), known });
        };
        let start = self.spans.iter().filter_map(|span| span.start_time).min().unwrap_or_default();
        let end: Option<Timestamp> = self.spans.iter().filter_map(|span| span.end_time).max();
        let rollout = Rollout { end_time: end, ..Rollout::running(self.rollout_id.clone(), start) };
        let attempt = Attempt::running(self.rollout_id.clone(), self.attempt_id.clone(), start);
        let rollout = AttemptedRollout { rollout, attempt: Some(attempt) };
        let mut file = SpanFile::of(*format);
        let encoded = format.encoded(&RecordedRollout { rollout, spans: self.by_start() })?;
        let mut bytes = file.framed(encoded)?;
        bytes.extend(file.end()?);
        Ok(bytes)
    }

    fn by_start(&self) -> Vec<Span> {
        self.order().into_iter().map(|at| self.spans[at].clone()).collect()
    }

    /// The places of the spans, by start; of two with the same start, the one that ended last is first, because it may be the
    /// parent.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.spans.len()).rev().collect();
        order.sort_by_key(|at| self.spans[*at].start_time);
        order
    }
}
