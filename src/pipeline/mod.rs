//! From exchanges to stored spans: build, redact, batch, append, on threads of its own.
//!
//! If the store fails, it retries while the capture queue fills; what finds no room there waits, or is counted by `capture`.
//! Nothing is stored unredacted. One exchange becomes spans by a pure function ([`build_spans`]); the worker applies what it
//! observed to the state that other modules share.

mod absorbed_spans;
mod body;
mod call_attributes;
mod callers;
mod calls;
mod counters;
mod gateway_attributes;
mod gen_ai_metrics;
mod http_attributes;
mod latency;
mod observed;
mod observed_state;
mod options;
mod pending;
mod relations;
mod span;
#[cfg(test)]
mod tests;
mod websocket_calls;
mod websocket_messages;
mod worker;

pub(crate) use counters::PipelineCounters;
pub(crate) use observed_state::ObservedState;
pub use options::SpanOptions;
pub use relations::Relations;
pub use span::build_spans;
pub(crate) use worker::Pipeline;
