//! `[gateway]` and `[[reroute]]` of the settings; every value has a default.

use crate::llm::api::is_api_path;
use crate::llm::engine::{Engine, UnknownEngine};
use crate::llm::provider::is_model_service;
use crate::llm::translate::{ServerTools, Turns};
use crate::trace::units::millis;
use crate::upstream::Origin;
use crate::util::glob::any_matches;
use crate::util::secret::Secret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use utoipa::ToSchema;

/// `[gateway]` of the settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GatewaySettings {
    /// The model of calls that name no served model; empty: the only model that is served, if there is one.
    pub model: String,
    /// Other names of models: the agent's name, and the served model.
    pub aliases: BTreeMap<String, String>,
    /// Remove from responses what only Tracewire asked for. The routes of Agent Lightning 1.0 never remove it.
    pub strip: bool,
    /// Request log-probabilities of calls in train mode on the routes of Agent Lightning 1.0. Elsewhere they are requested
    /// together with token ids.
    pub include_log_probs: bool,
    /// Which calls are translated to chat completions.
    pub translate: Translate,
    /// Which messages become one when a call is translated to chat completions.
    pub turns: Turns,
    /// Remove a limit of the answer's length that exceeds the backend's context, because engines reject such calls. The
    /// backend's list of models names the context (`max_model_len`).
    pub limit_to_context: bool,
    /// What happens to tools that a model service runs itself when a call is translated to chat completions.
    pub server_tools: ServerTools,
    /// Store the bodies of calls on routes that have an API which returns them: Agent Lightning 1.0, and sessions.
    pub keep_bodies: bool,
    /// The longest body of a request, also after decoding its content coding.
    pub max_body_bytes: usize,
    /// What happens to calls while the gateway is paused, unless `POST /proxy/pause` names another form.
    pub pause: PauseForm,
    /// How long a call waits while the gateway is paused; then it fails.
    #[serde(rename = "hold_timeout_ms", with = "millis")]
    pub hold_timeout: Duration,
    /// After so much silence a caller that waits for a stream gets a keepalive (a comment, Anthropic's `ping`): while the
    /// gateway is paused, and between the events of a response; 0: never.
    #[serde(rename = "keepalive_ms", with = "millis")]
    pub keepalive: Duration,
    /// How often a call is tried again if a backend did not respond, or responded with 408, 409, 429 or 5xx. Tries that reached
    /// no backend are not counted: they have `unreachable_wait`.
    pub retries: u32,
    /// How long a backend that has responded before may refuse connections, or not be found, until calls to it fail at once.
    #[serde(rename = "unreachable_wait_ms", with = "millis")]
    pub unreachable_wait: Duration,
    /// The wait before the first retry; it doubles with each further one, and varies by a quarter.
    #[serde(rename = "retry_wait_ms", with = "millis")]
    pub retry_wait: Duration,
    /// The longest such wait, without the variation. A `Retry-After` is honoured up to ten times this.
    #[serde(rename = "retry_wait_max_ms", with = "millis")]
    pub retry_wait_max: Duration,
    /// How long a try may take until the first event of a stream, or the end of any other response; 0: no limit.
    #[serde(rename = "try_timeout_ms", with = "millis")]
    pub try_timeout: Duration,
    /// How long a response may be silent before it is ended; 0: no limit.
    #[serde(rename = "idle_timeout_ms", with = "millis")]
    pub idle_timeout: Duration,
    /// How often backends are probed; 0: never.
    #[serde(rename = "probe_interval_ms", with = "millis")]
    pub probe_interval: Duration,
    /// Which calls are retries of an earlier call, and get its response.
    pub join: Join,
    /// How long a response is cached for retries, and how long a call continues after its agent disconnected.
    #[serde(rename = "join_window_ms", with = "millis")]
    pub join_window: Duration,
    /// How many bytes the cached responses may hold together, in memory or on disk. A response beyond that is not cached.
    pub join_memory_bytes: usize,
    /// How many responses of OpenAI's responses API are remembered, so that requests can continue them
    /// (`previous_response_id`); 0: none.
    pub stored_responses: usize,
    /// How many bytes the items of those responses and of their requests may have together.
    pub stored_response_bytes: usize,
    /// What happens to a call if the policy is more than `max_staleness` versions ahead of the rollout's first call.
    pub staleness: Staleness,
    /// By how many versions the policy may be ahead.
    pub max_staleness: i64,
    /// The budget of each rollout, unless its `metadata.budget` sets another.
    pub budget: Budget,
    /// The key that signs API keys of rollouts (`sk-tw-…`); empty: they are neither signed nor checked.
    pub signing_key: Secret,
    /// Sampling parameters of calls in train mode.
    pub train: Sampling,
    /// Sampling parameters of calls in val mode.
    pub val: Sampling,
    /// The backends that are registered at the start.
    pub backends: Vec<BackendSettings>,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            model: String::new(),
            aliases: BTreeMap::new(),
            strip: true,
            include_log_probs: true,
            translate: Translate::default(),
            turns: Turns::default(),
            limit_to_context: true,
            server_tools: ServerTools::default(),
            keep_bodies: true,
            max_body_bytes: 64 << 20,
            pause: PauseForm::Refuse,
            hold_timeout: Duration::from_secs(600),
            keepalive: Duration::from_secs(5),
            retries: 5,
            unreachable_wait: Duration::from_secs(3),
            retry_wait: Duration::from_millis(500),
            retry_wait_max: Duration::from_secs(8),
            try_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(300),
            probe_interval: Duration::from_secs(5),
            join: Join::Retry,
            join_window: Duration::from_secs(30),
            join_memory_bytes: 32 << 20,
            stored_responses: 4096,
            stored_response_bytes: 64 << 20,
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

/// Which calls of other APIs are translated to chat completions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Translate {
    /// Those of an API that the backend does not have, and responses calls with tools or items that engines don't take.
    #[default]
    Missing,
    /// All, if the backend has chat completions: engines return the most token ids there, and take most agents' tools.
    Always,
}

/// What happens to calls while the gateway is paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PauseForm {
    /// Calls get 429 at once, as in Agent Lightning.
    #[default]
    Refuse,
    /// Calls wait for the resume, up to a limit, and are then sent.
    Hold,
}

/// Which calls are retries of an earlier call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Join {
    /// Those with the same body, if the agent of the earlier call hung up before the response began, or, with a retry count
    /// (`x-stainless-retry-count`), at any time; and those with a count above 0.
    #[default]
    #[serde(alias = "header")]
    Retry,
    /// Those with the same body. Wrong for agents that sample one prompt several times.
    Digest,
    /// Every call is sent to a backend.
    Off,
}

/// What happens to a call if the policy is too far ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Staleness {
    /// The call is sent, and its span has the number of versions.
    #[default]
    Tag,
    /// The call is refused and never reaches a backend.
    Refuse,
}

/// The budget of a rollout. 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Budget {
    /// LLM calls; retries by agents are not counted again if they are coalesced.
    pub calls: u64,
    /// Tokens of prompts and responses together, as the backends report them.
    pub tokens: u64,
    /// Seconds from the first call.
    pub seconds: u64,
}

/// Sampling parameters; those that are `None` stay as the agent set them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sampling {
    /// Replaces the agent's `temperature`.
    pub temperature: Option<f64>,
    /// Replaces the agent's `top_p`.
    pub top_p: Option<f64>,
    /// The upper limit of `max_tokens`; an agent may ask for less.
    pub max_tokens: Option<u64>,
}

/// An entry of `[[gateway.backends]]`, and the body of `POST /v1/tracewire/backends`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackendSettings {
    /// The model that it serves, by the name that calls use; empty: any model.
    pub model: String,
    /// The base URL of its API, with the `/v1`.
    pub url: String,
    /// The version of its weights.
    #[serde(default)]
    pub version: i64,
    /// Its share of the rollouts, relative to the other backends of its model.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// The inference engine behind the URL; detected if it is not set.
    #[serde(default)]
    #[schema(value_type = String)]
    pub engine: BackendEngine,
    /// The API key that it gets; kept in memory only.
    #[serde(default, skip_serializing_if = "Secret::is_empty")]
    #[schema(value_type = String)]
    pub key: Secret,
}

fn default_weight() -> f64 {
    1.0
}

/// The engine of a backend. It decides how token ids are requested, and which APIs are served without translation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BackendEngine {
    /// Detected by probes. Until then the backend is treated as vLLM.
    #[default]
    Auto,
    /// The engine that settings or the registration of the backend name, or that was detected.
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

/// An entry of `[[reroute]]`: LLM calls to a host that arrive at the proxy go to the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reroute {
    /// Requests to any path of an API are never sent to the host: those that the gateway does not serve are refused. `None`: so
    /// it is for hosts of model services, unless `paths` names what is rerouted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// The hosts that agents call (patterns).
    #[serde(deserialize_with = "crate::util::host_patterns::deserialize_non_empty")]
    pub hosts: Vec<String>,
    /// The paths (patterns with `*`); empty: those of LLM APIs. Other requests are forwarded to the host, unless `strict` says
    /// otherwise. A matching request that is not an LLM call is refused.
    #[serde(default)]
    pub paths: Vec<String>,
    /// The model of the calls; empty: the one that the agent names, or `gateway.model`.
    #[serde(default)]
    pub model: String,
}

impl Reroute {
    /// The first of `reroutes` that names this host.
    pub(super) fn of_host<'a>(reroutes: &'a [Self], host: &Origin) -> Option<&'a Self> {
        reroutes.iter().find(|reroute| any_matches(&reroute.hosts, &host.host, host.port))
    }

    /// True if a request must not reach the host, whether the gateway serves it or not.
    pub(super) fn keeps_from(&self, host: &Origin, path: &str) -> bool {
        let is_strict = self.strict.unwrap_or_else(|| self.paths.is_empty() && is_model_service(&host.host));
        is_strict && is_api_path(path)
    }
}
