//! Rollouts and attempts as Agent Lightning has them (0.3, `agentlightning/types`): data only.
//!
//! The state machine that moves them lives in `crate::rollout`; nothing here decides anything.

use super::ids::{AttemptId, RolloutId};
use super::units::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// One task's execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its id.
    pub rollout_id: RolloutId,
    /// The task, as its creator gave it.
    pub input: Json,
    /// When it was created.
    pub start_time: Timestamp,
    /// When it reached a final state.
    pub end_time: Option<Timestamp>,
    /// `train`, `val`, `test` or null.
    pub mode: Option<String>,
    /// The resources it runs with.
    pub resources_id: Option<String>,
    /// Its state.
    pub status: RolloutStatus,
    /// Time-outs and retries, as its creator gave them.
    pub config: Json,
    /// Free data; `name` is what `tracewire run --name` gave.
    pub metadata: Json,
}

/// One try at a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The rollout.
    pub rollout_id: RolloutId,
    /// Its id, unique within the rollout.
    pub attempt_id: AttemptId,
    /// 1 for the first try.
    pub sequence_id: u64,
    /// When it began.
    pub start_time: Timestamp,
    /// When it ended.
    pub end_time: Option<Timestamp>,
    /// Its state.
    pub status: AttemptStatus,
    /// Who works on it.
    pub worker_id: Option<String>,
    /// When something was last heard from it.
    pub last_heartbeat_time: Option<Timestamp>,
    /// Free data.
    pub metadata: Json,
}

/// A rollout's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are Agent Lightning's and say it all")]
pub enum RolloutStatus {
    Queuing,
    Preparing,
    Running,
    Failed,
    Succeeded,
    Cancelled,
    Requeuing,
}

/// An attempt's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are Agent Lightning's and say it all")]
pub enum AttemptStatus {
    Preparing,
    Running,
    Failed,
    Succeeded,
    Unresponsive,
    Timeout,
}

impl Rollout {
    /// A running rollout that began at `start_time`.
    pub fn running(rollout_id: RolloutId, start_time: Timestamp) -> Self {
        Self {
            rollout_id,
            input: Json::Null,
            start_time,
            end_time: None,
            mode: None,
            resources_id: None,
            status: RolloutStatus::Running,
            config: Json::Object(serde_json::Map::default()),
            metadata: Json::Object(serde_json::Map::default()),
        }
    }

    /// The name its creator gave it (`metadata.name`).
    pub fn name(&self) -> Option<&str> {
        self.metadata.get("name").and_then(Json::as_str)
    }
}

impl Attempt {
    /// A running attempt that began at `start_time`, numbered by the store.
    pub fn running(rollout_id: RolloutId, attempt_id: AttemptId, start_time: Timestamp) -> Self {
        Self {
            rollout_id,
            attempt_id,
            sequence_id: 1,
            start_time,
            end_time: None,
            status: AttemptStatus::Running,
            worker_id: None,
            last_heartbeat_time: None,
            metadata: Json::Object(serde_json::Map::default()),
        }
    }
}
