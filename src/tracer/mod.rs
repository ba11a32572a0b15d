//! Tracers: record what an agent does as spans, in the agent's own process.
//!
//! The contract is that of Agent Lightning's `Tracer`, in the words of OpenTelemetry. A [`Tracer`] has workers and opens trace
//! contexts. Within one, [`operation()`] records a step, [`create_span`] a moment, [`agent`] the steps of agents, and [`emit`]
//! rewards and notes. [`Trace`] is what was recorded.
//!
//! | tracer | for |
//! |---|---|
//! | [`DummyTracer`] | tests: traces stay in memory |
//! | [`StoreTracer`] | a store of this process, a file, or a server |
//! | [`HttpTracer`] | the HTTP calls of a command or of clients in this process |
//! | [`TracerLayer`] | programs that use the crate `tracing`, with any of these tracers |
//! | [`OtelSpanProcessor`] | libraries that use the OpenTelemetry SDK, with any of these tracers |
//! | [`OtelSpanExporter`] | programs that use the OpenTelemetry SDK, for one task per process |
//! | your own | [`TracerCore`] and a [`SpanProcessor`] |
//!
//! ```
//! use tracewire::tracer::{DummyTracer, Tracer, TracerError, agent, emit};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), TracerError> {
//! let tracer = DummyTracer::new();
//! tracer.init_worker(0)?;
//! tracer
//!     .trace_context("task 7", async {
//!         agent::tool_call("calculator")?.end();
//!         emit::reward(1.0)
//!     })
//!     .await?;
//! print!("{}", tracer.last_trace()?.timeline());
//! # Ok(())
//! # }
//! ```
//!
//! The current context is that of the code that runs now: of the future, or of the thread that holds a guard. Spawned tasks and
//! threads take it along with [`FutureExt::with_current_context`] and [`Context::attach`]; other services, with
//! [`Context::headers`] and [`TraceOptions::remote_parent`].

mod active_trace;
pub mod agent;
mod baggage;
mod context;
mod contract;
mod core;
mod dummy;
pub mod emit;
mod error;
mod exception;
mod finished;
mod flattened;
mod http_tracer;
mod layer;
mod new_span;
mod operation;
mod options;
mod otel;
mod otel_exporter;
mod otel_span;
mod processor;
mod store_tracer;
mod store_writer;

pub use self::core::TracerCore;
pub use baggage::Baggage;
pub use context::{Context, ContextGuard, FutureExt};
pub use contract::{TraceGuard, Tracer, create_span, operation, traced, traced_sync};
pub use dummy::DummyTracer;
pub use error::{Result, TracerError};
pub use exception::Exception;
pub use finished::Trace;
pub use http_tracer::{CommandEnd, HttpTracer, TraceProxy};
pub use layer::TracerLayer;
pub use new_span::NewSpan;
pub use operation::Operation;
pub use options::TraceOptions;
pub use otel::OtelSpanProcessor;
pub use otel_exporter::OtelSpanExporter;
pub use processor::SpanProcessor;
pub use store_tracer::{StoreTracer, StoreTracerCounters};
