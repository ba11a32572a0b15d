//! Seeing an exchange without touching it: a tee on each body, one record per exchange, delivered exactly once.
//!
//! It must never fail, block or delay a request, with one exception that a setting names: with `durability = commit` the
//! end of an answer waits until its span is stored. It must not parse, redact or store anything.

pub mod budget;
pub mod calls;
pub mod engines;
pub mod recorder;
pub mod recording;
pub mod sequence;
pub mod tee;
pub mod token_usage;

pub use budget::Budget;
pub use calls::Calls;
pub use engines::Engines;
pub use recorder::{Captured, Counters, ExchangeStart, Recorder};
pub use recording::Recording;
pub use sequence::{SequenceAllocator, SequenceStart, SequenceStarts};
pub use tee::{Direction, TeeBody};
pub use token_usage::TokenUsageTracker;

use crate::trace::units::millis;
use http::Method;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[capture]` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureSettings {
    /// Record header fields, redacted.
    pub include_headers: bool,
    /// Record bodies, redacted.
    pub include_bodies: bool,
    /// Record what models and tools are asked and say: messages, tool calls, token ids. Without it usage and times remain.
    pub llm_content: bool,
    /// Take the spans of OTLP exports that pass into their rollout.
    pub absorb_telemetry: Absorb,
    /// Record exchanges that say they are Agent Lightning's own.
    pub own_traffic: bool,
    /// Bytes kept of one body; what is longer passes whole and is marked truncated.
    pub max_body_bytes: u64,
    /// WebSocket messages recorded of one connection; later ones pass and are counted.
    pub max_messages: usize,
    /// Bytes that all bodies being captured may hold together.
    pub memory_budget_bytes: u64,
    /// Exchanges that may be in flight or waiting to be stored; beyond it they pass unrecorded and are counted.
    pub queue_exchanges: usize,
    /// When the end of an answer is delivered.
    pub durability: Durability,
    /// How long the end of an answer waits for its commit before it is delivered all the same, and counted.
    #[serde(rename = "commit_timeout_ms", with = "millis")]
    pub commit_timeout: Duration,
    /// Header fields to record (patterns with `*`); empty: all.
    pub header_allow: Vec<String>,
    /// Header fields never to record.
    pub header_deny: Vec<String>,
    /// Hosts to record (patterns); empty: all.
    pub only_hosts: Vec<String>,
    /// Hosts never to record.
    pub skip_hosts: Vec<String>,
}

/// What happens to an agent's own telemetry on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Absorb {
    /// It is an exchange like any other.
    #[default]
    Off,
    /// It is forwarded, and its spans are taken in as well.
    On,
    /// It is answered here: no span leaves the machine.
    Local,
}

/// True for a request that exports spans by OTLP over HTTP.
pub fn is_trace_export(method: &Method, target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    method == Method::POST && path.trim_end_matches('/').ends_with("/v1/traces")
}

/// When the end of an answer is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// `commit` for registered rollouts, `async` for others.
    #[default]
    Auto,
    /// Once its span is committed.
    Commit,
    /// As it comes.
    Async,
}

impl Default for CaptureSettings {
    fn default() -> Self {
        Self {
            include_headers: false,
            include_bodies: false,
            llm_content: true,
            absorb_telemetry: Absorb::Off,
            own_traffic: false,
            max_body_bytes: 8 * 1024 * 1024,
            max_messages: 10_000,
            memory_budget_bytes: 256 * 1024 * 1024,
            queue_exchanges: 16_384,
            durability: Durability::Auto,
            commit_timeout: Duration::from_secs(5),
            header_allow: Vec::new(),
            header_deny: Vec::new(),
            only_hosts: Vec::new(),
            skip_hosts: Vec::new(),
        }
    }
}
