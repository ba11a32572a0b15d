//! The bodies of Agent Lightning 1.0, and what is stored of a rollout for this API alone.

use crate::trace::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The key in a rollout's metadata that holds its [`StoredFields`].
pub(super) const METADATA_KEY: &str = "agentlightning_v1";

/// The fields of a rollout that only this API has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredFields {
    pub(super) config: JsonValue,
    pub(super) status: StoredStatus,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredStatus {
    pub(super) k8s_job_name: Option<String>,
    pub(super) last_attempt_id: Option<String>,
    pub(super) error_message: Option<String>,
    /// The number of changes, counting the creation.
    pub(super) version: u64,
    pub(super) updated_at: Timestamp,
}

impl StoredStatus {
    /// The status of a rollout that was not changed since `updated_at`.
    pub(super) fn unchanged_since(updated_at: Timestamp) -> Self {
        Self { k8s_job_name: None, last_attempt_id: None, error_message: None, version: 1, updated_at }
    }
}

#[derive(Clone, Deserialize, ToSchema)]
pub(super) struct NewRolloutV1 {
    /// The task; any JSON.
    pub(super) input: JsonValue,
    /// False: the rollout is for validation.
    #[serde(default = "default_is_train")]
    pub(super) is_train: bool,
    #[serde(default)]
    pub(super) config: Option<RolloutConfigV1>,
    #[serde(default)]
    pub(super) metadata: Option<RolloutMetadata>,
    /// Absent: a random id.
    #[serde(default)]
    pub(super) rollout_id: Option<String>,
}

fn default_is_train() -> bool {
    true
}

#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub(super) struct RolloutConfigV1 {
    /// The longest time of an attempt, which the controllers apply.
    pub(super) timeout_seconds: i64,
    local: Option<LocalConfig>,
    k8s: Option<KubernetesConfig>,
}

impl Default for RolloutConfigV1 {
    fn default() -> Self {
        Self { timeout_seconds: 3600, local: None, k8s: None }
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
struct LocalConfig {
    agent_class: Option<String>,
    env_map: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
struct KubernetesConfig {
    job_template: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub(super) struct RolloutMetadata {
    batch_idx: Option<i64>,
    sample_idx_in_batch: Option<i64>,
    /// Any other keys.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    extra: Map<String, JsonValue>,
}

#[derive(Deserialize, ToSchema)]
pub(super) struct RolloutChangeV1 {
    #[serde(default)]
    pub(super) status: Option<StatusChange>,
}

/// Changes of a status. Absent fields keep their value; null removes it.
// Absent is the outer `None`, null the inner one.
#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StatusChange {
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub(super) state: Option<Option<String>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub(super) k8s_job_name: Option<Option<String>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub(super) last_attempt_id: Option<Option<String>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub(super) error_message: Option<Option<String>>,
}

/// Reads a field that is present; null becomes `Some(None)`.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A rollout as this API returns it.
#[derive(Serialize, ToSchema)]
pub(super) struct RolloutView {
    pub(super) rollout_id: String,
    pub(super) input: JsonValue,
    pub(super) is_train: bool,
    pub(super) config: JsonValue,
    #[schema(value_type = Object)]
    pub(super) metadata: Map<String, JsonValue>,
    pub(super) status: StatusView,
}

#[derive(Serialize, ToSchema)]
pub(super) struct StatusView {
    /// `queuing`, `running`, `succeeded` or `failed`.
    pub(super) state: &'static str,
    pub(super) k8s_job_name: Option<String>,
    pub(super) last_attempt_id: Option<String>,
    pub(super) error_message: Option<String>,
    pub(super) version: u64,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}
