//! Tracewire: an HTTP interception proxy that turns what AI agents do on the wire into spans.
//!
//! The public API is small: [`trace`] (spans, rollouts, attempts, exchanges), [`store`] (the store trait and the stores),
//! [`rollout`] (the operations of trainers and runners on a store), [`clients`] (what agents say about themselves in
//! their requests), [`trajectory`] (LLM calls as training samples), [`tracer`] (what an agent does, recorded from within),
//! [`error`], and [`Cli`], which the binary runs.
//! Everything else is private to the crate, so that the compiler finds what nothing uses.
//!
//! The map, in layers; `tests/tidy.rs` checks which module may import which:
//!
//! - glue: `app` (composition root), `cli`, `config`, `error`
//! - data: `trace`, `wire`, `llm`, `trajectory`, `query`, `util`: bytes in, values out; no I/O, no clock
//! - disk: `files`, which only their owner may change
//! - network: `net`, `tls`, `upstream`, `capture`, `forward` (the hot path), `shared_state`
//! - entry: `proxy`, `gateway`, `api`, `run`, `doctor`
//! - library: `tracer`
//! - back: `pipeline`, `filter`, `rollout`, `store`, `export`, `import`, `live_export`; `mock` is an LLM endpoint to try, test and measure with
//!
//! Start with `forward::Forwarder::handle`. ARCHITECTURE.md has the rest.

mod api;
mod app;
mod capture;
mod cli;
mod config;
mod doctor;
pub mod error;
mod export;
mod files;
mod filter;
mod forward;
mod gateway;
mod import;
mod live_export;
mod llm;
mod mock;
mod net;
mod pipeline;
mod proxy;
mod query;
pub mod rollout;
mod run;
mod shared_state;
pub mod store;
mod tls;
pub mod trace;
pub mod tracer;
pub mod trajectory;
mod upstream;
mod util;
mod wire;

pub use cli::Cli;
pub use llm::clients;

/// Parts that the tests and the benchmarks call directly. They may change at any time.
#[doc(hidden)]
pub mod internals {
    pub use crate::capture::{CaptureQueue, CaptureSettings, Captured, ExchangeStart, Recorder, TeeBody};
    pub use crate::llm::formats::{HttpExchangeView, read};
    pub use crate::pipeline::{Relations, SpanOptions, build_spans};
    pub use crate::shared_state::SequenceLease;
    pub use crate::tls::{CertAuthority, LeafCache, LeafKey, install_provider};
    pub use crate::wire::encoding::gzip;
    pub use crate::wire::json_edit::insert;
    pub use crate::wire::json_strip::{Change, Changes, change};
    pub use crate::wire::redact::Redactor;
    pub use crate::wire::sse::Events;
}
