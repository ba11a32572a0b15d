//! Agent Lightning 1.0: rollouts that are listed and claimed, one attempt each, rewards as events.
//!
//! Its server keeps no time: a rollout whose worker is gone stays running.

use super::process::End;
use super::source::{NoAnswer, Task, judge, seconds};
use crate::cli::client::{Answer, Server, encoded};
use anyhow::{Context, Result};
use http::{Method, StatusCode};
use serde_json::{Value as JsonValue, json};

pub(super) async fn take(server: &Server) -> Result<Option<Task>, NoAnswer> {
    let path = format!("/api/rollouts?state_in=queuing&limit={LOOKED_AT}");
    let listed = server.call(Method::GET, &path, None).await.map_err(NoAnswer::Later).and_then(judge)?;
    for waiting in listed.body.as_array().into_iter().flatten() {
        let Some(task) = task(waiting) else { continue };
        let claim = json!({ "status": { "state": "running", "last_attempt_id": ATTEMPT } });
        let claimed = server.call(Method::PATCH, &rollout(&task), Some(&claim)).await;
        // It is ours or not: nobody will say.
        let unclear = || format!("rollout {} was being claimed, and may stay running", task.rollout);
        let claimed = claimed.with_context(unclear).map_err(NoAnswer::Lost)?;
        // Somebody else has it, or it is gone.
        if matches!(claimed.status, StatusCode::CONFLICT | StatusCode::NOT_FOUND) {
            continue;
        }
        judge(claimed)?;
        return Ok(Some(task));
    }
    Ok(None)
}

fn task(rollout: &JsonValue) -> Option<Task> {
    let mode = if rollout["is_train"].as_bool().unwrap_or(true) { "train" } else { "val" };
    Some(Task {
        rollout: rollout["rollout_id"].as_str()?.to_owned(),
        attempt: ATTEMPT.to_owned(),
        input: rollout["input"].clone(),
        mode: Some(mode.to_owned()),
        timeout: seconds(&rollout["config"]["timeout_seconds"]),
    })
}

pub(super) async fn beat(server: &Server, task: &Task) -> Option<String> {
    let answer = server.call(Method::GET, &rollout(task), None).await.ok()?;
    if answer.is_missing() {
        return Some("the server does not know the rollout any more".to_owned());
    }
    match state(&answer) {
        Some(state @ ("succeeded" | "failed")) => Some(format!("the rollout is {state}")),
        _ => None,
    }
}

/// One event: trainers go by the last one's value.
pub(super) async fn reward(server: &Server, task: &Task, rewards: &[(String, f64)]) -> Result<()> {
    let Some((_, value)) = rewards.first() else { return Ok(()) };
    let mut data = json!({ "value": value, "source": "agent" });
    if rewards.len() > 1 {
        data["rewards"] = JsonValue::Object(rewards.iter().map(|(name, value)| (name.clone(), json!(value))).collect());
    }
    let path = format!("{}/attempt/{ATTEMPT}/events", rollout(task));
    let event = json!({ "event_type": "reward", "data": data });
    server.deliver(Method::POST, &path, Some(&event)).await?.success().map(drop)
}

pub(super) async fn finish(server: &Server, task: &Task, end: &End) -> Result<()> {
    let wanted = if end.is_success() { "succeeded" } else { "failed" };
    let mut status = json!({ "state": wanted });
    if let Some(problem) = end.problem() {
        status["error_message"] = problem.into();
    }
    let path = rollout(task);
    let answer = server.deliver(Method::PATCH, &path, Some(&json!({ "status": status }))).await?;
    if answer.status != StatusCode::CONFLICT {
        return answer.success().map(drop);
    }
    // What was done for an answer that got lost can't be done again.
    let now = server.deliver(Method::GET, &path, None).await?;
    if state(&now) == Some(wanted) { Ok(()) } else { answer.success().map(drop) }
}

fn state(answer: &Answer) -> Option<&str> {
    answer.body["rollout"]["status"]["state"].as_str()
}

fn rollout(task: &Task) -> String {
    format!("/api/rollouts/{}", encoded(&task.rollout))
}

/// The one attempt that a rollout has.
const ATTEMPT: &str = "0";
/// Rollouts looked at to claim one: others may be at the first ones too.
const LOOKED_AT: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_task_is_read_from_the_list() {
        let read = task(&json!({ "rollout_id": "r1", "input": "x", "is_train": false,
            "config": { "timeout_seconds": 3600 }, "status": { "state": "queuing" } }));
        let read = read.unwrap();
        assert_eq!((read.attempt.as_str(), read.mode.as_deref()), ("0", Some("val")));
        assert_eq!((read.input, read.timeout), (json!("x"), Some(Duration::from_secs(3600))));
        assert_eq!(task(&json!({ "input": 1 })), None);
    }
}
