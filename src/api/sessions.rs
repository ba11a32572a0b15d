//! rLLM's gateway API: sessions, which are rollouts, and their traces, which are the calls of models in them.

use super::access::Access;
use super::agent_lightning::{Answer, Refusal, ok};
use super::gateway::register_worker;
use super::state::ApiState;
use crate::export::model_request::{floats, ints, request, response, text, usage, version};
use crate::llm::recorded::is_llm_call;
use crate::rollout::RolloutError;
use crate::trace::semconv as names;
use crate::trace::{Rollout, RolloutId, Span, Timestamp, Value};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value as JsonValue, json};

/// The routes.
pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/sessions", get(list).post(create))
        .route("/sessions/batch_delete", post(remove_many))
        .route("/sessions/{session}", get(one).delete(remove))
        .route("/sessions/{session}/traces", get(traces))
        .route("/traces/query", post(query))
        .route("/traces/{*trace}", get(trace))
        .route("/admin/workers", get(workers).post(add_worker))
        .route("/admin/workers/{worker}", delete(remove_worker))
        // A call of these routes ends when its span is stored: nothing is pending.
        .route("/admin/flush", post(|| async { Json(json!({ "status": "flushed" })) }))
        .route("/admin/reload", post(|| async { Json(json!({ "status": "ok" })) }))
        .route("/admin/weight_version", get(weight_version).post(set_weight_version))
        .route("/health", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/health/workers", get(health))
}

fn failed(status: StatusCode, text: String) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}

/// What can't be read counts as `{}`.
fn fields(body: &Bytes) -> Map<String, JsonValue> {
    serde_json::from_slice(body).unwrap_or_default()
}

/// `POST /sessions`
async fn create(State(state): State<ApiState>, access: Extension<Access>, body: Bytes) -> Answer {
    let mut fields = fields(&body);
    let given = fields.get("session_id").and_then(JsonValue::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
    let id = given.unwrap_or_else(|| format!("{:032x}", fastrand::u128(..)));
    access.check(&id)?;
    let mut metadata = Map::new();
    for name in ["metadata", "sampling_params"] {
        metadata.extend(fields.remove(name).filter(JsonValue::is_object).map(|value| (name.to_owned(), value)));
    }
    let rollout = RolloutId::from(id.as_str());
    let job = move |records: &mut dyn crate::store::Records, now| {
        let known = records.rollout(&rollout)?;
        let mut session = known.unwrap_or_else(|| Rollout::running(rollout.clone(), now));
        if let JsonValue::Object(all) = &mut session.metadata {
            all.extend(metadata.clone());
        }
        Ok::<(), RolloutError>(records.upsert_rollout(&session)?)
    };
    state.rollouts.transact(job).await?;
    ok(json!({ "session_id": id, "url": format!("/sessions/{id}/v1") }))
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    since: Option<f64>,
    #[serde(default)]
    limit: Option<usize>,
}

/// `GET /sessions`
async fn list(State(state): State<ApiState>, Query(page): Query<Page>) -> Answer {
    let summaries = state.rollouts.store().rollouts(usize::MAX).await?;
    let since = page.since.map(Timestamp::from_unix_secs);
    let matching = summaries.iter().filter(|one| since.is_none_or(|since| one.rollout.start_time >= since));
    let page: Vec<&Rollout> = matching.take(page.limit.unwrap_or(usize::MAX)).map(|one| &one.rollout).collect();
    let ids = page.iter().map(|rollout| rollout.rollout_id.clone()).collect();
    let counts = state.rollouts.store().llm_calls(ids).await?;
    let count = |rollout: &Rollout| counts.get(&rollout.rollout_id).copied().unwrap_or_default();
    ok(page.into_iter().map(|rollout| session(rollout, count(rollout))).collect::<Vec<_>>())
}

fn session(rollout: &Rollout, traces: u64) -> JsonValue {
    let metadata = rollout.metadata.get("metadata").cloned().unwrap_or_else(|| json!({}));
    json!({ "session_id": rollout.rollout_id, "trace_count": traces, "created_at": rollout.start_time, "metadata": metadata })
}

/// `GET /sessions/{session}`
async fn one(State(state): State<ApiState>, access: Extension<Access>, Path(id): Path<String>) -> Answer {
    access.check(&id)?;
    let Some(rollout) = state.rollouts.store().rollout(id.as_str().into()).await? else {
        return Ok(failed(StatusCode::NOT_FOUND, format!("Session {id} not found")));
    };
    let traces = trace_count(&state, &rollout.rollout_id).await?;
    ok(session(&rollout, traces))
}

/// `DELETE /sessions/{session}`
async fn remove(State(state): State<ApiState>, Path(id): Path<String>) -> Answer {
    ok(json!({ "deleted": removed(&state, &id).await? }))
}

async fn removed(state: &ApiState, id: &str) -> Result<u64, Refusal> {
    let id = RolloutId::from(id);
    let traces = trace_count(state, &id).await?;
    state.rollouts.remove(id).await?;
    Ok(traces)
}

async fn trace_count(state: &ApiState, rollout: &RolloutId) -> Result<u64, Refusal> {
    let counts = state.rollouts.store().llm_calls(vec![rollout.clone()]).await?;
    Ok(counts.get(rollout).copied().unwrap_or_default())
}

/// The ids of `session_ids`.
fn ids_of(body: &Bytes) -> Vec<String> {
    let ids = fields(body).remove("session_ids").unwrap_or_default();
    serde_json::from_value(ids).unwrap_or_default()
}

/// `POST /sessions/batch_delete`
async fn remove_many(State(state): State<ApiState>, body: Bytes) -> Answer {
    let mut deleted = 0;
    for id in ids_of(&body) {
        deleted += removed(&state, &id).await?;
    }
    ok(json!({ "deleted": deleted }))
}

/// `GET /sessions/{session}/traces`
async fn traces(
    State(state): State<ApiState>,
    access: Extension<Access>,
    Path(id): Path<String>,
    Query(page): Query<Page>,
) -> Answer {
    access.check(&id)?;
    ok(records(&state, &[id], &page).await?)
}

/// `POST /traces/query`
async fn query(State(state): State<ApiState>, body: Bytes) -> Answer {
    let page = serde_json::from_slice(&body).unwrap_or(Page { since: None, limit: None });
    ok(records(&state, &ids_of(&body), &page).await?)
}

async fn records(state: &ApiState, ids: &[String], page: &Page) -> Result<Vec<JsonValue>, Refusal> {
    let since = page.since.map(Timestamp::from_unix_secs);
    let mut all = Vec::new();
    for id in ids {
        let calls = calls(state, &RolloutId::from(id.as_str())).await?;
        let wanted = calls.iter().filter(|span| since.is_none_or(|since| span.end_time >= Some(since)));
        all.extend(wanted.take(page.limit.unwrap_or(usize::MAX)).map(record));
    }
    Ok(all)
}

/// `GET /traces/{trace}`
async fn trace(State(state): State<ApiState>, access: Extension<Access>, Path(id): Path<String>) -> Answer {
    let unknown = || failed(StatusCode::NOT_FOUND, format!("Trace {id} not found"));
    let Some((span_id, rollout)) = id.split_once('-') else { return Ok(unknown()) };
    access.check(rollout)?;
    let calls = calls(&state, &rollout.into()).await?;
    match calls.iter().find(|span| span.span_id == span_id) {
        Some(span) => ok(record(span)),
        None => Ok(unknown()),
    }
}

async fn calls(state: &ApiState, rollout: &RolloutId) -> Result<Vec<Span>, Refusal> {
    let mut spans = state.rollouts.store().spans(rollout.clone(), None).await?;
    spans.retain(is_llm_call);
    Ok(spans)
}

/// A call as rLLM's `TraceRecord`. Its id tells the session too, so that it is found without an index.
fn record(span: &Span) -> JsonValue {
    let (request, response) = (request(span), response(span));
    let number = |name: &str| span.attributes.get(name).and_then(Value::as_int);
    let (prompt, sampled) = (ints(span, names::PROMPT_TOKEN_IDS, 0), ints(span, names::RESPONSE_TOKEN_IDS, 0));
    let mut counts = Map::new();
    if usage(span).is_some() {
        counts.insert("prompt".to_owned(), json!(number(names::GEN_AI_USAGE_INPUT_TOKENS)));
        counts.insert("completion".to_owned(), json!(number(names::GEN_AI_USAGE_OUTPUT_TOKENS)));
    }
    let latency = match (span.start_time, span.end_time) {
        (Some(start), Some(end)) => end.since(start).as_secs_f64() * 1000.0,
        _ => 0.0,
    };
    let is_known = span.attributes.contains_key(names::POLICY_VERSION);
    json!({
        "trace_id": format!("{}-{}", span.span_id, span.rollout_id),
        "session_id": span.rollout_id,
        "model": text(span, names::GEN_AI_REQUEST_MODEL),
        "messages": request.get("messages").cloned().unwrap_or_else(|| json!([])),
        "prompt_token_ids": prompt,
        "response_message": response.pointer("/choices/0/message").cloned().unwrap_or_else(|| json!({})),
        "completion_token_ids": sampled,
        "logprobs": floats(span, names::RESPONSE_LOGPROBS, 0),
        "routing_matrices": null,
        "finish_reason": response.pointer("/choices/0/finish_reason"),
        "weight_version": if is_known { version(span) } else { JsonValue::Null },
        "latency_ms": latency,
        "token_counts": counts,
        "timestamp": span.end_time,
        "metadata": {},
        "raw_request": request,
        "raw_response": response,
    })
}

/// `GET /admin/workers`
async fn workers(State(state): State<ApiState>) -> Answer {
    ok(listed(&state))
}

fn listed(state: &ApiState) -> Vec<JsonValue> {
    let all = state.gateway.backends().all();
    let shown = all.iter().map(|backend| {
        let model = Some(&backend.model).filter(|model| !model.is_empty());
        let base = backend.url.trim_end_matches('/').strip_suffix(&backend.base_path).unwrap_or(&backend.url);
        json!({ "worker_id": backend.id, "url": base, "api_path": backend.base_path, "model_name": model,
                "weight": backend.weight(), "healthy": backend.is_healthy(), "active_requests": backend.in_flight() })
    });
    shown.collect()
}

/// `POST /admin/workers`
async fn add_worker(State(state): State<ApiState>, body: Bytes) -> Answer {
    match register_worker(&state, &body) {
        Ok(worker) => ok(worker),
        Err(text) => Ok(failed(StatusCode::BAD_REQUEST, text)),
    }
}

/// `DELETE /admin/workers/{worker}`
async fn remove_worker(State(state): State<ApiState>, Path(id): Path<String>) -> Answer {
    match state.gateway.backends().remove(|backend| backend.id == id) {
        0 => Ok(failed(StatusCode::NOT_FOUND, format!("Worker {id} not found"))),
        _ => ok(json!({ "removed": id })),
    }
}

/// `GET /admin/weight_version`
async fn weight_version(State(state): State<ApiState>) -> Answer {
    ok(json!({ "weight_version": state.gateway.backends().common_version() }))
}

/// `POST /admin/weight_version`
async fn set_weight_version(State(state): State<ApiState>, body: Bytes) -> Answer {
    let Some(version) = fields(&body).get("weight_version").and_then(JsonValue::as_i64) else {
        return Ok(failed(StatusCode::BAD_REQUEST, "weight_version must be an integer".to_owned()));
    };
    state.gateway.backends().set_version(version);
    ok(json!({ "weight_version": version }))
}

/// `GET /health/workers`
async fn health(State(state): State<ApiState>) -> Answer {
    let all = state.gateway.backends().all();
    let healthy = all.iter().filter(|backend| backend.is_healthy()).count();
    ok(json!({ "workers": listed(&state), "healthy": healthy, "total": all.len() }))
}
