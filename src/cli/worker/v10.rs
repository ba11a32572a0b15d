//! Agent Lightning 1.0: rollouts that are listed and claimed, one attempt each, rewards as events.
//!
//! Its server has no timeouts: a rollout stays running if its worker has died.

use super::process::TaskOutcome;
use super::task::{TakeError, Task, check_response, seconds};
use crate::cli::client::{ServerClient, ServerResponse, encoded};
use crate::trace::rollout::RolloutStatus;
use anyhow::{Context, Result};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value as JsonValue, json};

pub(super) async fn take(server: &ServerClient) -> Result<Option<Task>, TakeError> {
    let path = format!("/api/rollouts?state_in=queuing&limit={MAX_LISTED}");
    let listed = server.call(Method::GET, &path, None).await.map_err(TakeError::Retryable).and_then(check_response)?;
    for rollout in listed.body.as_array().into_iter().flatten() {
        let Some(task) = parse_task(rollout) else { continue };
        let claim = json!({ "status": { "state": RolloutStatus::Running, "last_attempt_id": ATTEMPT } });
        let claimed = server.call(Method::PATCH, &rollout_path(&task), Some(&claim)).await;
        // Without a response it is unknown whether the server has assigned the rollout.
        let unknown =
            || format!("no response to the claim of rollout {}, which may stay running on the server", task.rollout);
        let claimed = claimed.with_context(unknown).map_err(TakeError::TaskLost)?;
        // Another worker has it, or it was deleted.
        if matches!(claimed.status, StatusCode::CONFLICT | StatusCode::NOT_FOUND) {
            continue;
        }
        check_response(claimed)?;
        return Ok(Some(task));
    }
    Ok(None)
}

fn parse_task(rollout: &JsonValue) -> Option<Task> {
    let mode = if rollout["is_train"].as_bool().unwrap_or(true) { "train" } else { "val" };
    Some(Task {
        rollout: rollout["rollout_id"].as_str()?.to_owned(),
        attempt: ATTEMPT.to_owned(),
        input: rollout["input"].clone(),
        mode: Some(mode.to_owned()),
        timeout: seconds(&rollout["config"]["timeout_seconds"]),
    })
}

pub(super) async fn heartbeat(server: &ServerClient, task: &Task) -> Option<String> {
    let rollout = server.call(Method::GET, &rollout_path(task), None).await.ok()?;
    if rollout.is_not_found() {
        return Some("the server no longer has the rollout".to_owned());
    }
    state(&rollout).filter(|state| state.is_final()).map(|state| format!("the rollout is {}", state.as_str()))
}

/// Sends one event: trainers use the last event's value.
pub(super) async fn send_rewards(server: &ServerClient, task: &Task, rewards: &[(String, f64)]) -> Result<()> {
    let Some((_, value)) = rewards.first() else { return Ok(()) };
    let mut data = json!({ "value": value, "source": "agent" });
    if rewards.len() > 1 {
        data["rewards"] = JsonValue::Object(rewards.iter().map(|(name, value)| (name.clone(), json!(value))).collect());
    }
    let path = format!("{}/attempt/{ATTEMPT}/events", rollout_path(task));
    let event = json!({ "event_type": "reward", "data": data });
    server.call_with_retries(Method::POST, &path, Some(&event)).await?.into_success().map(drop)
}

pub(super) async fn finish(server: &ServerClient, task: &Task, outcome: &TaskOutcome) -> Result<()> {
    let final_state = if outcome.is_success() { RolloutStatus::Succeeded } else { RolloutStatus::Failed };
    let mut status = json!({ "state": final_state });
    if let Some(problem) = outcome.problem() {
        status["error_message"] = problem.into();
    }
    let path = rollout_path(task);
    let response = server.call_with_retries(Method::PATCH, &path, Some(&json!({ "status": status }))).await?;
    if response.status != StatusCode::CONFLICT {
        return response.into_success().map(drop);
    }
    // A conflict also occurs when the server applied the change but its response was lost.
    let current = server.call_with_retries(Method::GET, &path, None).await?;
    if state(&current) == Some(final_state) { Ok(()) } else { response.into_success().map(drop) }
}

fn state(rollout: &ServerResponse) -> Option<RolloutStatus> {
    RolloutStatus::deserialize(&rollout.body["rollout"]["status"]["state"]).ok()
}

fn rollout_path(task: &Task) -> String {
    format!("/api/rollouts/{}", encoded(&task.rollout))
}

/// A rollout of this protocol has one attempt, with this id.
const ATTEMPT: &str = "0";
/// Rollouts listed in order to claim one: other workers may claim the first ones at the same time.
const MAX_LISTED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_task_is_parsed_from_the_list() {
        let task = parse_task(&json!({ "rollout_id": "r1", "input": "x", "is_train": false,
            "config": { "timeout_seconds": 3600 }, "status": { "state": "queuing" } }));
        let task = task.unwrap();
        assert_eq!((task.attempt.as_str(), task.mode.as_deref()), ("0", Some("val")));
        assert_eq!((task.input, task.timeout), (json!("x"), Some(Duration::from_secs(3600))));
        assert_eq!(parse_task(&json!({ "input": 1 })), None);
    }
}
