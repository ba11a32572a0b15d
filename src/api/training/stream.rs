//! Exports of many rollouts, as they are made: the memory does not grow with their number.

use super::handlers::sample_of;
use crate::api::access::CallerAccess;
use crate::api::request_json::{query_json, typed};
use crate::api::respond::{ApiError, ApiResult};
use crate::api::state::ApiState;
use crate::export::shapes::{ALL, shape_named};
use crate::export::stream::{ExportError, ExportStream, FileType, PreparedAttempt};
use crate::net::task::spawn;
use crate::store::{AttemptReader, RolloutFilter, RolloutPlace, SelectedRollouts};
use crate::trace::{Rollout, RolloutId, RolloutStatus, Timestamp};
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
    /// The type of the file.
    #[param(inline)]
    file_type: FileType,
    /// Only these rollouts (repeatable).
    rollout: Vec<String>,
    /// Only rollouts with one of these states (repeatable).
    status: Vec<RolloutStatus>,
    /// Only rollouts that started at this Unix time or later.
    since: Option<f64>,
}

impl Default for ExportQuery {
    fn default() -> Self {
        Self {
            format: "trajectories".to_owned(),
            file_type: FileType::Jsonl,
            rollout: Vec::new(),
            status: Vec::new(),
            since: None,
        }
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
    let export = ExportStream::new(shape, query.file_type).map_err(|error| match error {
        ExportError::NoColumns { .. } => ApiError::of_value(&["query", "file_type"], error.to_string(), "parquet"),
        _ => ApiError::Internal,
    })?;
    let ids: Vec<RolloutId> = query.rollout.iter().map(|id| id.as_str().into()).collect();
    query.rollout.iter().try_for_each(|id| caller.require(id))?;
    let filter = RolloutFilter {
        ids: (!ids.is_empty()).then_some(ids),
        statuses: (!query.status.is_empty()).then(|| query.status.clone()),
        after: query.since.map(|since| RolloutPlace::before_all_of(Timestamp::from_unix_secs(since))),
        ..RolloutFilter::default()
    };
    let store = state.rollouts.store();
    let is_visible = move |rollout: &Rollout| caller.includes(rollout.rollout_id.as_str());
    let selected = SelectedRollouts::by_start(store, filter, is_visible);
    let mut rollouts = selected.ordered_by(export.order_key()).await?;
    // A store that can't be read is an error of the response, not of its body.
    rollouts.is_empty().await?;
    let (preparation, reading) = (export.preparation(), state.clone());
    let reader = AttemptReader::new(store, rollouts, move |found, spans| {
        preparation.prepare(sample_of(found, &spans, &reading))
    });
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(MAX_WAITING_CHUNKS);
    drop(spawn(async move {
        if let Err(SendError::Failed(error)) = send(export, reader, &mut sender).await {
            sender.abort(error);
        }
    }));
    Ok(([(header::CONTENT_TYPE, query.file_type.media_type())], Body::new(body)).into_response())
}

/// Why an export ends early.
enum SendError {
    /// The client is gone.
    Disconnected,
    /// The store can't be read, or the data can't be written.
    Failed(io::Error),
}

impl SendError {
    fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Failed(io::Error::other(error))
    }
}

async fn send(
    mut export: ExportStream,
    mut reader: AttemptReader<PreparedAttempt>,
    sender: &mut Sender<Bytes, io::Error>,
) -> Result<(), SendError> {
    while let Some(attempt) = reader.next().await.map_err(SendError::failed)? {
        let encoded = tokio::task::block_in_place(|| export.add(attempt)).map_err(SendError::failed)?;
        send_bytes(encoded, sender).await?;
    }
    let (rest, _) = tokio::task::block_in_place(|| export.finish()).map_err(SendError::failed)?;
    send_bytes(rest, sender).await
}

/// Sends bytes in chunks, so that only one of those that wait for a slow client is large.
async fn send_bytes(bytes: Vec<u8>, sender: &mut Sender<Bytes, io::Error>) -> Result<(), SendError> {
    let mut bytes = Bytes::from(bytes);
    while !bytes.is_empty() {
        let chunk = bytes.split_to(bytes.len().min(MAX_CHUNK_BYTES));
        sender.send_data(chunk).await.map_err(|_| SendError::Disconnected)?;
    }
    Ok(())
}

/// Chunks that may wait for a slow client.
const MAX_WAITING_CHUNKS: usize = 16;
const MAX_CHUNK_BYTES: usize = 64 * 1024;
