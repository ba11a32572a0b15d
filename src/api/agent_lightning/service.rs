//! Health, statistics, workers and resources.

use super::page::{Filter, Paging, from_query, json_of};
use super::{Answer, Refusal, created, fields, ok, paged, read, refuse_null};
use crate::api::state::ApiState;
use crate::trace::WorkerStatus;
use axum::extract::{Path, RawQuery, State};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value as JsonValue, json};

/// `GET /health`
pub(super) async fn health() -> Answer {
    ok(json!({ "status": "ok" }))
}

/// `GET /statistics`
pub(super) async fn statistics(State(state): State<ApiState>) -> Answer {
    let counts = state.rollouts.store().statistics().await?;
    ok(json!({
        "name": "tracewire",
        "total_rollouts": counts.rollouts,
        "total_attempts": counts.attempts,
        "total_spans": counts.spans,
        "total_resources": counts.resources,
        "total_workers": counts.workers,
        "total_span_bytes": counts.size_bytes,
        "uptime": state.started.elapsed().as_secs_f64(),
    }))
}

#[derive(Deserialize)]
struct WantedWorkers {
    #[serde(default)]
    status_in: Option<Vec<WorkerStatus>>,
    #[serde(default)]
    worker_id_contains: Option<String>,
}

/// `GET /workers`
pub(super) async fn workers(State(state): State<ApiState>, RawQuery(query): RawQuery) -> Answer {
    find_workers(&state, from_query(query.as_deref(), &["status_in"])?).await
}

/// `POST /workers/search`
pub(super) async fn search_workers(State(state): State<ApiState>, body: Bytes) -> Answer {
    find_workers(&state, paged(&body)?).await
}

async fn find_workers(state: &ApiState, (wanted, paging): (WantedWorkers, Paging)) -> Answer {
    paging.check(WORKER_FIELDS)?;
    let words = |statuses: Vec<WorkerStatus>| json_of(&statuses).iter().filter_map(text).collect();
    let filter = Filter::default()
        .one_of("status", wanted.status_in.map(words))
        .contains("worker_id", wanted.worker_id_contains);
    let workers = state.rollouts.store().workers().await?;
    ok(paging.page(json_of(&workers), &filter))
}

fn text(json: &JsonValue) -> Option<String> {
    json.as_str().map(str::to_owned)
}

const WORKER_FIELDS: &[&str] = &[
    "worker_id",
    "status",
    "heartbeat_stats",
    "last_heartbeat_time",
    "last_dequeue_time",
    "last_busy_time",
    "last_idle_time",
    "current_rollout_id",
    "current_attempt_id",
];

/// `GET /workers/{worker}`
pub(super) async fn worker(State(state): State<ApiState>, Path(id): Path<String>) -> Answer {
    let workers = state.rollouts.store().workers().await?;
    ok(workers.into_iter().find(|worker| worker.worker_id == id))
}

/// `POST /workers/{worker}`
pub(super) async fn update_worker(State(state): State<ApiState>, Path(id): Path<String>, body: Bytes) -> Answer {
    let mut fields = fields(&body)?;
    refuse_null(&fields, &["heartbeat_stats"])?;
    let stats = fields.remove("heartbeat_stats");
    if stats.as_ref().is_some_and(|stats| !stats.is_object()) {
        let place = vec!["body".to_owned(), "heartbeat_stats".to_owned()];
        return Err(Refusal::Schema { place, message: "Input should be a valid dictionary".to_owned() });
    }
    ok(state.rollouts.update_worker(id, stats).await?)
}

#[derive(Deserialize)]
struct WantedResources {
    #[serde(default)]
    resources_id: Option<String>,
    #[serde(default)]
    resources_id_contains: Option<String>,
}

/// `GET /resources`
pub(super) async fn resources(State(state): State<ApiState>, RawQuery(query): RawQuery) -> Answer {
    let (wanted, paging) = from_query::<WantedResources>(query.as_deref(), &[])?;
    paging.check(&["resources_id", "create_time", "update_time", "version", "resources"])?;
    let filter = Filter::default()
        .is("resources_id", wanted.resources_id)
        .contains("resources_id", wanted.resources_id_contains);
    let all = state.rollouts.store().all_resources().await?;
    ok(paging.page(json_of(&all), &filter))
}

/// `POST /resources`
pub(super) async fn add_resources(State(state): State<ApiState>, body: Bytes) -> Answer {
    created(state.rollouts.put_resources(None, named_resources(&body)?).await?)
}

/// `POST /resources/{resources}`
pub(super) async fn update_resources(State(state): State<ApiState>, Path(id): Path<String>, body: Bytes) -> Answer {
    ok(state.rollouts.put_resources(Some(id), named_resources(&body)?).await?)
}

/// Resources by name, each of a known sort with what that sort needs; what may be left out is filled in.
fn named_resources(body: &Bytes) -> Answer<JsonValue> {
    let mut named: Map<String, JsonValue> = read(body)?;
    for (name, resource) in &mut named {
        let wrong = |field: &str, message: &str| Refusal::Schema {
            place: vec!["body".to_owned(), name.clone(), field.to_owned()],
            message: message.to_owned(),
        };
        let kind = resource["resource_type"].as_str().unwrap_or_default().to_owned();
        let needed: &[&str] = match kind.as_str() {
            "llm" | "proxy_llm" => &["endpoint", "model"],
            "prompt_template" => &["template", "engine"],
            _ => return Err(wrong("resource_type", "Input should be llm, proxy_llm or prompt_template")),
        };
        if let Some(missing) = needed.iter().find(|field| !resource[**field].is_string()) {
            return Err(wrong(missing, "Input should be a valid string"));
        }
        let Some(fields) = resource.as_object_mut() else { continue };
        if kind == "prompt_template" {
            let engine = fields["engine"].as_str().unwrap_or_default();
            if !["jinja", "f-string", "poml"].contains(&engine) {
                return Err(wrong("engine", "Input should be 'jinja', 'f-string' or 'poml'"));
            }
        } else {
            fields.entry("api_key").or_insert(JsonValue::Null);
            fields.entry("sampling_parameters").or_insert_with(|| json!({}));
        }
    }
    Ok(JsonValue::Object(named))
}

/// `GET /resources/latest`
pub(super) async fn latest_resources(State(state): State<ApiState>) -> Answer {
    let all = state.rollouts.store().all_resources().await?;
    // Of equals the last, which came last.
    ok(all.into_iter().max_by_key(|resources| resources.update_time))
}

/// `GET /resources/{resources}`
pub(super) async fn one_resources(State(state): State<ApiState>, Path(id): Path<String>) -> Answer {
    let all = state.rollouts.store().all_resources().await?;
    ok(all.into_iter().find(|resources| resources.resources_id == id))
}
