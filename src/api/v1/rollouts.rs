//! Rollouts of version 1.0: four states, a version that counts changes, and a log of those that ended.

use super::model::{
    METADATA_KEY, NewRolloutV1, RolloutChangeV1, RolloutConfigV1, RolloutView, StatusChange, StatusView, StoredFields,
    StoredStatus,
};
use super::query::{integer, parameters};
use super::status::{StateV1, UNKNOWN_STATE};
use crate::api::request_json::read;
use crate::api::respond::{ApiError, ApiResult, created, ok};
use crate::api::state::ApiState;
use crate::rollout::{RolloutError, lifecycle};
use crate::store::{Records, RolloutFilter};
use crate::trace::{Attempt, AttemptStatus, Rollout, RolloutConfig, RolloutId, RolloutStatus, Timestamp};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value as JsonValue, json};
use std::collections::HashSet;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// `POST /api/rollouts`
pub(super) async fn create(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    let new: Vec<NewRolloutV1> = read(&body)?;
    let mut registered = HashSet::new();
    for id in new.iter().filter_map(|new| new.rollout_id.as_deref()) {
        if is_registered(&state, id).await? {
            registered.insert(RolloutId::from(id));
        }
    }
    let stored = state.rollouts.transact(move |records, now| {
        let mut stored = Vec::with_capacity(new.len());
        for (place, new) in (0..).zip(&new) {
            let id = RolloutId::from(new.rollout_id.clone().unwrap_or_else(random_id).as_str());
            // A rollout that exists only because a call named it can still be created.
            let exists = |rollout: &Rollout| registered.contains(&id) || rollout.metadata.get(METADATA_KEY).is_some();
            if let Some(rollout) = records.rollout(&id)?.filter(exists) {
                stored.push(rollout);
                continue;
            }
            // Listings are in the order of start times.
            let rollout = rollout_of(new, id, now.after(Duration::from_nanos(place)));
            records.upsert_rollout(&rollout)?;
            records.enqueue(&rollout.rollout_id)?;
            stored.push(rollout);
        }
        Ok(stored)
    });
    created(stored.await?.iter().map(view).collect::<Vec<_>>())
}

fn rollout_of(new: &NewRolloutV1, id: RolloutId, now: Timestamp) -> Rollout {
    let mut metadata = serde_json::to_value(new.metadata.clone().unwrap_or_default()).unwrap_or_default();
    let config = serde_json::to_value(new.config.clone().unwrap_or_default()).unwrap_or_default();
    let fields = StoredFields { config, status: StoredStatus::unchanged_since(now) };
    metadata[METADATA_KEY] = serde_json::to_value(fields).unwrap_or_default();
    Rollout {
        rollout_id: id,
        input: new.input.clone(),
        start_time: now,
        end_time: None,
        mode: Some(if new.is_train { "train" } else { "val" }.to_owned()),
        resources_id: None,
        status: RolloutStatus::Queuing,
        // In this version the controllers apply timeouts.
        config: RolloutConfig::default(),
        metadata,
    }
}

fn random_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// The query of a listing.
#[derive(IntoParams)]
#[expect(dead_code, reason = "describes what `list` reads from the query by hand")]
pub(super) struct ListQuery {
    /// The states, at least one: `queuing`, `running`, `succeeded`, `failed`.
    state_in: Vec<String>,
    /// The most rollouts to return; 500 if absent.
    limit: Option<i64>,
}

/// `GET /api/rollouts`
pub(super) async fn list(State(state): State<ApiState>, RawQuery(query): RawQuery) -> ApiResult {
    let query = query.unwrap_or_default();
    let mut statuses = Vec::new();
    for (_, name) in parameters(&query).filter(|(name, _)| name == "state_in") {
        let state = StateV1::of_name(&name)
            .ok_or_else(|| ApiError::of_value(&["query", "state_in"], UNKNOWN_STATE, name.as_str()))?;
        statuses.extend_from_slice(state.statuses());
    }
    if statuses.is_empty() {
        return Err(ApiError::of_value(&["query", "state_in"], "Field required", JsonValue::Null));
    }
    let limit = usize::try_from(integer(&query, "limit")?.unwrap_or(500)).unwrap_or(0);
    let filter = RolloutFilter {
        // Rollouts that only calls have named are not listed: they never end.
        is_registered: Some(true),
        limit: Some(limit),
        ..RolloutFilter::of_statuses(statuses)
    };
    let found = state.rollouts.store().attempted_rollouts(filter).await?;
    ok(found.iter().map(|found| view(&found.rollout)).collect::<Vec<_>>())
}

/// The query of a page of the log.
#[derive(IntoParams)]
#[expect(dead_code, reason = "describes what `terminal` reads from the query by hand")]
pub(super) struct TerminalQuery {
    /// The `next_after` of the page before; 0 if absent.
    after: Option<i64>,
    /// The most entries to return; 1000 if absent.
    limit: Option<i64>,
}

/// A page of the log of ended rollouts.
#[derive(Serialize, ToSchema)]
pub(super) struct TerminalRollouts {
    items: Vec<TerminalRollout>,
    /// Where the next page starts.
    next_after: u64,
    /// Entries of the log, those of deleted rollouts included.
    total_terminal: u64,
}

#[derive(Serialize, ToSchema)]
struct TerminalRollout {
    rollout_id: String,
    /// `succeeded` or `failed`.
    state: &'static str,
    /// `data_id` or `instance_id` of the input; empty if it has neither.
    data_id: String,
    is_train: bool,
}

/// `GET /api/rollouts/terminal`
pub(super) async fn terminal(State(state): State<ApiState>, RawQuery(query): RawQuery) -> ApiResult {
    let query = query.unwrap_or_default();
    let after = u64::try_from(integer(&query, "after")?.unwrap_or(0)).unwrap_or(0);
    let limit = usize::try_from(integer(&query, "limit")?.unwrap_or(1000)).unwrap_or(1).max(1);
    let page = state.rollouts.store().ended_rollouts(after, limit).await?;
    let filter = RolloutFilter::of_ids(page.ids.clone());
    let found = state.rollouts.store().attempted_rollouts(filter).await?;
    let items = page.ids.iter().filter_map(|id| {
        // Deleted rollouts are skipped.
        let rollout = &found.iter().find(|found| found.rollout.rollout_id == *id)?.rollout;
        Some(TerminalRollout {
            rollout_id: id.to_string(),
            state: StateV1::of_status(rollout.status).as_str(),
            data_id: data_id(&rollout.input),
            is_train: is_train(rollout),
        })
    });
    let next_after = after + page.ids.len() as u64;
    ok(TerminalRollouts { items: items.collect(), next_after, total_terminal: page.total })
}

fn data_id(input: &JsonValue) -> String {
    let id = ["data_id", "instance_id"].iter().find_map(|name| input.get(name).filter(|id| is_truthy(id)));
    id.map_or_else(String::new, |id| id.as_str().map_or_else(|| id.to_string(), str::to_owned))
}

/// Python's idea of true, for scalars.
fn is_truthy(value: &JsonValue) -> bool {
    !matches!(value, JsonValue::Null | JsonValue::Bool(false))
        && value.as_f64() != Some(0.0)
        && value.as_str() != Some("")
}

/// A rollout, with the attempts that have events.
#[derive(Serialize, ToSchema)]
pub(super) struct RolloutWithAttempts {
    rollout: RolloutView,
    attempts: Vec<String>,
}

/// `GET /api/rollouts/{rollout}`
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> ApiResult {
    let rollout = registered(&state, &id).await?;
    let attempts = attempts_with_events(&state, &rollout.rollout_id).await?;
    ok(RolloutWithAttempts { rollout: view(&rollout), attempts })
}

/// The attempts that have events, by the time of the first. An attempt that a controller has only named has none until a
/// span or a heartbeat arrives. No span is read, because trainers poll this.
async fn attempts_with_events(state: &ApiState, rollout: &RolloutId) -> ApiResult<Vec<String>> {
    let mut attempts = state.rollouts.store().attempts(rollout.clone()).await?;
    attempts.retain(|attempt| attempt.metadata.get(METADATA_KEY).is_none() || attempt.last_heartbeat_time.is_some());
    attempts.sort_by_key(|attempt| attempt.start_time);
    Ok(attempts.into_iter().map(|attempt| attempt.attempt_id.to_string()).collect())
}

/// The rollout with this id, if it was created by any API. Rollouts that only spans have named are not found.
pub(super) async fn registered(state: &ApiState, id: &str) -> ApiResult<Rollout> {
    let found = if is_registered(state, id).await? { state.rollouts.store().rollout(id.into()).await? } else { None };
    found.ok_or_else(|| ApiError::NotFoundPlain(not_found(id)))
}

fn not_found(id: &str) -> String {
    format!("Rollout not found: {id}")
}

async fn is_registered(state: &ApiState, id: &str) -> ApiResult<bool> {
    Ok(state.rollouts.store().sequence_state(id.into()).await?.registered)
}

/// The attempt that a controller named last; its events are the rollout's.
pub(super) fn last_attempt(rollout: &Rollout) -> Option<String> {
    stored_fields(rollout).status.last_attempt_id
}

/// `PATCH /api/rollouts/{rollout}`
pub(super) async fn change(State(state): State<ApiState>, Path(id): Path<String>, body: Bytes) -> ApiResult {
    registered(&state, &id).await?;
    let RolloutChangeV1 { status } = read(&body)?;
    let change = status.unwrap_or_default();
    let to = match &change.state {
        Some(Some(name)) => Some(
            StateV1::of_name(name)
                .ok_or_else(|| ApiError::of_value(&["body", "status", "state"], UNKNOWN_STATE, name.as_str()))?,
        ),
        _ => None,
    };
    let changed = state.rollouts.transact(move |records, now| {
        let id = RolloutId::from(id.as_str());
        let Some(mut rollout) = records.rollout(&id)? else {
            return Ok(Err(ApiError::NotFoundPlain(not_found(id.as_str()))));
        };
        if change.state.is_some() {
            let from = StateV1::of_status(rollout.status);
            if !to.is_some_and(|to| from.may_become(to)) {
                // A state of null gets Python's word for it.
                let to = to.map_or("None", StateV1::as_str);
                let text = format!("Rollout {id}: cannot transition {} -> {to}", from.as_str());
                return Ok(Err(ApiError::Conflict(text)));
            }
        }
        let StatusChange { state, k8s_job_name, last_attempt_id, error_message } = change.clone();
        let is_empty =
            state.is_none() && k8s_job_name.is_none() && last_attempt_id.is_none() && error_message.is_none();
        if is_empty {
            return Ok(Ok(rollout));
        }
        let mut fields = stored_fields(&rollout);
        let status = &mut fields.status;
        status.k8s_job_name = k8s_job_name.unwrap_or(status.k8s_job_name.take());
        status.last_attempt_id = last_attempt_id.unwrap_or(status.last_attempt_id.take());
        status.error_message = error_message.unwrap_or(status.error_message.take());
        (status.version, status.updated_at) = (status.version + 1, now);
        let attempt = status.last_attempt_id.clone();
        if let JsonValue::Object(metadata) = &mut rollout.metadata {
            metadata.insert(METADATA_KEY.to_owned(), serde_json::to_value(fields).unwrap_or_default());
        }
        if let Some(to) = to {
            // Takes the rollout out of the queue too.
            lifecycle::set_rollout_status(&mut rollout, to.status(), now);
        }
        records.upsert_rollout(&rollout)?;
        if let Some(attempt) = attempt {
            put_named_attempt(records, &rollout, &attempt, now)?;
        }
        Ok(Ok(rollout))
    });
    ok(view(&changed.await??))
}

/// Stores the attempt that a controller has named; it ends with its rollout.
fn put_named_attempt(
    records: &mut dyn Records,
    rollout: &Rollout,
    attempt: &str,
    now: Timestamp,
) -> Result<(), RolloutError> {
    let (rollout_id, attempt_id) = (rollout.rollout_id.clone(), attempt.into());
    let known = records.attempt(&rollout_id, &attempt_id)?;
    let mut attempt = known.unwrap_or_else(|| Attempt::running(rollout_id, attempt_id, now));
    match rollout.status {
        RolloutStatus::Succeeded => lifecycle::set_attempt_status(&mut attempt, AttemptStatus::Succeeded, now),
        RolloutStatus::Failed => lifecycle::set_attempt_status(&mut attempt, AttemptStatus::Failed, now),
        _ => {}
    }
    // Marks an attempt without events, see `attempts_with_events`.
    if attempt.metadata.as_object().is_none_or(Map::is_empty) && attempt.last_heartbeat_time.is_none() {
        attempt.metadata = json!({ METADATA_KEY: { "named": true } });
    }
    records.upsert_attempt(attempt)?;
    Ok(())
}

/// `DELETE /api/rollouts/{rollout}`
pub(super) async fn remove(State(state): State<ApiState>, Path(id): Path<String>) -> ApiResult {
    state.rollouts.remove(id.as_str().into()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn view(rollout: &Rollout) -> RolloutView {
    let StoredFields { config, status } = stored_fields(rollout);
    let mut metadata = rollout.metadata.as_object().cloned().unwrap_or_default();
    metadata.remove(METADATA_KEY);
    for name in ["batch_idx", "sample_idx_in_batch"] {
        metadata.entry(name).or_insert(JsonValue::Null);
    }
    RolloutView {
        rollout_id: rollout.rollout_id.to_string(),
        input: rollout.input.clone(),
        is_train: is_train(rollout),
        config,
        metadata,
        status: StatusView {
            state: StateV1::of_status(rollout.status).as_str(),
            k8s_job_name: status.k8s_job_name,
            last_attempt_id: status.last_attempt_id,
            error_message: status.error_message,
            version: status.version,
            created_at: rollout.start_time,
            updated_at: status.updated_at,
        },
    }
}

/// The fields that only this API has; for a rollout that another API created, what follows from its other fields.
fn stored_fields(rollout: &Rollout) -> StoredFields {
    let stored = rollout.metadata.get(METADATA_KEY).and_then(|stored| serde_json::from_value(stored.clone()).ok());
    stored.unwrap_or_else(|| {
        let mut config = RolloutConfigV1::default();
        if let Some(seconds) = rollout.config.timeout_seconds {
            config.timeout_seconds = seconds as i64;
        }
        StoredFields {
            config: serde_json::to_value(config).unwrap_or_default(),
            status: StoredStatus::unchanged_since(rollout.end_time.unwrap_or(rollout.start_time)),
        }
    })
}

fn is_train(rollout: &Rollout) -> bool {
    rollout.mode.as_deref().is_none_or(|mode| mode == "train")
}
