//! Agent Lightning 0.3: a queue of rollouts, attempts with states, rewards as spans.
//!
//! An attempt's end moves its rollout on the server, and may put it into the queue again: that is not decided here.

use super::process::End;
use super::source::{NoAnswer, Task, judge, seconds};
use crate::cli::client::{Answer, Server, encoded};
use crate::cli::reward::annotate;
use crate::trace::Timestamp;
use anyhow::{Context, Result};
use http::Method;
use serde_json::{Value as JsonValue, json};
use std::time::SystemTime;

pub(super) async fn take(server: &Server, worker: &str) -> Result<Option<Task>, NoAnswer> {
    let wanted = json!({ "limit": 1, "worker_id": worker });
    let answer = server.call(Method::POST, "/v1/agl/queues/rollouts/dequeue", Some(&wanted)).await;
    let answer = answer.map_err(NoAnswer::Later).and_then(judge)?;
    let Some(rollout) = answer.body.get(0) else { return Ok(None) };
    let task = task(rollout).context("the queue gave no rollout with an attempt; is it Agent Lightning 0.3?");
    let task = task.map_err(NoAnswer::Never)?;
    let running = json!({ "status": "running", "worker_id": worker, "last_heartbeat_time": now() });
    let told = server.deliver(Method::POST, &attempt(&task), Some(&running)).await.and_then(Answer::success);
    match told {
        Ok(_) => Ok(Some(task)),
        Err(error) => {
            let lost = format!("rollout {} was taken and can't be begun", task.rollout);
            Err(NoAnswer::Lost(error.context(lost)))
        }
    }
}

fn task(rollout: &JsonValue) -> Option<Task> {
    Some(Task {
        rollout: rollout["rollout_id"].as_str()?.to_owned(),
        attempt: rollout["attempt"]["attempt_id"].as_str()?.to_owned(),
        input: rollout["input"].clone(),
        mode: rollout["mode"].as_str().map(str::to_owned),
        timeout: seconds(&rollout["config"]["timeout_seconds"]),
    })
}

pub(super) async fn beat(server: &Server, worker: &str, task: &Task, stats: &JsonValue) -> Option<String> {
    // First of all: at Agent Lightning's own server a heartbeat makes a cancelled rollout run again. A server that
    // does not answer now ends nothing.
    let rollout = server.call(Method::GET, &rollout(task), None).await.ok()?;
    if rollout.is_missing() || (rollout.status.is_success() && rollout.body.is_null()) {
        return Some("the server does not know the rollout any more".to_owned());
    }
    if let Some(status @ ("cancelled" | "succeeded" | "failed")) = rollout.body["status"].as_str() {
        return Some(format!("the rollout is {status}"));
    }
    let path = format!("/v1/agl/workers/{}", encoded(worker));
    let (stats, alive) = (json!({ "heartbeat_stats": stats }), json!({ "last_heartbeat_time": now() }));
    // A worker's own heartbeat only informs people.
    let _ = server.call(Method::POST, &path, Some(&stats)).await;
    let beaten = server.call(Method::POST, &attempt(task), Some(&alive)).await.ok()?;
    if beaten.is_missing() {
        return Some("the server does not know the attempt any more".to_owned());
    }
    // An unresponsive one may come back, the others may not.
    match beaten.body["status"].as_str() {
        Some(status @ ("timeout" | "succeeded" | "failed")) => Some(format!("the attempt is {status}")),
        _ => None,
    }
}

pub(super) async fn reward(server: &Server, task: &Task, rewards: &[(String, f64)]) -> Result<()> {
    annotate(server, &task.rollout, &task.attempt, rewards).await.map(drop)
}

pub(super) async fn finish(server: &Server, worker: &str, task: &Task, end: &End) -> Result<()> {
    let change = json!({ "status": end.status(), "worker_id": worker });
    server.deliver(Method::POST, &attempt(task), Some(&change)).await?.success().map(drop)
}

fn rollout(task: &Task) -> String {
    format!("/v1/agl/rollouts/{}", encoded(&task.rollout))
}

fn attempt(task: &Task) -> String {
    format!("{}/attempts/{}", rollout(task), encoded(&task.attempt))
}

fn now() -> f64 {
    Timestamp::from(SystemTime::now()).unix_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_task_is_read_from_what_the_queue_gives() {
        let mut rollout = json!({ "rollout_id": "ro/1", "input": { "q": 1 }, "mode": "val",
            "config": { "timeout_seconds": 1.5 }, "attempt": { "attempt_id": "at-1" } });
        let read = task(&rollout).unwrap();
        assert_eq!((read.mode.as_deref(), read.timeout), (Some("val"), Some(Duration::from_millis(1500))));
        assert_eq!(attempt(&read), "/v1/agl/rollouts/ro%2F1/attempts/at-1");
        rollout["config"]["timeout_seconds"] = JsonValue::Null;
        rollout["mode"] = JsonValue::Null;
        let read = task(&rollout).unwrap();
        assert_eq!((read.mode, read.timeout), (None, None));
        rollout["attempt"] = JsonValue::Null;
        assert_eq!(task(&rollout), None);
    }
}
