//! The current context: which trace and which span of it the code belongs to that runs now.
//!
//! It is a value of the thread, which a future sets each time it is polled ([`FutureExt`]). So it follows the code, not the
//! thread: two tasks on one thread have contexts of their own.

use super::active_trace::ActiveTrace;
use super::baggage::{ATTEMPT_ID, Baggage, ROLLOUT_ID};
use super::error::{Result, TracerError};
use crate::trace::{AttemptId, RolloutId, SpanId};
use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

/// A place in a trace, with the baggage that spans below it inherit. Cloning it is cheap.
#[derive(Clone)]
pub struct Context {
    pub(super) trace: Arc<ActiveTrace>,
    pub(super) span_id: SpanId,
    baggage: Baggage,
}

thread_local! {
    static CURRENT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

impl Context {
    pub(super) fn new(trace: Arc<ActiveTrace>, span_id: SpanId, baggage: Baggage) -> Self {
        Self { trace, span_id, baggage }
    }

    /// The context of the code that runs now.
    pub fn current() -> Result<Self> {
        Self::try_current().ok_or(TracerError::NoActiveTrace)
    }

    pub(super) fn try_current() -> Option<Self> {
        CURRENT.with(|current| current.borrow().clone())
    }

    /// The context below another span of the same trace.
    pub(super) fn below(&self, span_id: SpanId) -> Self {
        Self { span_id, ..self.clone() }
    }

    /// Makes this the current context of the thread until the guard is dropped. For threads; futures use
    /// [`FutureExt::with_context`].
    ///
    /// ```
    /// use tracewire::tracer::{Context, DummyTracer, Tracer, TracerError, create_span};
    ///
    /// let tracer = DummyTracer::new();
    /// tracer.init_worker(0)?;
    /// let guard = tracer.trace_guard("solve")?;
    /// let context = Context::current()?;
    /// std::thread::spawn(move || {
    ///     let _guard = context.attach();
    ///     create_span("found")
    /// })
    /// .join()
    /// .unwrap()?;
    /// assert_eq!(guard.end().spans().len(), 2);
    /// # Ok::<(), TracerError>(())
    /// ```
    pub fn attach(&self) -> ContextGuard {
        let previous = CURRENT.with(|current| current.borrow_mut().replace(self.clone()));
        ContextGuard { previous, thread: PhantomData }
    }

    /// The same place with one more entry of baggage.
    pub fn with_baggage(&self, key: &str, value: &str) -> Result<Self> {
        Ok(Self { baggage: self.baggage.with(key, value)?, ..self.clone() })
    }

    /// The entries that spans below this context inherit.
    pub fn baggage(&self) -> &Baggage {
        &self.baggage
    }

    /// The rollout of the trace.
    pub fn rollout_id(&self) -> &RolloutId {
        &self.trace.rollout_id
    }

    /// The attempt of the trace.
    pub fn attempt_id(&self) -> &AttemptId {
        &self.trace.attempt_id
    }

    /// The header fields for another service, or the fields of a message: `traceparent`, and `baggage` with rollout and
    /// attempt. The service continues the trace with [`TraceOptions::remote_parent`](super::TraceOptions::remote_parent).
    pub fn headers(&self) -> [(&'static str, String); 2] {
        let ids = [(ROLLOUT_ID, self.trace.rollout_id.as_str()), (ATTEMPT_ID, self.trace.attempt_id.as_str())];
        // Ids that leave no room are left out: the trace is joined by `traceparent` then.
        let baggage = ids.into_iter().fold(self.baggage.clone(), |baggage, (key, id)| {
            let with_id = baggage.with(key, id);
            with_id.unwrap_or(baggage)
        });
        [("traceparent", self.trace.traceparent(self.span_id).to_string()), ("baggage", baggage.to_string())]
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("trace", &self.trace.name)
            .field("span_id", &self.span_id)
            .field("baggage", &self.baggage)
            .finish()
    }
}

/// Restores the previous context of the thread when it is dropped.
#[must_use = "the context is current until the guard is dropped"]
pub struct ContextGuard {
    previous: Option<Context>,
    // Another thread has another context.
    thread: PhantomData<Rc<()>>,
}

impl Drop for ContextGuard {
    fn drop(&mut self) {
        let previous = self.previous.take();
        // The thread's values may be gone at its end.
        let _ = CURRENT.try_with(|current| *current.borrow_mut() = previous);
    }
}

/// Gives futures a context.
pub trait FutureExt: Future + Sized {
    /// A future that runs in `context`.
    fn with_context(self, context: Context) -> impl Future<Output = Self::Output> {
        in_context(Box::pin(self), Some(context))
    }

    /// A future that runs in the current context, for `tokio::spawn`. Without one, it runs as it is.
    ///
    /// ```
    /// use tracewire::tracer::{DummyTracer, FutureExt, Tracer, TracerError, create_span};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), TracerError> {
    /// let tracer = DummyTracer::new();
    /// tracer.init_worker(0)?;
    /// tracer
    ///     .trace_context("solve", async {
    ///         let spawned = tokio::spawn(async { create_span("in a task") }.with_current_context());
    ///         spawned.await.expect("the task does not panic")
    ///     })
    ///     .await?;
    /// assert!(tracer.last_trace()?.find("in a task").is_some());
    /// # Ok(())
    /// # }
    /// ```
    fn with_current_context(self) -> impl Future<Output = Self::Output> {
        in_context(Box::pin(self), Context::try_current())
    }
}

impl<F: Future> FutureExt for F {}

/// Sets the context each time the future is polled. The future is boxed: nested traces and operations would otherwise double
/// the size of their futures at each level.
pub(super) fn in_context<F: Future>(
    future: Pin<Box<F>>,
    context: Option<Context>,
) -> impl Future<Output = F::Output> + use<F> {
    let mut future = future;
    poll_fn(move |task| {
        let _guard = context.as_ref().map(Context::attach);
        future.as_mut().poll(task)
    })
}
