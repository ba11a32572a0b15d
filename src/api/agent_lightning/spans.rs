//! Spans: added, found, numbered. They are served in the shapes that Agent Lightning's adapters read.

use super::extra::{self, EXTRA, Keys};
use super::page::{Filter, Paging, from_query};
use super::{Answer, created, ok, paged, read};
use crate::api::access::Access;
use crate::api::state::ApiState;
use crate::export::agent_lightning::view;
use crate::trace::{AttemptId, RolloutId, Span};
use axum::Extension;
use axum::extract::{RawQuery, State};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value as JsonValue, json};
use std::sync::Arc;

/// `POST /spans`
pub(super) async fn add(State(state): State<ApiState>, access: Extension<Access>, body: Bytes) -> Answer {
    let mut span: Span = read(&body)?;
    let Keys { extra } = read(&body)?;
    access.check(span.rollout_id.as_str())?;
    if !extra.is_empty() {
        span.set(EXTRA, JsonValue::Object(extra).to_string());
    }
    let rollouts = &state.rollouts;
    // Those of nobody's rollout are a mistake here; by OTLP they are kept.
    rollouts.require_attempt(&span.rollout_id, &span.attempt_id).await?;
    state.adopt(&mut span);
    state.sequences.raise(&span.rollout_id, span.sequence_id).await;
    let span = Arc::new(span);
    let appended = rollouts.append(vec![Arc::clone(&span)]).await?;
    if appended.duplicates > 0 { created(JsonValue::Null) } else { created(extra::json(&span)) }
}

#[derive(Deserialize)]
struct Wanted {
    rollout_id: String,
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
    access: Extension<Access>,
    RawQuery(query): RawQuery,
) -> Answer {
    find(&state, &access, from_query(query.as_deref(), &[])?).await
}

/// `POST /spans/search`
pub(super) async fn search(State(state): State<ApiState>, access: Extension<Access>, body: Bytes) -> Answer {
    find(&state, &access, paged(&body)?).await
}

async fn find(state: &ApiState, access: &Access, (wanted, paging): (Wanted, Paging)) -> Answer {
    access.check(&wanted.rollout_id)?;
    let paging = paging.or_sorted_by("sequence_id");
    paging.check(SPAN_FIELDS)?;
    let rollout = RolloutId::from(wanted.rollout_id.as_str());
    let attempt = match wanted.attempt_id.as_deref() {
        None => None,
        Some("latest") => {
            let latest = state.rollouts.store().attempts(rollout.clone()).await?.pop();
            let Some(latest) = latest else { return ok(paging.page(Vec::new(), &Filter::default())) };
            Some(latest.attempt_id)
        }
        Some(attempt) => Some(AttemptId::from(attempt)),
    };
    let filter = Filter::default()
        .is("trace_id", wanted.trace_id)
        .contains("trace_id", wanted.trace_id_contains)
        .is("span_id", wanted.span_id)
        .contains("span_id", wanted.span_id_contains)
        .is("parent_id", wanted.parent_id)
        .contains("parent_id", wanted.parent_id_contains)
        .is("name", wanted.name)
        .contains("name", wanted.name_contains);
    let spans = view(state.rollouts.store().spans(rollout, attempt).await?);
    if filter.is_empty() && paging.is_by("sequence_id") {
        // As they come: only what is on the page need be written.
        return ok(paging.page_of(&spans, extra::json));
    }
    ok(paging.page(spans.iter().map(extra::json).collect(), &filter))
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

#[derive(Deserialize)]
struct Next {
    rollout_id: String,
    #[serde(rename = "attempt_id")]
    _attempt: String,
}

/// `POST /spans/next`
pub(super) async fn next(State(state): State<ApiState>, access: Extension<Access>, body: Bytes) -> Answer {
    let next: Next = read(&body)?;
    access.check(&next.rollout_id)?;
    let sequence_id = state.sequences.next(&next.rollout_id.as_str().into()).await;
    ok(json!({ "sequence_id": sequence_id }))
}
