//! `[capture]` of the settings.

use crate::trace::SamplerArrays;
use crate::trace::units::millis;
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
    /// Record the content of calls of models and tools: messages, tool calls, token ids. Without it only usage and times
    /// are recorded.
    pub llm_content: bool,
    /// Request routed experts from engines that return them, record them, and remove them from what agents see.
    pub routed_experts: bool,
    /// The same for sampling masks.
    pub sampling_masks: bool,
    /// What happens to OTLP exports that agents send through the proxy.
    pub absorb_telemetry: Absorb,
    /// Record the traffic of Agent Lightning itself (`x-agentlightning-client: true`).
    pub own_traffic: bool,
    /// Maximum recorded bytes of one body. A longer body passes whole and is marked truncated. LLM calls are read to their
    /// end.
    pub max_body_bytes: u64,
    /// Maximum recorded WebSocket messages of one connection. Later ones pass and are counted.
    pub max_messages: usize,
    /// Maximum memory of all exchanges in flight, in bytes. What exceeds it goes to the spill file.
    pub memory_budget_bytes: u64,
    /// Maximum exchanges that are in flight or wait to be stored.
    pub queue_exchanges: usize,
    /// What happens to further ones.
    pub when_full: WhenFull,
    /// How long an exchange waits for room. After that it passes unrecorded and is counted.
    #[serde(rename = "full_wait_ms", with = "millis")]
    pub full_wait: Duration,
    /// Threads that make spans of exchanges, each for a part of the rollouts. 0: half the cores, at least one.
    pub workers: usize,
    /// When the end of a response is delivered.
    pub durability: Durability,
    /// How long the end of a response waits for its commit. After that it is delivered and counted.
    #[serde(rename = "commit_timeout_ms", with = "millis")]
    pub commit_timeout: Duration,
    /// Header fields to record, as patterns with `*`; empty: all.
    pub header_allow: Vec<String>,
    /// Header fields not to record, as patterns with `*`. They win over `header_allow`.
    pub header_deny: Vec<String>,
    /// Hosts to record, as patterns; empty: all.
    #[serde(deserialize_with = "crate::util::host_patterns::deserialize")]
    pub only_hosts: Vec<String>,
    /// Hosts not to record, as patterns. They win over `only_hosts`.
    #[serde(deserialize_with = "crate::util::host_patterns::deserialize")]
    pub skip_hosts: Vec<String>,
}

/// What happens to an OTLP export of spans that an agent sends through the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Absorb {
    /// It is an exchange like any other.
    #[default]
    Off,
    /// It is forwarded, and its spans are stored as well.
    On,
    /// It is answered by the proxy and its spans are stored: no span leaves the machine.
    Local,
}

/// What happens to an exchange that finds the queue full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// `wait` for registered rollouts, `pass` for others.
    #[default]
    Auto,
    /// Its request waits for room.
    Wait,
    /// It passes unrecorded, and is counted.
    Pass,
}

/// When the end of a response is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// `commit` for registered rollouts, `async` for others.
    #[default]
    Auto,
    /// The end of a response waits until its span is committed.
    Commit,
    /// No response waits for its span.
    Async,
}

impl Default for CaptureSettings {
    fn default() -> Self {
        Self {
            include_headers: false,
            include_bodies: false,
            llm_content: true,
            routed_experts: false,
            sampling_masks: false,
            absorb_telemetry: Absorb::Off,
            own_traffic: false,
            max_body_bytes: 8 * 1024 * 1024,
            max_messages: 10_000,
            memory_budget_bytes: 256 * 1024 * 1024,
            queue_exchanges: 16_384,
            when_full: WhenFull::Auto,
            full_wait: Duration::from_secs(60),
            workers: 0,
            durability: Durability::Auto,
            commit_timeout: Duration::from_secs(5),
            header_allow: Vec::new(),
            header_deny: Vec::new(),
            only_hosts: Vec::new(),
            skip_hosts: Vec::new(),
        }
    }
}

impl CaptureSettings {
    /// The number of threads that make spans.
    pub(crate) fn worker_count(&self) -> usize {
        let half_of_cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
        if self.workers == 0 { half_of_cores().max(1) } else { self.workers.min(MAX_WORKERS) }
    }

    /// The arrays that are requested and recorded.
    pub(crate) fn sampler_arrays(&self) -> SamplerArrays {
        SamplerArrays { routed_experts: self.routed_experts, sampling_masks: self.sampling_masks }
    }
}

const MAX_WORKERS: usize = 256;
