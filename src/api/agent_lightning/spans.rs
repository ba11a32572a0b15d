//! Adding, listing and numbering spans. They are returned in the shapes that Agent Lightning's adapters read.

use super::extra;
use super::page::{Filter, Paging, from_body, from_query};
use super::span_list::SpanList;
use crate::api::access::CallerAccess;
use crate::api::request_json::read;
use crate::api::respond::{ApiResult, created, ok};
use crate::api::state::ApiState;
use crate::api::streamed::streamed;
use crate::export::agent_lightning::{is_derived, view};
use crate::trace::{AttemptId, RolloutId, Span};
use axum::Extension;
use axum::extract::{RawQuery, State};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value as JsonValue;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// `POST /spans`
pub(super) async fn add(State(state): State<ApiState>, access: Extension<CallerAccess>, body: Bytes) -> ApiResult {
    let mut span = extra::read_span(&body)?;
    access.require_attempt(span.rollout_id.as_str(), span.attempt_id.as_str())?;
    let rollouts = &state.rollouts;
    // Agent Lightning rejects spans of unknown rollouts. OTLP ingest accepts them.
    rollouts.require_attempt(&span.rollout_id, &span.attempt_id).await?;
    if is_derived(&span) && is_listed(&state, &span).await? {
        return created(extra::json(&span));
    }
    state.adopt(&mut span);
    span.sequence_id = state.sequences.claim(&span.rollout_id, span.sequence_id).await;
    let span = Arc::new(span);
    let appended = rollouts.append(vec![Arc::clone(&span)]).await?;
    if appended.duplicates > 0 { created(JsonValue::Null) } else { created(extra::json(&span)) }
}

/// True if the listing makes this span of its parent. A client may give back a span without its parent, or change the parent.
async fn is_listed(state: &ApiState, span: &Span) -> ApiResult<bool> {
    let Some(parent) = span.parent_id.clone() else { return Ok(false) };
    let parent = state.rollouts.store().span(span.rollout_id.clone(), span.attempt_id.clone(), parent).await?;
    Ok(parent.is_some_and(|parent| view(parent).iter().any(|made| made.span_id == span.span_id)))
}

/// The conditions of a listing of spans.
#[derive(Deserialize, IntoParams, ToSchema)]
pub(super) struct SpanConditions {
    rollout_id: String,
    /// An attempt's id, or `latest`.
    #[serde(default)]
    attempt_id: Option<String>,
    #[serde(default)]
    trace_id: Option<String>,
    #[serde(default)]
    trace_id_contains: Option<String>,
    #[serde(default)]
    span_id: Option<String>,
    #[serde(default)]
    span_id_contains: Option<String>,
    #[serde(default)]
    parent_id: Option<String>,
    #[serde(default)]
    parent_id_contains: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    name_contains: Option<String>,
}

/// `GET /spans`
pub(super) async fn list(
    State(state): State<ApiState>,
    access: Extension<CallerAccess>,
    RawQuery(query): RawQuery,
) -> ApiResult {
    find(&state, &access, from_query(query.as_deref(), &[])?).await
}

/// `POST /spans/search`
pub(super) async fn search(State(state): State<ApiState>, access: Extension<CallerAccess>, body: Bytes) -> ApiResult {
    find(&state, &access, from_body(&body)?).await
}

async fn find(state: &ApiState, access: &CallerAccess, (conditions, paging): (SpanConditions, Paging)) -> ApiResult {
    access.require(&conditions.rollout_id)?;
    let paging = paging.sorted_by_default("sequence_id");
    paging.check(SPAN_FIELDS)?;
    let rollout = RolloutId::from(conditions.rollout_id.as_str());
    let attempt = match conditions.attempt_id.as_deref() {
        None => None,
        Some("latest") => {
            let latest = state.rollouts.store().attempts(rollout.clone()).await?.pop();
            let Some(latest) = latest else { return ok(paging.page(Vec::new(), &Filter::default())) };
            Some(latest.attempt_id)
        }
        Some(attempt) => Some(AttemptId::from(attempt)),
    };
    let filter = Filter::default()
        .is("trace_id", conditions.trace_id)
        .contains("trace_id", conditions.trace_id_contains)
        .is("span_id", conditions.span_id)
        .contains("span_id", conditions.span_id_contains)
        .is("parent_id", conditions.parent_id)
        .contains("parent_id", conditions.parent_id_contains)
        .is("name", conditions.name)
        .contains("name", conditions.name_contains);
    let list = SpanList::find(state.rollouts.store(), rollout, attempt, &paging, &filter).await?;
    streamed("application/json", list).await
}

const SPAN_FIELDS: &[&str] = &[
    "rollout_id",
    "attempt_id",
    "sequence_id",
    "trace_id",
    "span_id",
    "parent_id",
    "name",
    "status",
    "attributes",
    "events",
    "links",
    "start_time",
    "end_time",
    "context",
    "parent",
    "resource",
];

#[derive(Deserialize, ToSchema)]
pub(super) struct NextSequenceId {
    rollout_id: String,
    // Required by the protocol, though ids count per rollout.
    #[serde(rename = "attempt_id")]
    _attempt: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct SequenceId {
    sequence_id: u64,
}

/// `POST /spans/next`
pub(super) async fn next(State(state): State<ApiState>, access: Extension<CallerAccess>, body: Bytes) -> ApiResult {
    let next: NextSequenceId = read(&body)?;
    access.require(&next.rollout_id)?;
    let sequence_id = state.sequences.next(&next.rollout_id.as_str().into()).await;
    ok(SequenceId { sequence_id })
}
