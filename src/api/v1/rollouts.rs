//! Rollouts as version 1.0 has them: four states, a version that counts changes, and a log of those that ended.

use super::shapes::{Change, Config, Known, New, Seconds, Status, StatusChange};
use crate::api::agent_lightning::{Answer, Refusal, created, ok, read};
use crate::api::state::ApiState;
use crate::rollout::{RolloutError, lifecycle};
use crate::store::{Records, RolloutFilter};
use crate::trace::{Attempt, AttemptStatus, Rollout, RolloutConfig, RolloutId, RolloutStatus, Timestamp};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use bytes::Bytes;
use serde_json::{Map, Value as JsonValue, json};
use std::collections::HashSet;
use std::time::Duration;

/// `POST /api/rollouts`
pub(super) async fn create(State(state): State<ApiState>, body: Bytes) -> Answer {
    let new: Vec<New> = read(&body)?;
    let mut made = HashSet::new();
    for id in new.iter().filter_map(|new| new.rollout_id.as_deref()) {
        if is_registered(&state, id).await? {
            made.insert(RolloutId::from(id));
        }
    }
    let stored = state.rollouts.transact(move |records, now| {
        let mut stored = Vec::with_capacity(new.len());
        for (place, new) in (0..).zip(&new) {
            let id = RolloutId::from(new.rollout_id.clone().unwrap_or_else(random_id).as_str());
            // One that only a call has named is nobody's yet.
            let is_made = |known: &Rollout| made.contains(&id) || known.metadata.get(KEY).is_some();
            if let Some(known) = records.rollout(&id)?.filter(is_made) {
                stored.push(known);
                continue;
            }
            // Listings are in the order of their start.
            let rollout = rollout_of(new, id, now.after(Duration::from_nanos(place)));
            records.upsert_rollout(&rollout)?;
            records.enqueue(&rollout.rollout_id)?;
            stored.push(rollout);
        }
        Ok(stored)
    });
    created(stored.await?.iter().map(shown).collect::<Vec<_>>())
}

fn rollout_of(new: &New, id: RolloutId, now: Timestamp) -> Rollout {
    let mut metadata = serde_json::to_value(new.metadata.clone().unwrap_or_default()).unwrap_or_default();
    let known = Known {
        config: serde_json::to_value(new.config.clone().unwrap_or_default()).unwrap_or_default(),
        status: Status { k8s_job_name: None, last_attempt_id: None, error_message: None, version: 1, updated_at: now },
    };
    metadata[KEY] = serde_json::to_value(known).unwrap_or_default();
    Rollout {
        rollout_id: id,
        input: new.input.clone(),
        start_time: now,
        end_time: None,
        mode: Some(if new.is_train { "train" } else { "val" }.to_owned()),
        resources_id: None,
        status: RolloutStatus::Queuing,
        // Time-outs are the controllers' business in this version.
        config: RolloutConfig::default(),
        metadata,
    }
}

fn random_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// `GET /api/rollouts`
pub(super) async fn list(State(state): State<ApiState>, RawQuery(query): RawQuery) -> Answer {
    let query = query.unwrap_or_default();
    let mut statuses = Vec::new();
    for (_, word) in pairs(&query).filter(|(name, _)| name == "state_in") {
        statuses.extend_from_slice(statuses_of(&word).ok_or_else(|| schema("query", "state_in", STATES))?);
    }
    if statuses.is_empty() {
        return Err(schema("query", "state_in", "Field required"));
    }
    let limit = usize::try_from(number(&query, "limit")?.unwrap_or(500)).unwrap_or(0);
    let filter = RolloutFilter { ids: None, statuses: Some(statuses) };
    let found = state.rollouts.store().attempted_rollouts(filter).await?;
    let mut list = Vec::new();
    for rollout in found.iter().map(|found| &found.rollout) {
        // Others are named by their calls only, and never end.
        let is_made = rollout.metadata.get(KEY).is_some() || is_registered(&state, rollout.rollout_id.as_str()).await?;
        if is_made && list.len() < limit {
            list.push(shown(rollout));
        }
    }
    ok(list)
}

/// `GET /api/rollouts/terminal`
pub(super) async fn terminal(State(state): State<ApiState>, RawQuery(query): RawQuery) -> Answer {
    let query = query.unwrap_or_default();
    let after = u64::try_from(number(&query, "after")?.unwrap_or(0)).unwrap_or(0);
    let limit = usize::try_from(number(&query, "limit")?.unwrap_or(1000)).unwrap_or(1).max(1);
    let page = state.rollouts.store().ended_rollouts(after, limit).await?;
    let filter = RolloutFilter { ids: Some(page.ids.clone()), statuses: None };
    let found = state.rollouts.store().attempted_rollouts(filter).await?;
    let items = page.ids.iter().filter_map(|id| {
        // One that was deleted is passed over.
        let rollout = &found.iter().find(|found| found.rollout.rollout_id == *id)?.rollout;
        let data_id = ["data_id", "instance_id"].iter().find_map(|name| rollout.input.get(name).filter(|id| says(id)));
        let data_id = data_id.map_or_else(String::new, |id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
        let is_train = is_train(rollout);
        Some(json!({ "rollout_id": id, "state": state_of(rollout.status), "data_id": data_id, "is_train": is_train }))
    });
    let next_after = after + page.ids.len() as u64;
    ok(json!({ "items": items.collect::<Vec<_>>(), "next_after": next_after, "total_terminal": page.total }))
}

/// `GET /api/rollouts/{rollout}`
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> Answer {
    let rollout = known(&state, &id).await?;
    let attempts = attempts_with_events(&state, &rollout.rollout_id).await?;
    ok(json!({ "rollout": shown(&rollout), "attempts": attempts }))
}

/// The rollout of this id.
pub(super) async fn known(state: &ApiState, id: &str) -> Answer<Rollout> {
    let found = if is_registered(state, id).await? { state.rollouts.store().rollout(id.into()).await? } else { None };
    found.ok_or_else(|| Refusal::Absent(not_found(id)))
}

fn not_found(id: &str) -> String {
    format!("Rollout not found: {id}")
}

/// True for a rollout that somebody made, here or by another API.
async fn is_registered(state: &ApiState, id: &str) -> Answer<bool> {
    Ok(state.rollouts.store().sequence_state(id.into()).await?.registered)
}

/// The attempts with events, by the time of their first. An attempt that a controller only named has none until its first
/// heartbeat. Trainers request this often, so no span is read.
async fn attempts_with_events(state: &ApiState, rollout: &RolloutId) -> Answer<Vec<String>> {
    let mut attempts = state.rollouts.store().attempts(rollout.clone()).await?;
    attempts.retain(|attempt| attempt.metadata.get(KEY).is_none() || attempt.last_heartbeat_time.is_some());
    attempts.sort_by_key(|attempt| attempt.start_time);
    Ok(attempts.into_iter().map(|attempt| attempt.attempt_id.to_string()).collect())
}

/// The attempt whose events are a rollout's: that which a controller named last.
pub(super) fn last_attempt(rollout: &Rollout) -> Option<String> {
    known_of(rollout).status.last_attempt_id
}

/// `PATCH /api/rollouts/{rollout}`
pub(super) async fn change(State(state): State<ApiState>, Path(id): Path<String>, body: Bytes) -> Answer {
    known(&state, &id).await?;
    let Change { status } = read(&body)?;
    // Without it nothing changes.
    let change = status.unwrap_or_default();
    let to = match &change.state {
        Some(Some(word)) => Some(statuses_of(word).ok_or_else(|| schema("body", "status", STATES))?),
        _ => None,
    };
    let explicit_null = change.state == Some(None);
    let changed = state.rollouts.transact(move |records, now| {
        let id = RolloutId::from(id.as_str());
        let Some(mut rollout) = records.rollout(&id)? else { return Ok(Err(Refusal::Absent(not_found(id.as_str())))) };
        let from = state_of(rollout.status);
        if to.is_some() || explicit_null {
            let word = change.state.clone().flatten().unwrap_or_else(|| "None".to_owned());
            if !may_become(from, &word) {
                let text = format!("Rollout {id}: cannot transition {from} -> {word}");
                return Ok(Err(Refusal::Conflict(text)));
            }
        }
        let mut known = known_of(&rollout);
        let StatusChange { state, k8s_job_name, last_attempt_id, error_message } = change.clone();
        let effective =
            state.is_some() || k8s_job_name.is_some() || last_attempt_id.is_some() || error_message.is_some();
        if !effective {
            return Ok(Ok(rollout));
        }
        let status = &mut known.status;
        status.k8s_job_name = k8s_job_name.unwrap_or(status.k8s_job_name.take());
        status.last_attempt_id = last_attempt_id.unwrap_or(status.last_attempt_id.take());
        status.error_message = error_message.unwrap_or(status.error_message.take());
        (status.version, status.updated_at) = (status.version + 1, now);
        let attempt = status.last_attempt_id.clone();
        if let JsonValue::Object(metadata) = &mut rollout.metadata {
            metadata.insert(KEY.to_owned(), serde_json::to_value(known).unwrap_or_default());
        }
        if let Some(to) = to.and_then(<[RolloutStatus]>::first) {
            // Nobody takes from the queue what has left it.
            lifecycle::set_rollout_status(&mut rollout, *to, now);
        }
        records.upsert_rollout(&rollout)?;
        if let Some(attempt) = attempt {
            follow(records, &rollout, &attempt, now)?;
        }
        Ok(Ok(rollout))
    });
    ok(shown(&changed.await??))
}

/// The attempt that a controller names is one of the rollout's, and ends with it.
fn follow(records: &mut dyn Records, rollout: &Rollout, attempt: &str, now: Timestamp) -> Result<(), RolloutError> {
    let (rollout_id, attempt_id) = (rollout.rollout_id.clone(), attempt.into());
    let known = records.attempt(&rollout_id, &attempt_id)?;
    let mut attempt = known.unwrap_or_else(|| Attempt::running(rollout_id, attempt_id, now));
    match rollout.status {
        RolloutStatus::Succeeded => lifecycle::set_attempt_status(&mut attempt, AttemptStatus::Succeeded, now),
        RolloutStatus::Failed => lifecycle::set_attempt_status(&mut attempt, AttemptStatus::Failed, now),
        _ => {}
    }
    // What was only named has no events yet.
    if attempt.metadata.as_object().is_none_or(Map::is_empty) && attempt.last_heartbeat_time.is_none() {
        attempt.metadata = json!({ KEY: { "named": true } });
    }
    records.upsert_attempt(attempt)?;
    Ok(())
}

/// `DELETE /api/rollouts/{rollout}`
pub(super) async fn remove(State(state): State<ApiState>, Path(id): Path<String>) -> Answer {
    state.rollouts.remove(id.as_str().into()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A rollout as this API shows it.
fn shown(rollout: &Rollout) -> JsonValue {
    let Known { config, status } = known_of(rollout);
    let mut metadata = rollout.metadata.as_object().cloned().unwrap_or_default();
    metadata.remove(KEY);
    for name in ["batch_idx", "sample_idx_in_batch"] {
        metadata.entry(name).or_insert(JsonValue::Null);
    }
    json!({
        "rollout_id": rollout.rollout_id,
        "input": rollout.input,
        "is_train": is_train(rollout),
        "config": config,
        "metadata": metadata,
        "status": {
            "state": state_of(rollout.status),
            "k8s_job_name": status.k8s_job_name,
            "last_attempt_id": status.last_attempt_id,
            "error_message": status.error_message,
            "version": status.version,
            "created_at": rollout.start_time,
            "updated_at": status.updated_at,
        },
    })
}

/// What this API knows of a rollout; of one that was made elsewhere, what can be said.
fn known_of(rollout: &Rollout) -> Known {
    let stored = rollout.metadata.get(KEY).and_then(|known| serde_json::from_value(known.clone()).ok());
    stored.unwrap_or_else(|| {
        let seconds = rollout.config.timeout_seconds.map_or(Seconds::default(), |seconds| Seconds(seconds as i64));
        let config = Config { timeout_seconds: seconds, ..Config::default() };
        Known {
            config: serde_json::to_value(config).unwrap_or_default(),
            status: Status {
                k8s_job_name: None,
                last_attempt_id: None,
                error_message: None,
                version: 1,
                updated_at: rollout.end_time.unwrap_or(rollout.start_time),
            },
        }
    })
}

fn is_train(rollout: &Rollout) -> bool {
    rollout.mode.as_deref().is_none_or(|mode| mode == "train")
}

/// This API's word for a state.
fn state_of(status: RolloutStatus) -> &'static str {
    match status {
        RolloutStatus::Queuing | RolloutStatus::Requeuing => "queuing",
        RolloutStatus::Preparing | RolloutStatus::Running => "running",
        RolloutStatus::Succeeded => "succeeded",
        RolloutStatus::Failed | RolloutStatus::Cancelled => "failed",
    }
}

/// What a word of this API means; a rollout that is moved gets the first.
fn statuses_of(word: &str) -> Option<&'static [RolloutStatus]> {
    use RolloutStatus::{Cancelled, Failed, Preparing, Queuing, Requeuing, Running, Succeeded};
    Some(match word {
        "queuing" => &[Queuing, Requeuing],
        "running" => &[Running, Preparing],
        "succeeded" => &[Succeeded],
        "failed" => &[Failed, Cancelled],
        _ => return None,
    })
}

/// False for what is nothing, empty or zero.
fn says(value: &JsonValue) -> bool {
    !matches!(value, JsonValue::Null | JsonValue::Bool(false))
        && value.as_f64() != Some(0.0)
        && value.as_str() != Some("")
}

fn may_become(from: &str, to: &str) -> bool {
    matches!((from, to), ("queuing", "running" | "failed") | ("running", "succeeded" | "failed"))
}

fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    form_urlencoded::parse(query.as_bytes()).into_owned()
}

/// A value of the query.
pub(super) fn text(query: &str, name: &str) -> Option<String> {
    pairs(query).find(|(key, _)| key == name).map(|(_, value)| value)
}

fn number(query: &str, name: &str) -> Answer<Option<i64>> {
    let unread = || schema("query", name, "Input should be a valid integer, unable to parse string as an integer");
    text(query, name).map(|value| value.parse().map_err(|_| unread())).transpose()
}

fn schema(place: &str, name: &str, message: &str) -> Refusal {
    Refusal::Schema { place: vec![place.to_owned(), name.to_owned()], message: message.to_owned() }
}

const STATES: &str = "Input should be 'queuing', 'running', 'succeeded' or 'failed'";
/// Where in a rollout's metadata this API keeps what only it knows.
pub(super) const KEY: &str = "agentlightning_v1";
