//! `[gateway]` and `[[reroute]]` of the settings. Data only; every value has a default.

use crate::llm::engine::{Engine, UnknownEngine};
use crate::trace::units::millis;
use crate::util::secret::Secret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// `[gateway]` of the settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// The model that backends are asked for where the agent names none of theirs; empty: the only one there is.
    pub model: String,
    /// Other names of models: what an agent says, and what is meant.
    pub aliases: BTreeMap<String, String>,
    /// Take out of answers what the agent did not ask for. Agent Lightning's v1.0 routes keep it whatever this says.
    pub strip: bool,
    /// Ask for log-probabilities in train mode.
    pub include_log_probs: bool,
    /// Record the bodies of calls by routes whose own API gives them back (v1.0, sessions).
    pub keep_bodies: bool,
    /// The longest body of a call.
    pub max_body_bytes: usize,
    /// What callers meet while it is paused, unless `POST /proxy/pause` says another form.
    pub pause: PauseForm,
    /// How long callers wait while it is paused.
    #[serde(rename = "hold_timeout_ms", with = "millis")]
    pub hold_timeout: Duration,
    /// A caller that waits for a stream is sent a comment this often; 0: never.
    #[serde(rename = "keepalive_ms", with = "millis")]
    pub keepalive: Duration,
    /// Further tries of a call that a backend did not answer, or answered with 408, 409, 429 or 5xx.
    pub retries: u32,
    /// The first wait before another try; it doubles each time.
    #[serde(rename = "retry_wait_ms", with = "millis")]
    pub retry_wait: Duration,
    /// The longest such wait. A `Retry-After` is honoured up to ten times that.
    #[serde(rename = "retry_wait_max_ms", with = "millis")]
    pub retry_wait_max: Duration,
    /// How long a try may take to the first event of a stream, or to the end of any other answer; 0: any time.
    #[serde(rename = "try_timeout_ms", with = "millis")]
    pub try_timeout: Duration,
    /// Silence allowed within an answer; 0: any.
    #[serde(rename = "idle_timeout_ms", with = "millis")]
    pub idle_timeout: Duration,
    /// How often backends are asked whether they are there; 0: never.
    #[serde(rename = "probe_interval_ms", with = "millis")]
    pub probe_interval: Duration,
    /// When an agent's call is its retry of another, and gets that one's answer.
    pub join: Join,
    /// How long an answer is kept for retries, and a call that its agent left goes on for one.
    #[serde(rename = "join_window_ms", with = "millis")]
    pub join_window: Duration,
    /// Bytes that answers kept for retries may hold together.
    pub join_memory_bytes: usize,
    /// What happens to a call when the policy is too far ahead of the one that its rollout began with.
    pub staleness: Staleness,
    /// By how many versions it may be ahead.
    pub max_staleness: i64,
    /// What a rollout may spend; its own `metadata.budget` overrides it.
    pub budget: Budget,
    /// Signs keys of rollouts (`sk-tw-…`); empty: they are not signed.
    pub signing_key: Secret,
    /// Sampling parameters that calls in train mode are made with.
    pub train: Sampling,
    /// Sampling parameters that calls in val mode are made with.
    pub val: Sampling,
    /// Model servers.
    pub backends: Vec<BackendSettings>,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            model: String::new(),
            aliases: BTreeMap::new(),
            strip: true,
            include_log_probs: true,
            keep_bodies: true,
            max_body_bytes: 64 << 20,
            pause: PauseForm::Refuse,
            hold_timeout: Duration::from_secs(600),
            keepalive: Duration::from_secs(5),
            retries: 5,
            retry_wait: Duration::from_millis(500),
            retry_wait_max: Duration::from_secs(8),
            try_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(300),
            probe_interval: Duration::from_secs(5),
            join: Join::Header,
            join_window: Duration::from_secs(30),
            join_memory_bytes: 32 << 20,
            staleness: Staleness::Tag,
            max_staleness: 0,
            budget: Budget::default(),
            signing_key: Secret::default(),
            train: Sampling::default(),
            val: Sampling::default(),
            backends: Vec::new(),
        }
    }
}

/// What callers meet while the gateway is paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PauseForm {
    /// 429, as Agent Lightning has it.
    #[default]
    Refuse,
    /// They wait.
    Hold,
}

/// When an agent's call is its retry of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Join {
    /// When it says so (`x-stainless-retry-count`), and its body is the same.
    #[default]
    Header,
    /// When its body is the same. Not for agents that sample one prompt several times.
    Digest,
    /// Never.
    Off,
}

/// What happens to a call when the policy is too far ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Staleness {
    /// Its span says by how much.
    #[default]
    Tag,
    /// It is refused.
    Refuse,
}

/// What a rollout may spend. 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Calls of models.
    pub calls: u64,
    /// Tokens, of prompts and answers together, as the backends count them.
    pub tokens: u64,
    /// Seconds from its first call.
    pub seconds: u64,
}

/// Sampling parameters; what is not there stays as the agent has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// `temperature`
    pub temperature: Option<f64>,
    /// `top_p`
    pub top_p: Option<f64>,
    /// `max_tokens`: the most, an agent may ask for less.
    pub max_tokens: Option<u64>,
}

/// One of `[[gateway.backends]]`, and what `POST /v1/tracewire/backends` takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendSettings {
    /// The model it serves, as calls name it; empty: whatever an agent names.
    pub model: String,
    /// Its API's base URL, with the `/v1`.
    pub url: String,
    /// The version of its weights.
    #[serde(default)]
    pub version: i64,
    /// Its share of the rollouts, beside the others of its model.
    #[serde(default = "one")]
    pub weight: f64,
    /// What it is.
    #[serde(default)]
    pub engine: BackendEngine,
    /// What it is shown as bearer token; kept in memory only.
    #[serde(default, skip_serializing_if = "Secret::is_empty")]
    pub key: Secret,
}

fn one() -> f64 {
    1.0
}

/// The engine of a backend: which token ids it is asked for, and which APIs it serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BackendEngine {
    /// The backend is asked. Until it shows its engine it counts as vLLM.
    #[default]
    Auto,
    /// This one.
    Known(Engine),
}

impl BackendEngine {
    /// The engine that the backend is treated as.
    pub fn assumed(self) -> Engine {
        match self {
            Self::Auto => Engine::VLLM,
            Self::Known(engine) => engine,
        }
    }

    /// The engine, once it is known.
    pub fn known(self) -> Option<Engine> {
        match self {
            Self::Auto => None,
            Self::Known(engine) => Some(engine),
        }
    }

    /// The name in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => AUTO,
            Self::Known(engine) => engine.as_str(),
        }
    }
}

impl TryFrom<String> for BackendEngine {
    type Error = UnknownEngine;

    fn try_from(name: String) -> Result<Self, UnknownEngine> {
        if name == AUTO { Ok(Self::Auto) } else { Engine::try_from(name).map(Self::Known) }
    }
}

impl From<BackendEngine> for String {
    fn from(engine: BackendEngine) -> Self {
        engine.as_str().to_owned()
    }
}

const AUTO: &str = "auto";

/// One of `[[reroute]]`: calls that the proxy door takes for a host go to the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reroute {
    /// The hosts that agents call (patterns).
    pub hosts: Vec<String>,
    /// The paths (patterns with `*`); none: those of LLM APIs. What does not match goes where it says.
    #[serde(default)]
    pub paths: Vec<String>,
    /// The model that is asked for; empty: what the agent names, or the gateway's.
    #[serde(default)]
    pub model: String,
}
