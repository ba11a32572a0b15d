//! Exports of many rollouts, as they are made: the memory does not grow with their number.

use super::handlers::sample_options;
use crate::api::access::CallerAccess;
use crate::api::request_json::{query_json, typed};
use crate::api::respond::{ApiError, ApiResult};
use crate::api::state::ApiState;
use crate::api::streamed::{BodySource, streamed};
use crate::export::format::ExportFormat;
use crate::export::spans::AttributeConventions;
use crate::export::stream::{ExportError, ExportStream, FileType, PreparedAttempt};
use crate::query::Query;
use crate::rollout::RolloutSearch;
use crate::store::{AttemptReader, RolloutFilter, SelectedRollouts};
use crate::trace::{Rollout, RolloutId, RolloutStatus, Timestamp};
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use serde::Deserialize;
use std::time::SystemTime;
use utoipa::IntoParams;

/// The query of an export.
#[derive(Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ExportQuery {
    /// The format, as on the command line.
    format: String,
    /// The type of the file.
    #[param(inline)]
    file_type: FileType,
    /// With the formats `otlp` and `otlp-json`: by which conventions spans name what they hold of calls.
    #[param(inline)]
    attributes: AttributeConventions,
    /// Only these rollouts (repeatable).
    rollout: Vec<String>,
    /// Only rollouts that match these conditions, such as `model:qwen* reward>=1 since:1d`. Instead of the other conditions.
    q: Option<String>,
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
            attributes: AttributeConventions::GenAi,
            rollout: Vec::new(),
            q: None,
            status: Vec::new(),
            since: None,
        }
    }
}

/// `GET /v1/tracewire/export`
pub(super) async fn export(
    State(state): State<ApiState>,
    Extension(caller): Extension<CallerAccess>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let query: ExportQuery = typed("query", &query_json(query.as_deref(), &["rollout", "status"]))?;
    let known = || ExportFormat::all().map(ExportFormat::name).collect::<Vec<_>>().join(", ");
    let format = ExportFormat::named(&query.format).ok_or_else(|| {
        ApiError::of_value(&["query", "format"], format!("Input should be one of {}", known()), query.format.as_str())
    })?;
    let format = format
        .with_attributes(query.attributes)
        .map_err(|error| ApiError::of_value(&["query", "attributes"], error.to_string(), "openinference"))?;
    let export = ExportStream::new(format, query.file_type).map_err(|error| match error {
        ExportError::NoColumns { .. } => ApiError::of_value(&["query", "file_type"], error.to_string(), "parquet"),
        _ => ApiError::Internal,
    })?;
    let store = state.rollouts.store();
    let selected = selected(&state, caller, query).await?;
    let rollouts = selected.ordered_by(export.order_key()).await?;
    let (preparation, options, media_type) = (export.preparation(), sample_options(&state), export.media_type());
    let reader = AttemptReader::new(store, rollouts, export.scope(), move |found, spans| {
        preparation.prepare(found, spans, &options)
    });
    streamed(media_type, ExportBody { export: Some(export), reader }).await
}

/// The rollouts that a query selects, of those that the caller may read.
async fn selected(state: &ApiState, caller: CallerAccess, query: ExportQuery) -> ApiResult<SelectedRollouts> {
    query.rollout.iter().try_for_each(|id| caller.require(id))?;
    let store = state.rollouts.store();
    let only = caller.only_rollout().map(RolloutId::from);
    let is_visible = move |rollout: &Rollout| caller.includes(rollout.rollout_id.as_str());
    let Some(text) = query.q else {
        let ids: Vec<RolloutId> = query.rollout.iter().map(|id| id.as_str().into()).collect();
        let filter = RolloutFilter {
            ids: (!ids.is_empty()).then_some(ids),
            statuses: (!query.status.is_empty()).then_some(query.status),
            started_from: query.since.map(Timestamp::from_unix_secs),
            ..RolloutFilter::default()
        };
        return Ok(SelectedRollouts::by_start(store, filter, is_visible));
    };
    if !query.rollout.is_empty() || !query.status.is_empty() || query.since.is_some() {
        let message = "Input should have all conditions, as `id:`, `status:` and `since:`";
        return Err(ApiError::of_value(&["query", "q"], message, text));
    }
    let now = Timestamp::from(SystemTime::now());
    let query = Query::parse(&text, now).map_err(|error| ApiError::of_invalid_query(&text, &error))?;
    let search = RolloutSearch { store, cache: &state.search, query: &query, now, only };
    Ok(SelectedRollouts::listed(store, search.all_ids(is_visible).await?))
}

/// The body of an export.
struct ExportBody {
    // `None` after the end.
    export: Option<ExportStream>,
    reader: AttemptReader<PreparedAttempt>,
}

impl BodySource for ExportBody {
    async fn next(&mut self) -> ApiResult<Option<Vec<u8>>> {
        let attempt = self.reader.next().await?;
        let encoded = tokio::task::block_in_place(|| match attempt {
            Some(attempt) => self.export.as_mut().map(|export| export.add(attempt)),
            None => self.export.take().map(|export| export.finish().map(|(rest, _)| rest)),
        });
        encoded.transpose().map_err(|error| {
            tracing::error!(%error, "an export can't be written");
            ApiError::Internal
        })
    }
}
