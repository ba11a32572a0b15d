//! Traces: the LLM calls of sessions.

use super::records::TraceRecord;
use super::session::{SessionPage, lenient_fields, session_ids};
use crate::api::request_json::{read_query, typed};
use crate::api::respond::{ApiError, ApiResult, ok};
use crate::api::state::ApiState;
use crate::llm::recorded::is_llm_call;
use crate::trace::{RolloutId, Span};
use axum::extract::{Path, RawQuery, State};
use bytes::Bytes;

/// `GET /sessions/{session}/traces`
pub(super) async fn list(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult {
    let page = read_query(query.as_deref())?;
    ok(records(&state, &[id], &page).await?)
}

/// `POST /traces/query`, with the fields `session_ids`, `since` and `limit`.
pub(super) async fn query(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    let page = typed("body", &lenient_fields(&body).into()).unwrap_or_default();
    ok(records(&state, &session_ids(&body), &page).await?)
}

/// The records of sessions, one session after the other; the limit holds for each.
async fn records(state: &ApiState, ids: &[String], page: &SessionPage) -> ApiResult<Vec<TraceRecord>> {
    let since = page.since();
    let mut records = Vec::new();
    for id in ids {
        let calls = calls(state, id).await?;
        let matching = calls.iter().filter(|span| since.is_none_or(|since| span.end_time >= Some(since)));
        records.extend(matching.take(page.limit()).map(TraceRecord::of));
    }
    Ok(records)
}

/// `GET /traces/{trace}`
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> ApiResult {
    let not_found = || ApiError::NotFoundRllm(format!("Trace {id} not found"));
    let (span_id, rollout) = id.split_once('-').ok_or_else(not_found)?;
    let calls = calls(&state, rollout).await?;
    let span = calls.iter().find(|span| span.span_id == span_id).ok_or_else(not_found)?;
    ok(TraceRecord::of(span))
}

async fn calls(state: &ApiState, rollout: &str) -> ApiResult<Vec<Span>> {
    let mut spans = state.rollouts.store().spans(RolloutId::from(rollout), None).await?;
    spans.retain(is_llm_call);
    Ok(spans)
}
