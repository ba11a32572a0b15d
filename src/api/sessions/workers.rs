//! Workers, which are backends here, and what rLLM's trainer administers.

use super::session::lenient_fields;
use crate::api::gateway::backends::register_worker;
use crate::api::respond::{ApiError, ApiResult, ok};
use crate::api::state::ApiState;
use axum::extract::{Path, State};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value as JsonValue;
use utoipa::ToSchema;

/// A backend as rLLM's gateway shows it.
#[derive(Serialize, ToSchema)]
pub(super) struct WorkerView {
    worker_id: String,
    url: String,
    api_path: String,
    /// Null: it serves any model.
    model_name: Option<String>,
    weight: f64,
    healthy: bool,
    active_requests: usize,
}

/// `GET /admin/workers`
pub(super) async fn list(State(state): State<ApiState>) -> ApiResult {
    ok(views(&state))
}

fn views(state: &ApiState) -> Vec<WorkerView> {
    let all = state.gateway.backends().all();
    let views = all.iter().map(|backend| {
        let url = backend.url.trim_end_matches('/').strip_suffix(&backend.base_path).unwrap_or(&backend.url);
        WorkerView {
            worker_id: backend.id.clone(),
            url: url.to_owned(),
            api_path: backend.base_path.clone(),
            model_name: Some(backend.model.clone()).filter(|model| !model.is_empty()),
            weight: backend.weight(),
            healthy: backend.is_healthy(),
            active_requests: backend.in_flight(),
        }
    });
    views.collect()
}

/// `POST /admin/workers`
pub(super) async fn add(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    ok(register_worker(&state, &body)?)
}

#[derive(Serialize, ToSchema)]
pub(super) struct RemovedWorker {
    /// The id of the worker.
    removed: String,
}

/// `DELETE /admin/workers/{worker}`
pub(super) async fn remove(State(state): State<ApiState>, Path(id): Path<String>) -> ApiResult {
    match state.gateway.backends().remove(|backend| backend.id == id) {
        0 => Err(ApiError::NotFoundRllm(format!("Worker {id} not found"))),
        _ => ok(RemovedWorker { removed: id }),
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct WeightVersion {
    /// The version that was last set for all workers; null if none was.
    weight_version: Option<i64>,
}

/// `GET /admin/weight_version`
pub(super) async fn weight_version(State(state): State<ApiState>) -> ApiResult {
    ok(WeightVersion { weight_version: state.gateway.backends().common_version() })
}

/// `POST /admin/weight_version`
pub(super) async fn set_weight_version(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    let Some(version) = lenient_fields(&body).get("weight_version").and_then(JsonValue::as_i64) else {
        return Err(ApiError::InvalidRllm("weight_version must be an integer".to_owned()));
    };
    state.gateway.backends().set_version(version);
    ok(WeightVersion { weight_version: Some(version) })
}

#[derive(Serialize, ToSchema)]
pub(super) struct RllmStatus {
    /// `ok`, or `flushed`.
    status: &'static str,
}

/// `POST /admin/flush`. A call ends after its span is stored, so that nothing is pending.
pub(super) async fn flush() -> ApiResult {
    ok(RllmStatus { status: "flushed" })
}

/// `POST /admin/reload`. Nothing is cached from files.
pub(super) async fn reload() -> ApiResult {
    ok(RllmStatus { status: "ok" })
}

/// `GET /health`
pub(super) async fn health() -> ApiResult {
    ok(RllmStatus { status: "ok" })
}

#[derive(Serialize, ToSchema)]
pub(super) struct WorkersHealth {
    workers: Vec<WorkerView>,
    healthy: usize,
    total: usize,
}

/// `GET /health/workers`
pub(super) async fn workers_health(State(state): State<ApiState>) -> ApiResult {
    let workers = views(&state);
    let healthy = workers.iter().filter(|worker| worker.healthy).count();
    ok(WorkersHealth { healthy, total: workers.len(), workers })
}
