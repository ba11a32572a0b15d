//! A task of the worker, independent of the protocol that it came by, and why none could be taken.

use crate::cli::client::ServerResponse;
use anyhow::Context;
use serde_json::Value as JsonValue;
use std::time::Duration;

/// A rollout and attempt that this worker has taken and must run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Task {
    pub(super) rollout: String,
    pub(super) attempt: String,
    pub(super) input: JsonValue,
    /// `train`, `val`, `test`, or another word of the server; `None` if the rollout has no mode.
    pub(super) mode: Option<String>,
    /// The rollout's own time limit; `--timeout` takes precedence.
    pub(super) timeout: Option<Duration>,
}

/// Why no task could be taken.
pub(super) enum TakeError {
    /// A later request may succeed.
    Retryable(anyhow::Error),
    /// No later request will succeed: the worker must stop.
    Fatal(anyhow::Error),
    /// A later request may succeed, but a rollout was taken that this worker cannot run.
    TaskLost(anyhow::Error),
}

/// The response to a request for a task, if it is a success.
pub(super) fn check_response(response: ServerResponse) -> Result<ServerResponse, TakeError> {
    if response.is_retryable() {
        return Err(TakeError::Retryable(anyhow::Error::msg(response.summary())));
    }
    response.into_success().context("cannot take rollouts").map_err(TakeError::Fatal)
}

/// A JSON number of seconds as a duration; `None` if it is not a positive number.
pub(super) fn seconds(json: &JsonValue) -> Option<Duration> {
    let duration = Duration::try_from_secs_f64(json.as_f64()?).ok()?;
    (!duration.is_zero()).then_some(duration)
}
