//! Rollouts and attempts as Agent Lightning has them (0.3, `agentlightning/types`): data only.
//!
//! The state machine that moves them lives in `crate::rollout`; nothing here decides anything.

use super::ids::{AttemptId, RolloutId};
use super::units::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value as JsonValue;

/// One task's execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its id.
    pub rollout_id: RolloutId,
    /// The task, as its creator gave it.
    pub input: JsonValue,
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
    /// Time-outs and retries.
    pub config: RolloutConfig,
    /// Free data; `name` is what `tracewire run --name` gave.
    pub metadata: JsonValue,
}

/// When a rollout's attempts are given up, and which are tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RolloutConfig {
    /// The longest an attempt may take.
    pub timeout_seconds: Option<f64>,
    /// The longest nothing may be heard from an attempt.
    pub unresponsive_seconds: Option<f64>,
    /// Attempts in all, at least 1.
    pub max_attempts: u64,
    /// Ends of an attempt after which there is another.
    pub retry_condition: Vec<AttemptStatus>,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self { timeout_seconds: None, unresponsive_seconds: None, max_attempts: 1, retry_condition: Vec::new() }
    }
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
    pub metadata: JsonValue,
}

/// A rollout with its latest attempt, if it has one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptedRollout {
    /// The rollout.
    #[serde(flatten)]
    pub rollout: Rollout,
    /// The attempt; not there, rather than null, where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
}

/// Somebody who works on rollouts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its id.
    pub worker_id: String,
    /// Its state.
    pub status: WorkerStatus,
    /// What it says of itself.
    pub heartbeat_stats: Option<JsonValue>,
    /// When it last said something of itself.
    pub last_heartbeat_time: Option<Timestamp>,
    /// When it last asked for a rollout.
    pub last_dequeue_time: Option<Timestamp>,
    /// When it last became busy.
    pub last_busy_time: Option<Timestamp>,
    /// When it last became idle.
    pub last_idle_time: Option<Timestamp>,
    /// What it works on.
    pub current_rollout_id: Option<RolloutId>,
    /// The attempt of that.
    pub current_attempt_id: Option<AttemptId>,
}

impl Worker {
    /// One of which nothing else is known.
    pub fn new(worker_id: &str) -> Self {
        Self {
            worker_id: worker_id.to_owned(),
            status: WorkerStatus::Unknown,
            heartbeat_stats: None,
            last_heartbeat_time: None,
            last_dequeue_time: None,
            last_busy_time: None,
            last_idle_time: None,
            current_rollout_id: None,
            current_attempt_id: None,
        }
    }
}

/// A worker's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are Agent Lightning's and say it all")]
pub enum WorkerStatus {
    Idle,
    Busy,
    Unknown,
}

/// A set of named resources that rollouts run with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResourcesUpdate {
    /// Its id.
    pub resources_id: String,
    /// When it was made.
    pub create_time: Timestamp,
    /// When it was last changed.
    pub update_time: Timestamp,
    /// 1, and one more with every change.
    pub version: u64,
    /// Resources by name, each with its `resource_type`.
    pub resources: JsonValue,
}

/// A rollout's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

impl RolloutStatus {
    /// True for states that end a rollout.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queuing => "queuing",
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Succeeded => "succeeded",
            Self::Cancelled => "cancelled",
            Self::Requeuing => "requeuing",
        }
    }
}

impl Rollout {
    /// A running rollout that began at `start_time`.
    pub fn running(rollout_id: RolloutId, start_time: Timestamp) -> Self {
        Self {
            rollout_id,
            input: JsonValue::Null,
            start_time,
            end_time: None,
            mode: None,
            resources_id: None,
            status: RolloutStatus::Running,
            config: RolloutConfig::default(),
            metadata: JsonValue::Object(serde_json::Map::default()),
        }
    }

    /// The name its creator gave it (`metadata.name`).
    pub fn name(&self) -> Option<&str> {
        self.metadata.get("name").and_then(JsonValue::as_str)
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
            metadata: JsonValue::Object(serde_json::Map::default()),
        }
    }
}
