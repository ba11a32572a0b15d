//! Agent Lightning 0.3: a queue of rollouts, attempts with statuses, rewards as spans.
//!
//! The end of an attempt moves its rollout on the server, which may put it into the queue again. The server decides that.

use super::task::{TakeError, Task, check_response, seconds};
use crate::cli::client::{ServerClient, ServerResponse, encoded};
use crate::cli::reward::send_reward_span;
use crate::trace::Timestamp;
use crate::trace::rollout::{AttemptStatus, RolloutStatus};
use anyhow::{Context, Result};
use http::Method;
use serde::Deserialize;
use serde_json::{Value as JsonValue, json};
use std::time::SystemTime;

pub(super) async fn take(server: &ServerClient, worker: &str) -> Result<Option<Task>, TakeError> {
    let request = json!({ "limit": 1, "worker_id": worker });
    let response = server.call(Method::POST, "/v1/agl/queues/rollouts/dequeue", Some(&request)).await;
    let response = response.map_err(TakeError::Retryable).and_then(check_response)?;
    let Some(rollout) = response.body.get(0) else { return Ok(None) };
    let task = parse_task(rollout)
        .context("the queue returned a rollout without an attempt; check that the server speaks Agent Lightning 0.3");
    let task = task.map_err(TakeError::Fatal)?;
    let running = json!({ "status": AttemptStatus::Running, "worker_id": worker, "last_heartbeat_time": now() });
    let started = server.call_with_retries(Method::POST, &attempt_path(&task), Some(&running)).await;
    match started.and_then(ServerResponse::into_success) {
        Ok(_) => Ok(Some(task)),
        Err(error) => {
            let lost = format!("rollout {} was taken, but its attempt cannot be started", task.rollout);
            Err(TakeError::TaskLost(error.context(lost)))
        }
    }
}

fn parse_task(rollout: &JsonValue) -> Option<Task> {
    Some(Task {
        rollout: rollout["rollout_id"].as_str()?.to_owned(),
        attempt: rollout["attempt"]["attempt_id"].as_str()?.to_owned(),
        input: rollout["input"].clone(),
        mode: rollout["mode"].as_str().map(str::to_owned),
        timeout: seconds(&rollout["config"]["timeout_seconds"]),
    })
}

pub(super) async fn heartbeat(server: &ServerClient, worker: &str, task: &Task, stats: &JsonValue) -> Option<String> {
    // The rollout comes first: on Agent Lightning's own server a heartbeat sets a cancelled rollout to running again.
    // A server that does not respond at the moment ends nothing.
    let rollout = server.call(Method::GET, &rollout_path(task), None).await.ok()?;
    if rollout.is_not_found() || (rollout.status.is_success() && rollout.body.is_null()) {
        return Some("the server no longer has the rollout".to_owned());
    }
    if let Some(status) = RolloutStatus::deserialize(&rollout.body["status"]).ok().filter(|status| status.is_final()) {
        return Some(format!("the rollout is {}", status.as_str()));
    }
    let path = format!("/v1/agl/workers/{}", encoded(worker));
    let (stats, alive) = (json!({ "heartbeat_stats": stats }), json!({ "last_heartbeat_time": now() }));
    // The worker's own heartbeat is information only; a failure changes nothing.
    let _ = server.call(Method::POST, &path, Some(&stats)).await;
    let attempt = server.call(Method::POST, &attempt_path(task), Some(&alive)).await.ok()?;
    if attempt.is_not_found() {
        return Some("the server no longer has the attempt".to_owned());
    }
    // An unresponsive attempt may become running again; these three may not.
    match AttemptStatus::deserialize(&attempt.body["status"]).ok()? {
        status @ (AttemptStatus::Timeout | AttemptStatus::Succeeded | AttemptStatus::Failed) => {
            Some(format!("the attempt is {}", status.as_str()))
        }
        AttemptStatus::Preparing | AttemptStatus::Running | AttemptStatus::Unresponsive => None,
    }
}

pub(super) async fn send_rewards(server: &ServerClient, task: &Task, rewards: &[(String, f64)]) -> Result<()> {
    send_reward_span(server, &task.rollout, &task.attempt, rewards).await.map(drop)
}

pub(super) async fn finish(server: &ServerClient, worker: &str, task: &Task, status: AttemptStatus) -> Result<()> {
    let change = json!({ "status": status, "worker_id": worker });
    server.call_with_retries(Method::POST, &attempt_path(task), Some(&change)).await?.into_success().map(drop)
}

fn rollout_path(task: &Task) -> String {
    format!("/v1/agl/rollouts/{}", encoded(&task.rollout))
}

fn attempt_path(task: &Task) -> String {
    format!("{}/attempts/{}", rollout_path(task), encoded(&task.attempt))
}

fn now() -> f64 {
    Timestamp::from(SystemTime::now()).unix_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_task_is_parsed_from_the_queues_response() {
        let mut rollout = json!({ "rollout_id": "ro/1", "input": { "q": 1 }, "mode": "val",
            "config": { "timeout_seconds": 1.5 }, "attempt": { "attempt_id": "at-1" } });
        let task = parse_task(&rollout).unwrap();
        assert_eq!((task.mode.as_deref(), task.timeout), (Some("val"), Some(Duration::from_millis(1500))));
        assert_eq!(attempt_path(&task), "/v1/agl/rollouts/ro%2F1/attempts/at-1");
        rollout["config"]["timeout_seconds"] = JsonValue::Null;
        rollout["mode"] = JsonValue::Null;
        let task = parse_task(&rollout).unwrap();
        assert_eq!((task.mode, task.timeout), (None, None));
        rollout["attempt"] = JsonValue::Null;
        assert_eq!(parse_task(&rollout), None);
    }
}
