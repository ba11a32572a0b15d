//! The queue, rollouts, their attempts, and waiting for the end of rollouts.

use super::body::reject_null;
use super::page::{Filter, Paging, from_body, from_query, to_json};
use super::rollout_list::RolloutList;
use crate::api::request_json::{read, read_fields, read_optional};
use crate::api::respond::{ApiError, ApiResult, created, ok};
use crate::api::state::ApiState;
use crate::api::streamed::streamed;
use crate::rollout::{AttemptChange, NewRollout, RolloutChange};
use crate::store::RolloutFilter;
use crate::trace::{AttemptedRollout, Rollout, RolloutConfig, RolloutId, RolloutStatus};
use axum::extract::{Path, RawQuery, State};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use utoipa::{IntoParams, ToSchema};

#[derive(Deserialize, ToSchema)]
pub(super) struct NewRollouts {
    rollouts: Vec<NewRollout>,
}

/// `POST /queues/rollouts/enqueue`
pub(super) async fn enqueue(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    let NewRollouts { rollouts } = read(&body)?;
    rollouts.iter().try_for_each(check)?;
    created(state.rollouts.enqueue(rollouts).await?)
}

fn check(new: &NewRollout) -> ApiResult<()> {
    check_config(new.config.as_ref())
}

fn check_config(config: Option<&RolloutConfig>) -> ApiResult<()> {
    if config.is_some_and(|config| config.max_attempts == 0) {
        let place = ["body", "config", "max_attempts"];
        return Err(ApiError::of_value(&place, "Input should be greater than or equal to 1", 0));
    }
    Ok(())
}

#[derive(Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct DequeueRequest {
    /// The most rollouts to take.
    limit: i64,
    /// The worker that takes them.
    worker_id: Option<String>,
}

impl Default for DequeueRequest {
    fn default() -> Self {
        Self { limit: 1, worker_id: None }
    }
}

/// `POST /queues/rollouts/dequeue`
pub(super) async fn dequeue(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    let DequeueRequest { limit, worker_id } = read_optional::<Option<_>>(&body)?.flatten().unwrap_or_default();
    let limit = usize::try_from(limit).unwrap_or(0);
    ok(state.rollouts.dequeue(limit, worker_id).await?)
}

/// `POST /rollouts`
pub(super) async fn start(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    let (new, by): (NewRollout, StartedBy) = (read(&body)?, read(&body)?);
    check(&new)?;
    created(state.rollouts.start(new, by.worker_id).await?)
}

/// The conditions of a listing of rollouts.
#[derive(Deserialize, IntoParams, ToSchema)]
pub(super) struct RolloutConditions {
    #[serde(default)]
    status_in: Option<Vec<RolloutStatus>>,
    #[serde(default)]
    rollout_id_in: Option<Vec<String>>,
    /// A part of the id.
    #[serde(default)]
    rollout_id_contains: Option<String>,
}

/// `GET /rollouts`
pub(super) async fn list(State(state): State<ApiState>, RawQuery(query): RawQuery) -> ApiResult {
    find(&state, from_query(query.as_deref(), &["status_in", "rollout_id_in"])?).await
}

/// `POST /rollouts/search`
pub(super) async fn search(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    find(&state, from_body(&body)?).await
}

async fn find(state: &ApiState, (conditions, paging): (RolloutConditions, Paging)) -> ApiResult {
    let RolloutConditions { status_in, rollout_id_in, rollout_id_contains } = conditions;
    paging.check(ROLLOUT_FIELDS)?;
    let texts = |statuses: &Vec<RolloutStatus>| statuses.iter().map(|status| status.as_str().to_owned()).collect();
    let filter = Filter::default()
        .one_of("status", status_in.as_ref().map(texts))
        .one_of("rollout_id", rollout_id_in.clone())
        .contains("rollout_id", rollout_id_contains.clone());
    // When one condition is enough, rollouts that miss another can still match.
    let requires_all = paging.requires_all();
    let in_store = RolloutFilter {
        ids: rollout_id_in
            .filter(|_| requires_all)
            .map(|ids| ids.iter().map(|id| RolloutId::from(id.as_str())).collect()),
        id_contains: rollout_id_contains.filter(|_| requires_all),
        statuses: status_in.filter(|_| requires_all),
        ..RolloutFilter::default()
    };
    let list = RolloutList::find(state.rollouts.store(), in_store, &paging, &filter).await?;
    streamed("application/json", list).await
}

const ROLLOUT_FIELDS: &[&str] =
    &["rollout_id", "input", "start_time", "end_time", "mode", "resources_id", "status", "config", "metadata"];

/// `GET /rollouts/{rollout}`
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> ApiResult {
    ok(existing(&state, &id).await?)
}

async fn existing(state: &ApiState, id: &str) -> ApiResult<AttemptedRollout> {
    let filter = RolloutFilter::of_ids(vec![id.into()]);
    let found = state.rollouts.store().attempted_rollouts(filter).await?.into_iter().next();
    found.ok_or_else(|| ApiError::NotFound(format!("Rollout {id} not found")))
}

/// `POST /rollouts/{rollout}`
pub(super) async fn update(State(state): State<ApiState>, Path(id): Path<String>, body: Bytes) -> ApiResult {
    reject_null(&read_fields(&body)?, &["status", "config"])?;
    let change = read_optional::<RolloutChange>(&body)?.unwrap_or_default();
    check_config(change.config.as_ref())?;
    ok(state.rollouts.update(id.as_str().into(), change).await?)
}

#[derive(Default, Deserialize, ToSchema)]
pub(super) struct StartedBy {
    /// The worker that runs the attempt.
    #[serde(default)]
    worker_id: Option<String>,
}

/// `POST /rollouts/{rollout}/attempts`
pub(super) async fn start_attempt(State(state): State<ApiState>, Path(id): Path<String>, body: Bytes) -> ApiResult {
    let by = read_optional::<Option<StartedBy>>(&body)?.flatten().unwrap_or_default();
    created(state.rollouts.start_attempt(id.as_str().into(), by.worker_id).await?)
}

/// `GET /rollouts/{rollout}/attempts`
pub(super) async fn attempts(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult {
    find_attempts(&state, &id, from_query::<IgnoredAny>(query.as_deref(), &[])?.1).await
}

/// `POST /rollouts/{rollout}/attempts/search`
pub(super) async fn search_attempts(State(state): State<ApiState>, Path(id): Path<String>, body: Bytes) -> ApiResult {
    find_attempts(&state, &id, read(&body)?).await
}

async fn find_attempts(state: &ApiState, id: &str, paging: Paging) -> ApiResult {
    let paging = paging.sorted_by_default("sequence_id");
    paging.check(ATTEMPT_FIELDS)?;
    let attempts = state.rollouts.store().attempts(id.into()).await?;
    ok(paging.page(to_json(&attempts), &Filter::default()))
}

const ATTEMPT_FIELDS: &[&str] = &[
    "rollout_id",
    "attempt_id",
    "sequence_id",
    "start_time",
    "end_time",
    "status",
    "worker_id",
    "last_heartbeat_time",
    "metadata",
];

/// `GET /rollouts/{rollout}/attempts/latest`
pub(super) async fn latest_attempt(State(state): State<ApiState>, Path(id): Path<String>) -> ApiResult {
    ok(state.rollouts.store().attempts(id.as_str().into()).await?.pop())
}

/// `POST /rollouts/{rollout}/attempts/latest`
pub(super) async fn update_attempt_latest(state: State<ApiState>, Path(id): Path<String>, body: Bytes) -> ApiResult {
    update_attempt(state, Path((id, "latest".to_owned())), body).await
}

/// `POST /rollouts/{rollout}/attempts/{attempt}`
pub(super) async fn update_attempt(
    State(state): State<ApiState>,
    Path((id, attempt)): Path<(String, String)>,
    body: Bytes,
) -> ApiResult {
    reject_null(&read_fields(&body)?, &["status", "worker_id", "last_heartbeat_time", "metadata"])?;
    let change = read_optional::<AttemptChange>(&body)?.unwrap_or_default();
    let attempt = (attempt != "latest").then(|| attempt.as_str().into());
    ok(state.rollouts.update_attempt(id.as_str().into(), attempt, change).await?)
}

#[derive(Deserialize, ToSchema)]
pub(super) struct WaitRequest {
    rollout_ids: Vec<String>,
    /// The longest time to wait, in seconds; absent: no limit.
    #[serde(default)]
    timeout: Option<f64>,
}

/// `POST /waits/rollouts`: responds when all of the rollouts that exist have ended, or at the timeout, with those that
/// have ended.
pub(super) async fn wait(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    let WaitRequest { rollout_ids, timeout } = read(&body)?;
    let ids: Vec<RolloutId> = rollout_ids.iter().map(|id| id.as_str().into()).collect();
    let limit = time_limit(timeout);
    let start = Instant::now();
    loop {
        let changed = state.rollouts.next_change();
        let filter = RolloutFilter::of_ids(ids.clone());
        let existing = state.rollouts.store().attempted_rollouts(filter).await?;
        let all = existing.len();
        let mut ended: Vec<Rollout> =
            existing.into_iter().map(|one| one.rollout).filter(|rollout| rollout.status.is_final()).collect();
        let left = limit.map(|limit| limit.saturating_sub(start.elapsed()));
        if ended.len() == all || left.is_some_and(|left| left.is_zero()) {
            // In the order of the request; the first place of an id counts.
            let places: HashMap<&RolloutId, usize> =
                ids.iter().enumerate().rev().map(|(place, id)| (id, place)).collect();
            ended.sort_by_key(|rollout| places.get(&rollout.rollout_id).copied());
            return ok(json!(ended));
        }
        tokio::select! {
            () = changed => {}
            // Another process that shares the store may have changed a rollout.
            () = tokio::time::sleep(left.unwrap_or(POLL_INTERVAL).min(POLL_INTERVAL)) => {}
        }
    }
}

/// The time that a number of seconds stands for; a negative one for none. `None`: there is no limit, or it is longer than a
/// [`Duration`] can be.
fn time_limit(seconds: Option<f64>) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds?.max(0.0)).ok()
}

const POLL_INTERVAL: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_of_any_length_is_a_limit_or_none() {
        let expected = [(0.5, Some(Duration::from_millis(500))), (-1.0, Some(Duration::ZERO)), (1e30, None)];
        for (seconds, limit) in expected {
            assert_eq!(time_limit(Some(seconds)), limit, "{seconds}");
        }
        assert_eq!(time_limit(None), None);
    }
}
