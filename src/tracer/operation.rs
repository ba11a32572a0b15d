//! An operation that is being recorded.

use super::active_trace::{OpenSpan, Unended, lock, now, random_id};
use super::context::{Context, ContextGuard, in_context};
use super::error::Result;
use super::exception::{Exception, exception_attributes};
use super::finished::Trace;
use super::flattened::{Nulls, flattened_below};
use super::new_span::NewSpan;
use crate::trace::semconv as names;
use crate::trace::span::Event;
use crate::trace::{Attributes, Span, SpanId, Status, StatusCode, Timestamp, Value};
use serde::Serialize;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

/// A span between its start and its end. It ends with [`Self::end`], or when it is dropped; if a panic drops it, it has failed.
///
/// An operation is not current by itself: spans are below it within [`Self::run`], or while [`Self::attach`]'s guard lives.
/// After its end, or after the end of its trace, what is recorded is ignored.
///
/// ```
/// use tracewire::tracer::{self, DummyTracer, Tracer, TracerError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), TracerError> {
/// let tracer = DummyTracer::new();
/// tracer.init_worker(0)?;
/// tracer
///     .trace_context("solve", async {
///         let search = tracer::operation("search")?;
///         search.record_attributes([("query", "rust")]);
///         search.run(async { tracer::create_span("cache miss") }).await
///     })
///     .await?;
/// let trace = tracer.last_trace()?;
/// let names: Vec<_> = trace.tree().into_iter().map(|(depth, span)| (depth, span.name.as_str())).collect();
/// assert_eq!(names, [(0, "solve"), (1, "search"), (2, "cache miss")]);
/// # Ok(())
/// # }
/// ```
#[must_use = "an operation ends when it is dropped"]
pub struct Operation {
    context: Context,
    open: OpenSpan,
    /// The attributes for input and output as JSON. `None`: they are flattened, as Agent Lightning's operations do it.
    content_names: Option<(&'static str, &'static str)>,
}

impl Operation {
    /// Starts an operation below the place where the code runs.
    pub(super) fn start(parent: &Context, new: NewSpan) -> Result<Self> {
        let id = random_id();
        Self::open(&parent.below(id), new, id, Some(parent.span_id))
    }

    pub(super) fn open(context: &Context, new: NewSpan, id: SpanId, parent: Option<SpanId>) -> Result<Self> {
        let open = context.trace.open(new, id, parent, context.baggage())?;
        Ok(Self { context: context.clone(), open, content_names: None })
    }

    /// Names the attributes for input and output.
    pub(super) fn with_content(self, input_name: &'static str, output_name: &'static str) -> Self {
        let mut operation = self;
        operation.content_names = Some((input_name, output_name));
        operation
    }

    /// Runs a future below this operation, then ends it. An error is recorded as an exception and returned.
    pub fn run<T, E: fmt::Display>(
        &self,
        future: impl Future<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<T, E>> {
        let future = in_context(Box::pin(future), Some(self.context.clone()));
        async move {
            let result = future.await;
            self.conclude(&result);
            result
        }
    }

    /// Runs a function below this operation, then ends it. An error is recorded as an exception and returned.
    pub fn run_sync<T, E: fmt::Display>(&self, function: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let result = {
            let _guard = self.attach();
            function()
        };
        self.conclude(&result);
        result
    }

    fn conclude<T, E: fmt::Display>(&self, result: &Result<T, E>) {
        if let Err(error) = result {
            self.record_exception(error);
        }
        self.finish(None);
    }

    /// Makes this operation the parent of spans that this thread creates, until the guard is dropped.
    pub fn attach(&self) -> ContextGuard {
        self.context.attach()
    }

    /// The context below this operation, for futures and other services.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Records an error: status `Error` with its text, `error.type`, and an event `exception`. With `RUST_BACKTRACE`, the event
    /// has the place where this was called.
    pub fn record_exception<E: fmt::Display + ?Sized>(&self, error: &E) {
        self.record_as_exception(&Exception::of(error));
    }

    pub(super) fn record_as_exception(&self, exception: &Exception) {
        self.change(|span| {
            span.set(names::ERROR_TYPE, exception.type_name.as_str());
            span.status = Status { status_code: StatusCode::Error, description: Some(exception.message.clone()) };
            span.events.push(event("exception", exception_attributes(exception)));
        });
    }

    /// Adds attributes, or replaces their values.
    pub fn record_attributes<N: Into<String>, V: Into<Value>>(&self, attributes: impl IntoIterator<Item = (N, V)>) {
        // Made before the lock is taken: the caller's iterator may record too.
        let attributes: Vec<_> = attributes.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self.change(|span| span.attributes.extend(attributes));
    }

    /// Adds one attribute, or replaces its value.
    pub fn record(&self, name: impl Into<String>, value: impl Into<Value>) {
        self.record_attributes([(name, value)]);
    }

    /// Sets the status.
    pub fn record_status(&self, status_code: StatusCode, description: Option<&str>) {
        let description = description.map(str::to_owned);
        self.change(|span| span.status = Status { status_code, description });
    }

    /// Adds an event. At most 1,000 of a span are kept.
    pub fn add_event(&self, name: impl Into<String>, attributes: Attributes) {
        self.change(|span| span.events.push(event(name, attributes)));
    }

    /// Records what goes into the operation, and its size in bytes as JSON (`tracewire.input.size`). The steps of
    /// [`agent`](super::agent) have the attributes of the conventions, with JSON: `gen_ai.input.messages` of an LLM call, for
    /// example. Other operations have `agentlightning.operation.input`, flattened as [`emit::annotation`](super::emit::annotation)
    /// does it.
    pub fn record_input(&self, input: &impl Serialize) -> Result<()> {
        self.record_content(self.content_names.map(|names| names.0), names::OPERATION_INPUT, names::INPUT_SIZE, input)
    }

    /// Records what comes out of the operation, as [`Self::record_input`].
    pub fn record_output(&self, output: &impl Serialize) -> Result<()> {
        self.record_content(
            self.content_names.map(|names| names.1),
            names::OPERATION_OUTPUT,
            names::OUTPUT_SIZE,
            output,
        )
    }

    fn record_content(
        &self,
        json_name: Option<&str>,
        prefix: &str,
        size_name: &str,
        content: &impl Serialize,
    ) -> Result<()> {
        let content = serde_json::to_value(content)?;
        let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        let size = text.len() as u64;
        let attributes = match json_name {
            Some(name) => Attributes::from([(name.to_owned(), text.into())]),
            None => flattened_below(prefix, &content, Nulls::Text)?,
        };
        self.change(|span| {
            span.set(size_name, size);
            span.attributes.extend(attributes);
        });
        Ok(())
    }

    /// Ends the operation now and returns its span. `None` if it has ended already, with its trace.
    pub fn end(self) -> Option<Arc<Span>> {
        self.finish(None)
    }

    /// As [`Self::end`], at another time.
    pub fn end_at(self, end: Timestamp) -> Option<Arc<Span>> {
        self.finish(Some(end))
    }

    fn finish(&self, end: Option<Timestamp>) -> Option<Arc<Span>> {
        self.context.trace.end(self.context.span_id, &self.open, end)
    }

    /// Ends the trace of which this is the root.
    pub(super) fn finish_trace(&self) -> Option<Trace> {
        self.context.trace.finish(&self.open)
    }

    fn change(&self, change: impl FnOnce(&mut Span)) {
        if let Some(Unended { span, .. }) = &mut *lock(&self.open) {
            change(span);
            span.events.truncate(MAX_EVENTS);
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.record_status(StatusCode::Error, Some("panicked"));
        }
        // The root of a trace ends with the trace.
        if self.context.span_id != self.context.trace.root_id {
            self.finish(None);
        }
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("context", &self.context).finish_non_exhaustive()
    }
}

fn event(name: impl Into<String>, attributes: Attributes) -> Event {
    Event { name: name.into(), attributes, timestamp: Some(now()) }
}

const MAX_EVENTS: usize = 1000;
