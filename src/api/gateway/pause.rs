//! Pausing LLM calls while a trainer updates weights.

use crate::api::request_json::{read, read_optional};
use crate::api::respond::{ApiError, ApiResult, ok};
use crate::api::state::ApiState;
use crate::gateway::PauseForm;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use bytes::Bytes;
use serde::Deserialize;
use std::time::Duration;
use utoipa::ToSchema;

#[derive(Deserialize, ToSchema)]
pub(super) struct PauseRequest {
    /// The `Retry-After` of rejected calls; 5 if absent.
    #[serde(default = "default_retry_after")]
    retry_after_seconds: u64,
    #[serde(default)]
    reason: Option<String>,
    /// Whether calls are rejected or wait; absent: as `gateway.pause` says.
    #[serde(default)]
    form: Option<PauseForm>,
}

fn default_retry_after() -> u64 {
    5
}

/// `POST /proxy/pause`
pub(super) async fn pause(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    let PauseRequest { retry_after_seconds, reason, form } = read(&body)?;
    let form = form.unwrap_or(state.gateway.settings().pause);
    state.gateway.gate().pause(form, retry_after_seconds, reason);
    ok(state.gateway.gate().state())
}

/// `POST /proxy/resume`
pub(super) async fn resume(State(state): State<ApiState>) -> ApiResult {
    state.gateway.gate().resume();
    ok(state.gateway.gate().state())
}

#[derive(Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct DrainRequest {
    /// The longest time to wait, in seconds.
    timeout_seconds: f64,
}

impl Default for DrainRequest {
    fn default() -> Self {
        Self { timeout_seconds: 600.0 }
    }
}

/// `POST /proxy/drain`: responds with 200 when no call is in flight, or with 504 at the timeout.
pub(super) async fn drain(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    let DrainRequest { timeout_seconds } = read_optional(&body)?.unwrap_or_default();
    let limit = Duration::try_from_secs_f64(timeout_seconds)
        .map_err(|_| ApiError::Invalid("timeout_seconds must be a number of seconds, at least 0".to_owned()))?;
    let drained = state.gateway.gate().drained(limit).await;
    let status = if drained { StatusCode::OK } else { StatusCode::GATEWAY_TIMEOUT };
    Ok((status, Json(state.gateway.gate().state())).into_response())
}

/// `GET /proxy/state`
pub(super) async fn state(State(state): State<ApiState>) -> ApiResult {
    ok(state.gateway.gate().state())
}
