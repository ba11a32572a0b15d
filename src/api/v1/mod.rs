//! Agent Lightning's API (1.0) under `/api`: its unmodified controllers, trainers and agents work by changing a URL.
//!
//! A rollout is the same rollout as elsewhere; what only this API knows of it is kept in its metadata.

mod events;
mod rollouts;
mod shapes;

use crate::api::state::ApiState;
use axum::Router;
use axum::routing::{get, post};

/// The routes.
pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/api/rollouts", get(rollouts::list).post(rollouts::create))
        .route("/api/rollouts/terminal", get(rollouts::terminal))
        .route("/api/rollouts/{rollout}", get(rollouts::one).patch(rollouts::change).delete(rollouts::remove))
        .route("/api/rollouts/{rollout}/attempt/{attempt}/events", post(events::add))
        .route("/api/rollouts/{rollout}/events", get(events::list))
}
