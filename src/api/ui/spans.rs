//! Outlines of the spans of a rollout, and single spans.

use super::outline::Outline;
use crate::api::request_json::read_query;
use crate::api::respond::{ApiError, ApiResult, ok};
use crate::api::state::ApiState;
use axum::extract::{Path, RawQuery, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The query of a page of outlines.
#[derive(Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SpanPageQuery {
    /// The `last` of the page before; 0 for the first page. Later spans are on later pages, so that the last page is where a
    /// caller waits for more.
    after: u64,
    /// The most outlines to return, at most 5000.
    limit: usize,
}

impl Default for SpanPageQuery {
    fn default() -> Self {
        Self { after: 0, limit: 2000 }
    }
}

/// A page of outlines.
#[derive(Serialize, ToSchema)]
pub(super) struct SpanPage {
    #[schema(value_type = Vec<Object>)]
    spans: Vec<Outline>,
    /// The number of the last span.
    last: u64,
    /// Whether further spans are stored already.
    more: bool,
}

/// `GET /v1/tracewire/rollouts/{rollout}/spans`
pub(super) async fn list(
    State(state): State<ApiState>,
    Path(rollout): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult {
    let SpanPageQuery { after, limit } = read_query(query.as_deref())?;
    let limit = limit.clamp(1, MAX_PAGE);
    let mut found = state.rollouts.store().span_outlines(rollout.as_str().into(), after, limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().map_or(after, |outline| outline.number);
    ok(SpanPage { spans: found.iter().map(Outline::of).collect(), last, more })
}

/// `GET /v1/tracewire/rollouts/{rollout}/attempts/{attempt}/spans/{span}`
pub(super) async fn one_span(
    State(state): State<ApiState>,
    Path((rollout, attempt, span)): Path<(String, String, String)>,
) -> ApiResult {
    let found = state.rollouts.store().span(rollout.as_str().into(), attempt.as_str().into(), span.clone()).await?;
    ok(found.ok_or_else(|| ApiError::NotFoundPlain(format!("Span {span} not found")))?)
}

const MAX_PAGE: usize = 5000;
