//! The exporter for the OpenTelemetry SDK: spans of a program that is instrumented with it go where a tracer's spans go.

use super::active_trace::ActiveTrace;
use super::baggage::Baggage;
use super::contract::Tracer;
use super::core::TracerCore;
use super::error::Result;
use super::options::TraceOptions;
use super::otel_span::{attributes, converted};
use crate::trace::{Attributes, SpanId};
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanId as OtelSpanId;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::fmt;
use std::sync::Arc;

/// A span exporter of the OpenTelemetry SDK (0.33): all spans of the SDK go into one attempt, where a
/// [`StoreTracer`](super::StoreTracer) or a tracer of your own puts its spans. For programs that are instrumented already, and
/// trace one task per process; [`OtelSpanProcessor`](super::OtelSpanProcessor) is for those with a trace context for each task.
///
/// Spans keep their ids. Those without a parent are below the attempt's root span.
///
/// ```
/// use std::sync::Arc;
/// use opentelemetry::trace::{Tracer as _, TracerProvider as _};
/// use opentelemetry_sdk::trace::SdkTracerProvider;
/// use tracewire::store::{Retention, StoreExt, memory::MemoryStore};
/// use tracewire::tracer::{OtelSpanExporter, StoreTracer, TraceOptions, TracerError};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), TracerError> {
/// let store = Arc::new(MemoryStore::new(Retention::default()));
/// let tracer = StoreTracer::new(store.clone())?;
/// let exporter = OtelSpanExporter::new(&tracer, TraceOptions::new("my agent").rollout("ro-1").from_environment())?;
/// let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).build();
/// provider.tracer("a library").in_span("query", |_| ());
/// provider.force_flush().unwrap();
/// assert_eq!(store.spans("ro-1".into(), None).await?[0].name, "query");
/// # Ok(())
/// # }
/// ```
pub struct OtelSpanExporter {
    core: TracerCore,
    trace: ActiveTrace,
    baggage: Baggage,
    /// The parent of spans without one.
    parent: SpanId,
    /// The attributes of the SDK's resource.
    resource: Attributes,
}

impl OtelSpanExporter {
    /// An exporter to where `tracer` puts its spans. The tracer needs no worker. Fails if the options name an unusable id.
    pub fn new(tracer: &impl Tracer, options: impl Into<TraceOptions>) -> Result<Self> {
        let core = tracer.core().clone();
        let options = options.into();
        let baggage = options.baggage.clone();
        let trace = core.attempt_trace(options)?;
        Ok(Self { core, parent: trace.root_id, trace, baggage, resource: Attributes::default() })
    }
}

impl SpanExporter for OtelSpanExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        for data in batch {
            let trace_id = data.span_context.trace_id().to_string();
            let parent = match data.parent_span_id {
                OtelSpanId::INVALID => self.parent,
                parent => SpanId(parent.to_bytes()),
            };
            let mut span = converted(data, parent, &self.trace, &self.baggage);
            // That of the calls which carry its `traceparent`.
            span.trace_id = trace_id;
            span.resource.attributes.extend(self.resource.clone());
            self.core.record(Arc::new(span));
        }
        self.core.flush().await.map_err(|error| OTelSdkError::InternalFailure(error.to_string()))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = attributes(resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())));
    }
}

impl fmt::Debug for OtelSpanExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtelSpanExporter").field("core", &self.core).finish_non_exhaustive()
    }
}
