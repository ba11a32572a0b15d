//! The queue, rollouts, their attempts, and waiting for their end.

use super::page::{Filter, Paging, from_query, json_of};
use super::{Answer, Refusal, created, fields, ok, paged, read, read_some, refuse_null};
use crate::api::state::ApiState;
use crate::rollout::{AttemptChange, NewRollout, RolloutChange};
use crate::store::RolloutFilter;
use crate::trace::{AttemptedRollout, Rollout, RolloutId, RolloutStatus};
use axum::extract::{Path, RawQuery, State};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value as JsonValue, json};
use std::time::{Duration, Instant};

#[derive(Deserialize)]
struct Many {
    rollouts: Vec<NewRollout>,
}

/// `POST /queues/rollouts/enqueue`
pub(super) async fn enqueue(State(state): State<ApiState>, body: Bytes) -> Answer {
    let Many { rollouts } = read(&body)?;
    rollouts.iter().try_for_each(check)?;
    created(state.rollouts.enqueue(rollouts).await?)
}

/// What the shape does not say.
fn check(new: &NewRollout) -> Answer<()> {
    check_config(new.config.as_ref(), "body")
}

fn check_config(config: Option<&crate::trace::RolloutConfig>, place: &str) -> Answer<()> {
    if config.is_some_and(|config| config.max_attempts == 0) {
        let place = vec![place.to_owned(), "config".to_owned(), "max_attempts".to_owned()];
        return Err(Refusal::Schema { place, message: "Input should be greater than or equal to 1".to_owned() });
    }
    Ok(())
}

#[derive(Deserialize)]
struct Dequeue {
    #[serde(default = "one_rollout")]
    limit: i64,
    #[serde(default)]
    worker_id: Option<String>,
}

fn one_rollout() -> i64 {
    1
}

/// `POST /queues/rollouts/dequeue`
pub(super) async fn dequeue(State(state): State<ApiState>, body: Bytes) -> Answer {
    let asked = read_some::<Option<Dequeue>>(&body)?.flatten();
    let Dequeue { limit, worker_id } = asked.unwrap_or(Dequeue { limit: 1, worker_id: None });
    let limit = usize::try_from(limit).unwrap_or(0);
    ok(state.rollouts.dequeue(limit, worker_id).await?)
}

/// `POST /rollouts`
pub(super) async fn start(State(state): State<ApiState>, body: Bytes) -> Answer {
    let (new, whose): (NewRollout, Whose) = (read(&body)?, read(&body)?);
    check(&new)?;
    created(state.rollouts.start(new, whose.worker_id).await?)
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    status_in: Option<Vec<RolloutStatus>>,
    #[serde(default)]
    rollout_id_in: Option<Vec<String>>,
    #[serde(default)]
    rollout_id_contains: Option<String>,
}

/// `GET /rollouts`
pub(super) async fn list(State(state): State<ApiState>, RawQuery(query): RawQuery) -> Answer {
    find(&state, from_query(query.as_deref(), &["status_in", "rollout_id_in"])?).await
}

/// `POST /rollouts/search`
pub(super) async fn search(State(state): State<ApiState>, body: Bytes) -> Answer {
    find(&state, paged(&body)?).await
}

async fn find(state: &ApiState, (wanted, paging): (Wanted, Paging)) -> Answer {
    let Wanted { status_in, rollout_id_in, rollout_id_contains } = wanted;
    paging.check(ROLLOUT_FIELDS)?;
    let words = |statuses: &Vec<RolloutStatus>| statuses.iter().map(|status| status.as_str().to_owned()).collect();
    let filter = Filter::default()
        .one_of("status", status_in.as_ref().map(words))
        .one_of("rollout_id", rollout_id_in.clone())
        .contains("rollout_id", rollout_id_contains);
    // Only what all conditions let through need be read; of conditions of which one is enough, everything.
    let read_less = paging.is_and();
    let in_store = RolloutFilter {
        ids: rollout_id_in.filter(|_| read_less).map(|ids| ids.iter().map(|id| RolloutId::from(id.as_str())).collect()),
        statuses: status_in.filter(|_| read_less),
    };
    let rollouts = state.rollouts.store().attempted_rollouts(in_store).await?;
    ok(paging.page(json_of(&rollouts), &filter))
}

const ROLLOUT_FIELDS: &[&str] =
    &["rollout_id", "input", "start_time", "end_time", "mode", "resources_id", "status", "config", "metadata"];

/// `GET /rollouts/{rollout}`
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> Answer {
    ok(known(&state, &id).await?)
}

async fn known(state: &ApiState, id: &str) -> Answer<AttemptedRollout> {
    let filter = RolloutFilter { ids: Some(vec![id.into()]), statuses: None };
    let found = state.rollouts.store().attempted_rollouts(filter).await?.into_iter().next();
    found.ok_or_else(|| Refusal::NotFound(format!("Rollout {id} not found")))
}

/// `POST /rollouts/{rollout}`
pub(super) async fn update(State(state): State<ApiState>, Path(id): Path<String>, body: Bytes) -> Answer {
    let mut fields = fields(&body)?;
    refuse_null(&fields, &["status", "config"])?;
    let mut take = |name: &str| fields.remove(name);
    let change = RolloutChange {
        input: take("input"),
        mode: take("mode").map(|mode| typed("mode", mode)).transpose()?,
        resources_id: take("resources_id").map(|id| typed("resources_id", id)).transpose()?,
        status: take("status").map(|status| typed("status", status)).transpose()?,
        config: take("config").map(|config| typed("config", config)).transpose()?,
        metadata: take("metadata")
            .map(|metadata| typed::<Option<serde_json::Map<String, JsonValue>>>("metadata", metadata))
            .transpose()?
            .map(|metadata| metadata.map_or(JsonValue::Null, JsonValue::Object)),
    };
    check_config(change.config.as_ref(), "body")?;
    ok(state.rollouts.update(id.as_str().into(), change).await?)
}

fn typed<T: serde::de::DeserializeOwned>(name: &str, value: JsonValue) -> Answer<T> {
    serde_json::from_value(value).map_err(|error| Refusal::Schema {
        place: vec!["body".to_owned(), name.to_owned()],
        message: error.to_string(),
    })
}

#[derive(Default, Deserialize)]
struct Whose {
    #[serde(default)]
    worker_id: Option<String>,
}

/// `POST /rollouts/{rollout}/attempts`
pub(super) async fn start_attempt(State(state): State<ApiState>, Path(id): Path<String>, body: Bytes) -> Answer {
    let whose = read_some::<Option<Whose>>(&body)?.flatten().unwrap_or_default();
    created(state.rollouts.start_attempt(id.as_str().into(), whose.worker_id).await?)
}

/// `GET /rollouts/{rollout}/attempts`
pub(super) async fn attempts(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    find_attempts(&state, &id, from_query::<IgnoredAny>(query.as_deref(), &[])?.1).await
}

/// `POST /rollouts/{rollout}/attempts/search`
pub(super) async fn search_attempts(State(state): State<ApiState>, Path(id): Path<String>, body: Bytes) -> Answer {
    find_attempts(&state, &id, read(&body)?).await
}

async fn find_attempts(state: &ApiState, id: &str, paging: Paging) -> Answer {
    let paging = paging.or_sorted_by("sequence_id");
    paging.check(ATTEMPT_FIELDS)?;
    let attempts = state.rollouts.store().attempts(id.into()).await?;
    ok(paging.page(json_of(&attempts), &Filter::default()))
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
pub(super) async fn latest_attempt(State(state): State<ApiState>, Path(id): Path<String>) -> Answer {
    ok(state.rollouts.store().attempts(id.as_str().into()).await?.pop())
}

/// `POST /rollouts/{rollout}/attempts/latest`
pub(super) async fn update_attempt_latest(state: State<ApiState>, Path(id): Path<String>, body: Bytes) -> Answer {
    update_attempt(state, Path((id, "latest".to_owned())), body).await
}

/// `POST /rollouts/{rollout}/attempts/{attempt}`
pub(super) async fn update_attempt(
    State(state): State<ApiState>,
    Path((id, attempt)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    refuse_null(&fields(&body)?, &["status", "worker_id", "last_heartbeat_time", "metadata"])?;
    let change = read_some::<AttemptChange>(&body)?.unwrap_or_default();
    let attempt = (attempt != "latest").then(|| attempt.as_str().into());
    ok(state.rollouts.update_attempt(id.as_str().into(), attempt, change).await?)
}

#[derive(Deserialize)]
struct Wait {
    rollout_ids: Vec<String>,
    // Seconds.
    #[serde(default)]
    timeout: Option<f64>,
}

/// `POST /waits/rollouts`: those that have ended; all that are known, or those that have when time is up.
pub(super) async fn wait(State(state): State<ApiState>, body: Bytes) -> Answer {
    let Wait { rollout_ids, timeout } = read(&body)?;
    let ids: Vec<RolloutId> = rollout_ids.iter().map(|id| id.as_str().into()).collect();
    let lasting = timeout.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let began = Instant::now();
    loop {
        let changed = state.rollouts.next_change();
        let filter = RolloutFilter { ids: Some(ids.clone()), statuses: None };
        let known = state.rollouts.store().attempted_rollouts(filter).await?;
        let all = known.len();
        let mut ended: Vec<Rollout> =
            known.into_iter().map(|one| one.rollout).filter(|rollout| rollout.status.is_final()).collect();
        let left = lasting.map(|lasting| lasting.saturating_sub(began.elapsed()));
        if ended.len() == all || left.is_some_and(|left| left.is_zero()) {
            // In the order in which they were asked for.
            ended.sort_by_key(|rollout| ids.iter().position(|id| *id == rollout.rollout_id));
            return ok(json!(ended));
        }
        tokio::select! {
            () = changed => {}
            // Other processes may share the store.
            () = tokio::time::sleep(left.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)) => {}
        }
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(500);
