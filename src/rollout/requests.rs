//! What is asked for: new rollouts, and changes of rollouts and attempts.

use crate::trace::{AttemptStatus, RolloutConfig, RolloutStatus, Timestamp};
use serde::Deserialize;
use serde_json::Value as JsonValue;

/// A new rollout.
#[derive(Clone, Debug, Deserialize)]
pub struct NewRollout {
    /// The task.
    pub input: JsonValue,
    /// `train`, `val` or `test`.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// The resources it runs with; the latest if it does not say.
    #[serde(default)]
    pub resources_id: Option<String>,
    /// Time-outs and retries.
    #[serde(default)]
    pub config: Option<RolloutConfig>,
    /// Free data.
    #[serde(default)]
    pub metadata: Option<serde_json::Map<String, JsonValue>>,
}

/// What a rollout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are Agent Lightning's and say it all")]
pub enum Mode {
    Train,
    Val,
    Test,
}

impl Mode {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

/// Changes of a rollout; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct RolloutChange {
    /// The task.
    pub input: Option<JsonValue>,
    /// Null takes it away.
    pub mode: Option<Option<Mode>>,
    /// Null takes it away.
    pub resources_id: Option<Option<String>>,
    /// The state.
    pub status: Option<RolloutStatus>,
    /// Time-outs and retries.
    pub config: Option<RolloutConfig>,
    /// Free data, null takes it away.
    pub metadata: Option<JsonValue>,
}

/// Changes of an attempt; what is `None` stays.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct AttemptChange {
    /// The state.
    #[serde(default)]
    pub status: Option<AttemptStatus>,
    /// Who works on it.
    #[serde(default)]
    pub worker_id: Option<String>,
    /// When something was last heard from it.
    #[serde(default)]
    pub last_heartbeat_time: Option<Timestamp>,
    /// Free data.
    #[serde(default)]
    pub metadata: Option<serde_json::Map<String, JsonValue>>,
}
