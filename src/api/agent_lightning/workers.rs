//! Workers and their heartbeats.

use super::body::reject_null;
use super::page::{Filter, Paging, from_body, from_query, to_json};
use crate::api::request_json::read_fields;
use crate::api::respond::{ApiError, ApiResult, ok};
use crate::api::state::ApiState;
use crate::trace::WorkerStatus;
use axum::extract::{Path, RawQuery, State};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value as JsonValue;
use utoipa::{IntoParams, ToSchema};

/// The conditions of a listing of workers.
#[derive(Deserialize, IntoParams, ToSchema)]
pub(super) struct WorkerConditions {
    #[serde(default)]
    status_in: Option<Vec<WorkerStatus>>,
    /// A part of the id.
    #[serde(default)]
    worker_id_contains: Option<String>,
}

/// `GET /workers`
pub(super) async fn list(State(state): State<ApiState>, RawQuery(query): RawQuery) -> ApiResult {
    find(&state, from_query(query.as_deref(), &["status_in"])?).await
}

/// `POST /workers/search`
pub(super) async fn search(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    find(&state, from_body(&body)?).await
}

async fn find(state: &ApiState, (conditions, paging): (WorkerConditions, Paging)) -> ApiResult {
    paging.check(WORKER_FIELDS)?;
    let texts = |statuses: Vec<WorkerStatus>| to_json(&statuses).iter().filter_map(text).collect();
    let filter = Filter::default()
        .one_of("status", conditions.status_in.map(texts))
        .contains("worker_id", conditions.worker_id_contains);
    let workers = state.rollouts.store().workers().await?;
    ok(paging.page(to_json(&workers), &filter))
}

fn text(json: &JsonValue) -> Option<String> {
    json.as_str().map(str::to_owned)
}

const WORKER_FIELDS: &[&str] = &[
    "worker_id",
    "status",
    "heartbeat_stats",
    "last_heartbeat_time",
    "last_dequeue_time",
    "last_busy_time",
    "last_idle_time",
    "current_rollout_id",
    "current_attempt_id",
];

/// `GET /workers/{worker}`
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> ApiResult {
    let workers = state.rollouts.store().workers().await?;
    ok(workers.into_iter().find(|worker| worker.worker_id == id))
}

/// `POST /workers/{worker}`, with the optional field `heartbeat_stats`.
pub(super) async fn update(State(state): State<ApiState>, Path(id): Path<String>, body: Bytes) -> ApiResult {
    let mut fields = read_fields(&body)?;
    reject_null(&fields, &["heartbeat_stats"])?;
    let stats = fields.remove("heartbeat_stats");
    if let Some(other) = stats.as_ref().filter(|stats| !stats.is_object()) {
        let place = ["body", "heartbeat_stats"];
        return Err(ApiError::of_value(&place, "Input should be a valid dictionary", other.clone()));
    }
    ok(state.rollouts.update_worker(id, stats).await?)
}
