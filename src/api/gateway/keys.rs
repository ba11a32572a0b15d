//! API keys that name a rollout.

use crate::api::access::CallerAccess;
use crate::api::request_json::read;
use crate::api::respond::{ApiError, ApiResult, ok};
use crate::api::state::ApiState;
use crate::gateway::issue_key;
use axum::Extension;
use axum::extract::State;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use utoipa::ToSchema;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewKey {
    rollout_id: String,
    #[serde(default)]
    attempt_id: Option<String>,
    /// 0: the key does not expire. Other values need a signing key.
    #[serde(default)]
    expires_in_seconds: u64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct RolloutKey {
    /// Signed if the gateway has a signing key.
    key: String,
}

/// `POST /v1/tracewire/keys`
pub(super) async fn create(State(state): State<ApiState>, access: Extension<CallerAccess>, body: Bytes) -> ApiResult {
    let NewKey { rollout_id, attempt_id, expires_in_seconds } = read(&body)?;
    access.require(&rollout_id)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let signing_key = &state.gateway.settings().signing_key;
    if expires_in_seconds > 0 && signing_key.is_empty() {
        let cause = "only signed keys expire, and the server has no gateway.signing_key; set it, or leave out expires_in_seconds";
        return Err(ApiError::of_value(&["body", "expires_in_seconds"], cause, expires_in_seconds));
    }
    let expires = if expires_in_seconds == 0 { 0 } else { now.saturating_add(expires_in_seconds) };
    ok(RolloutKey { key: issue_key(&rollout_id, attempt_id.as_deref(), expires, signing_key) })
}
