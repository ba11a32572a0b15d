//! Health and statistics.

use crate::api::respond::{ApiResult, ok};
use crate::api::state::ApiState;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`.
    status: &'static str,
}

/// `GET /health`
pub(super) async fn health() -> ApiResult {
    ok(Health { status: "ok" })
}

/// The counts of Agent Lightning's `CollectionBasedLightningStore`.
#[derive(Serialize, ToSchema)]
pub(super) struct StoreStatistics {
    name: &'static str,
    total_rollouts: u64,
    total_attempts: u64,
    total_spans: u64,
    total_resources: u64,
    total_workers: u64,
    /// Bytes that the store uses, on disk or in memory.
    total_span_bytes: u64,
    /// Seconds since the program started.
    uptime: f64,
}

/// `GET /statistics`
pub(super) async fn statistics(State(state): State<ApiState>) -> ApiResult {
    let counts = state.rollouts.store().statistics().await?;
    ok(StoreStatistics {
        name: "tracewire",
        total_rollouts: counts.rollouts,
        total_attempts: counts.attempts,
        total_spans: counts.spans,
        total_resources: counts.resources,
        total_workers: counts.workers,
        total_span_bytes: counts.size_bytes,
        uptime: state.started.elapsed().as_secs_f64(),
    })
}
