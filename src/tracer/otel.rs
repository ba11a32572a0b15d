//! The bridge from the OpenTelemetry SDK: spans of instrumented libraries join the active trace.

use super::active_trace::lock;
use super::context::Context;
use super::otel_span::converted;
use crate::trace::SpanId;
use crate::util::lru::{LruCache, lru};
use opentelemetry::trace::SpanId as OtelSpanId;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span as SdkSpan, SpanData};
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

/// A span processor of the OpenTelemetry SDK (0.33). Spans that start within a trace context, of any
/// [`Tracer`](super::Tracer), are recorded in that trace with their own ids: below the spans of the SDK that they are below
/// there, else below the place where they started. Spans outside of a trace context are left to the other processors.
///
/// What `tracewire::tracer` records within a span of the SDK is beside it, not below it: the SDK has no hook for its current span.
///
/// ```
/// use opentelemetry::trace::{Tracer as _, TracerProvider as _};
/// use opentelemetry_sdk::trace::SdkTracerProvider;
/// use tracewire::tracer::{DummyTracer, OtelSpanProcessor, Tracer, TracerError};
///
/// let provider = SdkTracerProvider::builder().with_span_processor(OtelSpanProcessor::new()).build();
/// let library = provider.tracer("a library");
///
/// let tracer = DummyTracer::new();
/// tracer.init_worker(0)?;
/// let guard = tracer.trace_guard("task")?;
/// library.in_span("query", |_| library.in_span("connect", |_| ()));
/// let trace = guard.end();
/// let names: Vec<_> = trace.tree().into_iter().map(|(depth, span)| (depth, span.name.as_str())).collect();
/// assert_eq!(names, [(0, "task"), (1, "query"), (2, "connect")]);
/// # Ok::<(), TracerError>(())
/// ```
pub struct OtelSpanProcessor {
    /// The spans that started within a trace. Locked for moments only. Of more than [`MAX_STARTED`], the oldest are
    /// not recorded.
    started: Mutex<LruCache<OtelSpanId, Started>>,
}

/// A span that started within a trace.
struct Started {
    /// Where it started. `None` once it has ended.
    context: Option<Context>,
    parent: SpanId,
}

impl OtelSpanProcessor {
    /// A processor that has seen no spans.
    pub fn new() -> Self {
        Self { started: Mutex::new(lru(MAX_STARTED)) }
    }
}

impl Default for OtelSpanProcessor {
    fn default() -> Self {
        Self::new()
    }
}

impl opentelemetry_sdk::trace::SpanProcessor for OtelSpanProcessor {
    fn on_start(&self, span: &mut SdkSpan, sdk_context: &opentelemetry::Context) {
        use opentelemetry::trace::{Span as _, TraceContextExt as _};
        let Some(context) = Context::try_current() else { return };
        let sdk_parent = sdk_context.span().span_context().span_id();
        let mut started = lock(&self.started);
        // The SDK may know a parent that is not recorded here: one that started outside of the trace.
        let parent = match started.contains(&sdk_parent) {
            true => SpanId(sdk_parent.to_bytes()),
            false => context.span_id,
        };
        started.put(span.span_context().span_id(), Started { context: Some(context), parent });
    }

    fn on_end(&self, span: SpanData) {
        let started = match lock(&self.started).get_mut(&span.span_context.span_id()) {
            Some(Started { context, parent }) => context.take().map(|context| (context, *parent)),
            None => None,
        };
        let Some((context, parent)) = started else { return };
        let converted = converted(span, parent, &context.trace, context.baggage());
        // It may have outlived the trace.
        if let Err(error) = context.trace.record(converted) {
            tracing::debug!(%error, "a span of the OpenTelemetry SDK was not recorded");
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl fmt::Debug for OtelSpanProcessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtelSpanProcessor").field("started", &lock(&self.started).len()).finish()
    }
}

const MAX_STARTED: usize = 65_536;
