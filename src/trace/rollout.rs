//! Rollouts, attempts, workers and resources, with the fields and states of Agent Lightning 0.3 (`agentlightning/types`).
//!
//! Data only: `crate::rollout` contains the state machine.

use super::ids::{AttemptId, RolloutId};
use super::units::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value as JsonValue;
use utoipa::ToSchema;

/// One execution of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rollout {
    /// Unique within a store.
    pub rollout_id: RolloutId,
    /// The task: any JSON, stored unchanged.
    pub input: JsonValue,
    /// Time of creation. Listings are in this order.
    pub start_time: Timestamp,
    /// Time at which the rollout reached a final state. `None` while it is in another state.
    pub end_time: Option<Timestamp>,
    /// `train`, `val`, `test`, or `None`.
    pub mode: Option<String>,
    /// The [`ResourcesUpdate`] that the rollout runs with. `None` if no resources existed when it was created.
    pub resources_id: Option<String>,
    /// Current state, set by `crate::rollout::lifecycle`.
    pub status: RolloutStatus,
    /// Timeouts and retries of its attempts.
    pub config: RolloutConfig,
    /// Any JSON object. Key `name` holds the argument of `tracewire run --name`.
    pub metadata: JsonValue,
}

/// Timeouts and retries of a rollout's attempts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct RolloutConfig {
    /// Maximum duration of an attempt. `None`: unlimited.
    pub timeout_seconds: Option<f64>,
    /// Maximum time between two spans or heartbeats of an attempt. `None`: unlimited.
    pub unresponsive_seconds: Option<f64>,
    /// Maximum number of attempts, including the first; at least 1.
    pub max_attempts: u64,
    /// Attempt states after which the rollout is queued again, up to `max_attempts`.
    pub retry_condition: Vec<AttemptStatus>,
}

impl RolloutConfig {
    /// True if an attempt can exceed a limit as time passes, so that it must be checked periodically.
    pub fn has_deadline(&self) -> bool {
        self.timeout_seconds.is_some() || self.unresponsive_seconds.is_some()
    }
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self { timeout_seconds: None, unresponsive_seconds: None, max_attempts: 1, retry_condition: Vec::new() }
    }
}

/// One try of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// The rollout that it belongs to.
    pub rollout_id: RolloutId,
    /// Unique within the rollout.
    pub attempt_id: AttemptId,
    /// 1 for the first try, assigned by the store. 0 for an attempt that only spans name although the rollout has started
    /// attempts: it is never the latest.
    pub sequence_id: u64,
    /// Time at which the attempt was started, or start time of its first span.
    pub start_time: Timestamp,
    /// Time at which the attempt succeeded or failed.
    pub end_time: Option<Timestamp>,
    /// Current state, set by `crate::rollout::lifecycle`.
    pub status: AttemptStatus,
    /// The [`Worker`] that executes the attempt. `None` if no runner has claimed it.
    pub worker_id: Option<String>,
    /// Time at which its last span was stored, or the last heartbeat that a runner reported.
    pub last_heartbeat_time: Option<Timestamp>,
    /// Any JSON object, or null.
    pub metadata: JsonValue,
}

/// Position of an attempt among the attempts of its rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptPosition {
    /// It has the highest sequence id: the state of the rollout follows it.
    Latest,
    /// A later attempt exists.
    Earlier,
}

/// Of which attempts of a rollout spans are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptScope {
    /// Of the one with the highest sequence id.
    Latest,
    /// Of all of them.
    All,
}

/// A rollout with its latest attempt.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct AttemptedRollout {
    /// Its fields are at the top level of the JSON.
    #[serde(flatten)]
    pub rollout: Rollout,
    /// The attempt with the highest sequence id. `None` if the rollout has no attempts; its key is then absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
}

/// A process that executes rollouts. Agent Lightning calls it a runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Chosen by the worker.
    pub worker_id: String,
    /// Derived from the attempt that the worker executes.
    pub status: WorkerStatus,
    /// Statistics of the last heartbeat, as the worker sent them. `None` before the first.
    pub heartbeat_stats: Option<JsonValue>,
    /// Time of the last heartbeat.
    pub last_heartbeat_time: Option<Timestamp>,
    /// Time of the last request for a rollout.
    pub last_dequeue_time: Option<Timestamp>,
    /// Time at which the worker last became busy.
    pub last_busy_time: Option<Timestamp>,
    /// Time at which the worker last became idle.
    pub last_idle_time: Option<Timestamp>,
    /// The rollout that it executes. `None` while it is idle.
    pub current_rollout_id: Option<RolloutId>,
    /// The attempt that it executes. `None` while it is idle.
    pub current_attempt_id: Option<AttemptId>,
}

impl Worker {
    /// A worker in state [`WorkerStatus::Unknown`], without any times.
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

/// States of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are Agent Lightning's and need no explanation")]
pub enum WorkerStatus {
    Idle,
    Busy,
    Unknown,
}

/// A set of named resources, such as prompts and model endpoints, that rollouts run with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResourcesUpdate {
    /// Unique within a store.
    pub resources_id: String,
    /// Time at which version 1 was stored.
    pub create_time: Timestamp,
    /// Time at which this version was stored.
    pub update_time: Timestamp,
    /// 1 for the first version; each update adds 1.
    pub version: u64,
    /// Resources by name, each an object with a `resource_type`.
    pub resources: JsonValue,
}

/// States of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are Agent Lightning's and need no explanation")]
pub enum RolloutStatus {
    Queuing,
    Preparing,
    Running,
    Failed,
    Succeeded,
    Cancelled,
    Requeuing,
}

/// States of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are Agent Lightning's and need no explanation")]
pub enum AttemptStatus {
    Preparing,
    Running,
    Failed,
    Succeeded,
    Unresponsive,
    Timeout,
}

impl AttemptStatus {
    /// The status as stored and as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Succeeded => "succeeded",
            Self::Unresponsive => "unresponsive",
            Self::Timeout => "timeout",
        }
    }
}

impl RolloutStatus {
    /// Every status that a rollout may have.
    pub const ALL: [Self; 7] = [
        Self::Queuing,
        Self::Preparing,
        Self::Running,
        Self::Failed,
        Self::Succeeded,
        Self::Cancelled,
        Self::Requeuing,
    ];

    /// True for the states in which a rollout has ended. All other code and the stores' SQL ask here.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// True for the states in which an attempt is being executed.
    pub fn is_in_progress(self) -> bool {
        matches!(self, Self::Preparing | Self::Running)
    }

    /// The state's name in JSON and in SQL.
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
    /// A running rollout without input, as the store creates it for a span of an unregistered rollout.
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

    /// `metadata.name`, if it is a string.
    pub fn name(&self) -> Option<&str> {
        self.metadata.get("name").and_then(JsonValue::as_str)
    }
}

/// What a rollout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are Agent Lightning's and say it all")]
pub enum RolloutMode {
    Train,
    Val,
    Test,
}

impl RolloutMode {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

/// Spans of an attempt that the limits of the store have removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PrunedSpans {
    /// All of them.
    pub(crate) spans: u64,
    /// Those of LLM calls.
    pub(crate) llm_calls: u64,
}

const PRUNED_SPANS: &str = "tracewire.pruned.spans";
const PRUNED_LLM_CALLS: &str = "tracewire.pruned.llm_calls";

impl Attempt {
    /// Adds spans that limits have removed. The numbers are in the metadata, so that every reader of the attempt sees them.
    pub(crate) fn add_pruned(&mut self, more: PrunedSpans) {
        let known = self.pruned();
        if !self.metadata.is_object() {
            self.metadata = JsonValue::Object(serde_json::Map::default());
        }
        if let Some(metadata) = self.metadata.as_object_mut() {
            metadata.insert(PRUNED_SPANS.to_owned(), known.spans.saturating_add(more.spans).into());
            metadata.insert(PRUNED_LLM_CALLS.to_owned(), known.llm_calls.saturating_add(more.llm_calls).into());
        }
    }

    /// Replaces the metadata, but not the numbers of [`Self::add_pruned`].
    pub(crate) fn replace_metadata(&mut self, mut new: serde_json::Map<String, JsonValue>) {
        for name in [PRUNED_SPANS, PRUNED_LLM_CALLS] {
            match self.metadata.get(name) {
                Some(number) => new.insert(name.to_owned(), number.clone()),
                // It may be copied from another attempt.
                None => new.remove(name),
            };
        }
        self.metadata = JsonValue::Object(new);
    }

    /// The spans that limits have removed.
    pub(crate) fn pruned(&self) -> PrunedSpans {
        let count = |name: &str| self.metadata.get(name).and_then(JsonValue::as_u64).unwrap_or(0);
        PrunedSpans { spans: count(PRUNED_SPANS), llm_calls: count(PRUNED_LLM_CALLS) }
    }

    /// A running attempt. The store replaces its sequence id when it adds the attempt.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_states_are_those_of_their_json() {
        for status in RolloutStatus::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }
}
