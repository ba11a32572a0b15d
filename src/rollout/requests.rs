//! The arguments of operations: new rollouts, and changes of rollouts and attempts.

use crate::trace::{AttemptStatus, RolloutConfig, RolloutMode, RolloutStatus, Timestamp};
use serde::{Deserialize, Deserializer};
use serde_json::Value as JsonValue;
use utoipa::ToSchema;

/// A new rollout.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct NewRollout {
    /// The task; any JSON, opaque to Tracewire.
    pub input: JsonValue,
    /// What the rollout is for.
    #[serde(default)]
    pub mode: Option<RolloutMode>,
    /// The resources that the rollout runs with; `None`: the latest set.
    #[serde(default)]
    pub resources_id: Option<String>,
    /// Timeouts and retries; `None`: the defaults.
    #[serde(default)]
    pub config: Option<RolloutConfig>,
    /// Free-form data, which is stored as it is.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Map<String, JsonValue>>,
}

/// Changes of a rollout. Absent fields keep their value; null removes it.
// In an `Option<Option<_>>`, `None` keeps the value and `Some(None)` removes it.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct RolloutChange {
    /// The task. JSON `null` is a task.
    #[serde(default, deserialize_with = "present")]
    pub input: Option<JsonValue>,
    /// What the rollout is for.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<RolloutMode>)]
    pub mode: Option<Option<RolloutMode>>,
    /// The resources that the rollout runs with.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub resources_id: Option<Option<String>>,
    /// The new status.
    #[serde(default)]
    pub status: Option<RolloutStatus>,
    /// Timeouts and retries.
    #[serde(default)]
    pub config: Option<RolloutConfig>,
    /// Free-form data; `Some(None)` removes it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Option<serde_json::Map<String, JsonValue>>>,
}

/// Reads a field that is present, also if it is null.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Changes of an attempt. Absent fields keep their value.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct AttemptChange {
    /// The new status.
    #[serde(default)]
    pub status: Option<AttemptStatus>,
    /// The worker that runs the attempt.
    #[serde(default)]
    pub worker_id: Option<String>,
    /// When the attempt last sent a span or a heartbeat.
    #[serde(default)]
    pub last_heartbeat_time: Option<Timestamp>,
    /// Free-form data, which is stored as it is.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Map<String, JsonValue>>,
}
