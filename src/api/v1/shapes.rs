//! What version 1.0 takes and keeps of rollouts. Shapes only.

use crate::trace::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};

/// What only this API knows of a rollout; kept under [`KEY`] in its metadata.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) config: JsonValue,
    pub(super) status: Status,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Status {
    pub(super) k8s_job_name: Option<String>,
    pub(super) last_attempt_id: Option<String>,
    pub(super) error_message: Option<String>,
    pub(super) version: u64,
    pub(super) updated_at: Timestamp,
}

#[derive(Clone, Deserialize)]
pub(super) struct New {
    pub(super) input: JsonValue,
    #[serde(default = "yes")]
    pub(super) is_train: bool,
    #[serde(default)]
    pub(super) config: Option<Config>,
    #[serde(default)]
    pub(super) metadata: Option<Metadata>,
    #[serde(default)]
    pub(super) rollout_id: Option<String>,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Config {
    pub(super) timeout_seconds: Seconds,
    pub(super) local: Option<Local>,
    pub(super) k8s: Option<Kubernetes>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Seconds(pub(super) i64);

impl Default for Seconds {
    fn default() -> Self {
        Self(3600)
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Local {
    agent_class: Option<String>,
    env_map: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Kubernetes {
    job_template: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Metadata {
    batch_idx: Option<i64>,
    sample_idx_in_batch: Option<i64>,
    #[serde(flatten)]
    extra: Map<String, JsonValue>,
}

#[derive(Deserialize)]
pub(super) struct Change {
    #[serde(default)]
    pub(super) status: Option<StatusChange>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StatusChange {
    #[serde(deserialize_with = "given")]
    pub(super) state: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    pub(super) k8s_job_name: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    pub(super) last_attempt_id: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    pub(super) error_message: Option<Option<String>>,
}

/// What is null is given; what is not there is not.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
