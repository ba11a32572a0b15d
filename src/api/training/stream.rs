//! Exports of many rollouts, as they are made: the memory does not grow with their number.

use super::handlers::sample_of;
use crate::api::access::CallerAccess;
use crate::api::request_json::{query_json, typed};
use crate::api::respond::{ApiError, ApiResult};
use crate::api::state::ApiState;
use crate::export::shapes::{ALL, Shape, shape_named};
use crate::net::task::spawn;
use crate::store::RolloutFilter;
use crate::trace::{AttemptedRollout, RolloutId, RolloutStatus, Timestamp};
use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use serde::Deserialize;
use std::io;
use utoipa::IntoParams;

/// The query of an export.
#[derive(Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ExportQuery {
    /// The shape, as on the command line.
    format: String,
    /// Only these rollouts (repeatable).
    rollout: Vec<String>,
    /// Only rollouts with one of these states (repeatable).
    status: Vec<RolloutStatus>,
    /// Only rollouts that started at this Unix time or later.
    since: Option<f64>,
}

impl Default for ExportQuery {
    fn default() -> Self {
        Self { format: "trajectories".to_owned(), rollout: Vec::new(), status: Vec::new(), since: None }
    }
}

/// `GET /v1/tracewire/export`. An error of the store after the first byte ends the response without its end, so that no
/// client takes it for a whole one.
pub(super) async fn export(
    State(state): State<ApiState>,
    Extension(caller): Extension<CallerAccess>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let query: ExportQuery = typed("query", &query_json(query.as_deref(), &["rollout", "status"]))?;
    let known = || ALL.iter().map(|shape| shape.name()).collect::<Vec<_>>().join(", ");
    let shape = shape_named(&query.format).ok_or_else(|| {
        ApiError::of_value(&["query", "format"], format!("Input should be one of {}", known()), query.format.as_str())
    })?;
    let ids: Vec<RolloutId> = query.rollout.iter().map(|id| id.as_str().into()).collect();
    query.rollout.iter().try_for_each(|id| caller.require(id))?;
    let filter = RolloutFilter {
        ids: (!ids.is_empty()).then_some(ids),
        statuses: (!query.status.is_empty()).then(|| query.status.clone()),
    };
    let mut rollouts = state.rollouts.store().attempted_rollouts(filter).await?;
    let since = query.since.map(Timestamp::from_unix_secs).unwrap_or_default();
    rollouts.retain(|found| found.rollout.start_time >= since && caller.includes(found.rollout.rollout_id.as_str()));
    let (sender, body) = Channel::<Bytes, io::Error>::new(MAX_WAITING_CHUNKS);
    drop(spawn(send(state, shape, rollouts, sender)));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response())
}

async fn send(
    state: ApiState,
    shape: &'static dyn Shape,
    rollouts: Vec<AttemptedRollout>,
    mut sender: Sender<Bytes, io::Error>,
) {
    for found in rollouts {
        let sample = match sample_of(state.rollouts.store(), found, &state).await {
            Ok(sample) => sample,
            Err(error) => return sender.abort(io::Error::other(error)),
        };
        for line in shape.lines(&sample) {
            // The client is gone.
            if sender.send_data(Bytes::from(format!("{line}\n"))).await.is_err() {
                return;
            }
        }
    }
}

/// Lines that may wait for a slow client.
const MAX_WAITING_CHUNKS: usize = 16;
