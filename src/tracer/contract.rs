//! The trait of all tracers.

use super::active_trace::random_id;
use super::context::{Context, ContextGuard, in_context};
use super::core::{OpenTrace, TracerCore};
use super::error::{Result, TracerError};
use super::finished::Trace;
use super::new_span::NewSpan;
use super::operation::Operation;
use super::options::TraceOptions;
use crate::store::BoxFuture;
use crate::trace::Span;
use std::fmt::Display;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

/// Records what an agent does as spans. The contract is that of Agent Lightning's `Tracer`.
///
/// A worker initializes the tracer, opens a trace context for each rollout, and tears the tracer down. Within the context, any
/// code can create spans and operations, without a reference to the tracer ([`operation`](fn@super::operation),
/// [`create_span`](super::create_span)). One tracer serves many workers: each task and each thread has a context of its own.
///
/// A new tracer implements [`Self::core`] only:
///
/// ```
/// use std::sync::Arc;
/// use tracewire::trace::Span;
/// use tracewire::tracer::{self, SpanProcessor, Tracer, TracerCore, TracerError};
///
/// struct Print;
///
/// impl SpanProcessor for Print {
///     fn on_end(&self, span: Arc<Span>) {
///         println!("{} {}", span.name, span.span_id);
///     }
/// }
///
/// struct PrintTracer(TracerCore);
///
/// impl Tracer for PrintTracer {
///     fn core(&self) -> &TracerCore {
///         &self.0
///     }
/// }
///
/// let tracer = PrintTracer(TracerCore::new("print", Print));
/// tracer.init_worker(0)?;
/// let _trace = tracer.trace_guard("solve")?;
/// tracer::create_span("found")?;
/// # Ok::<(), TracerError>(())
/// ```
pub trait Tracer: Send + Sync {
    /// The part that all tracers share.
    fn core(&self) -> &TracerCore;

    /// Prepares the tracer for a worker. The id is the worker's until [`Self::teardown_worker`].
    fn init_worker(&self, worker: u32) -> Result<()> {
        self.core().init_worker(worker)
    }

    /// Waits until all spans have arrived where they belong, and forgets the worker. The worker is forgotten on an error too.
    fn teardown_worker(&self, worker: u32) -> BoxFuture<'_, Result<()>> {
        self.core().remove_worker(worker);
        self.flush()
    }

    /// Waits until all spans so far have arrived where they belong.
    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        self.core().flush()
    }

    /// Runs a future as a trace: spans that it creates are below the trace's root span. An error of the future is recorded on
    /// the root and returned. A future that is dropped before its end ends the trace.
    ///
    /// Before it returns, spans are flushed. A store that can't be reached is logged, not returned: [`Self::flush`] and
    /// [`Self::teardown_worker`] return it.
    fn trace_context<T, E: Display + From<TracerError>>(
        &self,
        options: impl Into<TraceOptions>,
        future: impl Future<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<T, E>>
    where
        Self: Sized,
    {
        let (options, future) = (options.into(), Box::pin(future));
        async move {
            let trace = self.core().start(options)?;
            let result = in_context(future, Some(trace.root.context().clone())).await;
            if let Err(error) = &result {
                trace.root.record_exception(error);
            }
            drop(trace);
            if let Err(error) = self.flush().await {
                tracing::warn!(%error, tracer = self.core().name(), "spans of a trace have not arrived yet");
            }
            result
        }
    }

    /// Starts a trace on this thread that ends when the guard is dropped. Nothing is flushed then. In async code use
    /// [`Self::trace_context`]: a guard that is held over an `await` is the context of all tasks of the thread.
    ///
    /// ```
    /// use tracewire::tracer::{DummyTracer, Tracer, TracerError, create_span};
    ///
    /// let tracer = DummyTracer::new();
    /// tracer.init_worker(0)?;
    /// let guard = tracer.trace_guard("solve")?;
    /// create_span("found")?;
    /// assert_eq!(guard.end().spans().len(), 2);
    /// # Ok::<(), TracerError>(())
    /// ```
    fn trace_guard(&self, options: impl Into<TraceOptions>) -> Result<TraceGuard>
    where
        Self: Sized,
    {
        let trace = self.core().start(options.into())?;
        let context = trace.root.context().attach();
        Ok(TraceGuard { context: Some(context), trace })
    }

    /// Records a span without a duration below the current place, and returns it. It does not wait for it to arrive.
    fn create_span(&self, span: impl Into<NewSpan>) -> Result<Arc<Span>>
    where
        Self: Sized,
    {
        create_in(&self.core().current()?, span.into())
    }

    /// Starts an operation below the current place.
    fn operation(&self, operation: impl Into<NewSpan>) -> Result<Operation>
    where
        Self: Sized,
    {
        Operation::start(&self.core().current()?, operation.into())
    }

    /// The trace that ended last. With several workers, that of any of them. It is as the code recorded it; credentials are
    /// redacted only in what is stored.
    fn last_trace(&self) -> Result<Arc<Trace>> {
        self.core().last_trace()
    }

    /// Runs a future with the tracer initialized for worker 0, and tears it down: for programs with one worker.
    ///
    /// ```
    /// use tracewire::tracer::{DummyTracer, Tracer, TracerError};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), TracerError> {
    /// let tracer = DummyTracer::new();
    /// tracer.lifespan(tracer.trace_context("solve", async { Ok::<_, TracerError>(42) })).await?;
    /// # Ok(())
    /// # }
    /// ```
    fn lifespan<T, E: From<TracerError>>(
        &self,
        future: impl Future<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<T, E>>
    where
        Self: Sized,
    {
        let future = Box::pin(future);
        async move {
            self.init_worker(0)?;
            let mut abandoned = AbandonedWorker(Some(self.core()));
            let result = future.await;
            abandoned.0 = None;
            let torn_down = self.teardown_worker(0).await;
            let value = result?;
            torn_down?;
            Ok(value)
        }
    }
}

/// Forgets worker 0 if the future of [`Tracer::lifespan`] is dropped before its end. `None` once it has ended.
struct AbandonedWorker<'a>(Option<&'a TracerCore>);

impl Drop for AbandonedWorker<'_> {
    fn drop(&mut self) {
        if let Some(core) = self.0 {
            core.remove_worker(0);
        }
    }
}

impl<T: Tracer + ?Sized> Tracer for Arc<T> {
    fn core(&self) -> &TracerCore {
        self.deref().core()
    }

    fn init_worker(&self, worker: u32) -> Result<()> {
        self.deref().init_worker(worker)
    }

    fn teardown_worker(&self, worker: u32) -> BoxFuture<'_, Result<()>> {
        self.deref().teardown_worker(worker)
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        self.deref().flush()
    }
}

/// The trace of a thread. It ends when this is dropped.
#[must_use = "the trace ends when its guard is dropped"]
pub struct TraceGuard {
    // Dropped first.
    context: Option<ContextGuard>,
    trace: OpenTrace,
}

impl TraceGuard {
    /// The root span of the trace, to record attributes and exceptions on.
    pub fn root(&self) -> &Operation {
        &self.trace.root
    }

    /// Ends the trace and returns it.
    pub fn end(mut self) -> Arc<Trace> {
        drop(self.context.take());
        let root = &self.trace.root;
        let empty = || {
            let context = root.context();
            Arc::new(Trace::new(
                String::new(),
                context.rollout_id().clone(),
                context.attempt_id().clone(),
                Vec::new(),
                0,
            ))
        };
        // Only this guard ends the trace.
        self.trace.finish().unwrap_or_else(empty)
    }
}

/// [`Tracer::create_span`] of the tracer that is active here.
pub fn create_span(span: impl Into<NewSpan>) -> Result<Arc<Span>> {
    create_in(&Context::current()?, span.into())
}

/// [`Tracer::operation`] of the tracer that is active here.
pub fn operation(operation: impl Into<NewSpan>) -> Result<Operation> {
    Operation::start(&Context::current()?, operation.into())
}

/// Runs a future as an operation, and records its error. Without an active trace it runs as it is, so that libraries can use
/// this everywhere.
///
/// ```
/// use tracewire::tracer::traced;
///
/// async fn read(path: &str) -> std::io::Result<String> {
///     traced("read", async { std::fs::read_to_string(path) }).await
/// }
/// # let _ = read("/dev/null");
/// ```
pub fn traced<T, E: Display>(
    name: impl Into<NewSpan>,
    future: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, E>> {
    let (new, future) = (name.into(), Box::pin(future));
    async move {
        match operation(new) {
            Ok(operation) => operation.run(future).await,
            Err(_) => future.await,
        }
    }
}

/// Runs a function as an operation, as [`traced`] does with a future.
///
/// ```
/// use tracewire::tracer::traced_sync;
///
/// let number: Result<u32, _> = traced_sync("parse", || "42".parse());
/// assert_eq!(number, Ok(42));
/// ```
pub fn traced_sync<T, E: Display>(name: impl Into<NewSpan>, function: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    match operation(name) {
        Ok(operation) => operation.run_sync(function),
        Err(_) => function(),
    }
}

/// Records a span that starts and ends at the same time.
pub(super) fn create_in(context: &Context, new: NewSpan) -> Result<Arc<Span>> {
    let mut span = context.trace.span(new, random_id(), Some(context.span_id), context.baggage());
    span.end_time = span.start_time;
    context.trace.record(span)
}
