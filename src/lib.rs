//! Tracewire: an HTTP interception proxy that turns what AI agents do on the wire into spans.
//!
//! The map, in bands; `tests/tidy.rs` checks who may import whom:
//!
//! - GLUE: [`app`] (composition root), [`config`], [`error`], [`cli`]
//! - DATA: [`trace`], [`wire`], [`llm`], [`util`]: bytes in, values out; no I/O, no clock
//! - PLUMBING: [`net`], [`tls`], [`upstream`], [`capture`], [`forward`] (the hot path), [`shared_state`] (what they share with others)
//! - DOORS: [`proxy`], [`gateway`], [`api`], [`run`], [`doctor`] (why is something not traced?)
//! - BACK: [`pipeline`], [`rollout`] (what trainers and runners do), [`store`], [`export`]
//! - [`mock`]: an LLM endpoint to try, test and measure with
//!
//! Start with [`forward::Forwarder::handle`]; ARCHITECTURE.md tells the rest.

pub mod api;
pub mod app;
pub mod capture;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod error;
pub mod export;
pub mod forward;
pub mod gateway;
pub mod llm;
pub mod mock;
pub mod net;
pub mod pipeline;
pub mod proxy;
pub mod rollout;
pub mod run;
pub mod shared_state;
pub mod store;
pub mod tls;
pub mod trace;
pub mod upstream;
pub mod util;
pub mod wire;
