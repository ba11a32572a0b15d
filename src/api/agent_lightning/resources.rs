//! Named resources: endpoints and prompts that rollouts run with, in versions.

use super::page::{Filter, from_query, to_json};
use crate::api::request_json::read;
use crate::api::respond::{ApiError, ApiResult, created, ok};
use crate::api::state::ApiState;
use axum::extract::{Path, RawQuery, State};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value as JsonValue, json};
use utoipa::IntoParams;

/// The conditions of a listing of resources.
#[derive(Deserialize, IntoParams)]
pub(super) struct ResourcesConditions {
    #[serde(default)]
    resources_id: Option<String>,
    /// A part of the id.
    #[serde(default)]
    resources_id_contains: Option<String>,
}

/// `GET /resources`
pub(super) async fn list(State(state): State<ApiState>, RawQuery(query): RawQuery) -> ApiResult {
    let (conditions, paging) = from_query::<ResourcesConditions>(query.as_deref(), &[])?;
    paging.check(&["resources_id", "create_time", "update_time", "version", "resources"])?;
    let filter = Filter::default()
        .is("resources_id", conditions.resources_id)
        .contains("resources_id", conditions.resources_id_contains);
    let all = state.rollouts.store().all_resources().await?;
    ok(paging.page(to_json(&all), &filter))
}

/// `POST /resources`
pub(super) async fn add(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    created(state.rollouts.put_resources(None, named_resources(&body)?).await?)
}

/// `POST /resources/{resources}`
pub(super) async fn update(State(state): State<ApiState>, Path(id): Path<String>, body: Bytes) -> ApiResult {
    ok(state.rollouts.put_resources(Some(id), named_resources(&body)?).await?)
}

/// Resources by name. Each has a known type with the required fields of that type; missing optional fields are added.
fn named_resources(body: &Bytes) -> ApiResult<JsonValue> {
    let mut named: Map<String, JsonValue> = read(body)?;
    for (name, resource) in &mut named {
        if !resource.is_object() {
            return Err(ApiError::of_value(&["body", name], "Input should be a valid dictionary", resource.clone()));
        }
        let found = resource.clone();
        let invalid =
            |field: &str, message: &str| ApiError::of_value(&["body", name, field], message, found[field].clone());
        let kind = resource["resource_type"].as_str().unwrap_or_default().to_owned();
        let required: &[&str] = match kind.as_str() {
            "llm" | "proxy_llm" => &["endpoint", "model"],
            "prompt_template" => &["template", "engine"],
            _ => return Err(invalid("resource_type", "Input should be llm, proxy_llm or prompt_template")),
        };
        if let Some(missing) = required.iter().find(|field| !resource[**field].is_string()) {
            return Err(invalid(missing, "Input should be a valid string"));
        }
        let Some(fields) = resource.as_object_mut() else { continue };
        if kind == "prompt_template" {
            let engine = fields["engine"].as_str().unwrap_or_default();
            if !["jinja", "f-string", "poml"].contains(&engine) {
                return Err(invalid("engine", "Input should be 'jinja', 'f-string' or 'poml'"));
            }
        } else {
            fields.entry("api_key").or_insert(JsonValue::Null);
            fields.entry("sampling_parameters").or_insert_with(|| json!({}));
        }
    }
    Ok(JsonValue::Object(named))
}

/// `GET /resources/latest`
pub(super) async fn latest(State(state): State<ApiState>) -> ApiResult {
    let all = state.rollouts.store().all_resources().await?;
    // `max_by_key` returns the last of equal elements, which was added last.
    ok(all.into_iter().max_by_key(|resources| resources.update_time))
}

/// `GET /resources/{resources}`
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> ApiResult {
    let all = state.rollouts.store().all_resources().await?;
    ok(all.into_iter().find(|resources| resources.resources_id == id))
}
