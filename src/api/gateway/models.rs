//! Models of Agent Lightning 1.0: a model and the endpoint that serves it, which is a backend here.

use crate::api::request_json::read;
use crate::api::respond::{ApiError, ApiResult, created, ok};
use crate::api::state::ApiState;
use crate::gateway::{Backend, BackendEngine, BackendSettings};
use crate::util::secret::Secret;
use axum::extract::State;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};
use utoipa::ToSchema;

/// Agent Lightning's `Model`, with optional fields of our own: `weight`, `engine` and `key`.
#[derive(Deserialize, ToSchema)]
pub(super) struct NewModel {
    model: String,
    /// The base URL of its API, with the `/v1`.
    endpoint: String,
    /// The version of its weights.
    #[serde(default)]
    version: i64,
    /// Its share of the rollouts, relative to the other endpoints of the model; absent: 1.
    #[serde(default)]
    weight: Option<f64>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    engine: Option<BackendEngine>,
    /// The bearer token for the endpoint.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    key: Option<Secret>,
}

/// `POST /api/models`
pub(super) async fn register(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    let models: Vec<NewModel> = read(&body)?;
    for (place, model) in models.into_iter().enumerate() {
        let NewModel { model, endpoint, version, weight, engine, key } = model;
        let found = state.redactor.url(&endpoint).into_owned();
        let (weight, engine) = (weight.unwrap_or(1.0), engine.unwrap_or_default());
        let settings = BackendSettings { model, url: endpoint, version, weight, engine, key: key.unwrap_or_default() };
        let registered = state.gateway.register(&settings, None);
        registered
            .map_err(|error| ApiError::of_value(&["body", &place.to_string(), "endpoint"], error.to_string(), found))?;
    }
    // The response repeats the request, without keys.
    let mut models: Vec<Map<String, JsonValue>> = read(&body)?;
    for model in &mut models {
        model.remove("key");
        model.entry("version").or_insert_with(|| 0.into());
    }
    created(models)
}

/// A model and an endpoint of it.
#[derive(Serialize, ToSchema)]
pub(super) struct ModelView {
    model: String,
    endpoint: String,
    version: i64,
}

/// `GET /api/models`, which Agent Lightning does not have.
pub(super) async fn list(State(state): State<ApiState>) -> ApiResult {
    let view = |backend: &Backend| ModelView {
        model: backend.model.clone(),
        endpoint: backend.url.clone(),
        version: backend.version(),
    };
    ok(state.gateway.backends().all().iter().map(|backend| view(backend)).collect::<Vec<_>>())
}

#[derive(Serialize, ToSchema)]
pub(super) struct Cleared {
    /// `ok`.
    status: &'static str,
}

/// `DELETE /api/models`
pub(super) async fn clear(State(state): State<ApiState>) -> ApiResult {
    state.gateway.backends().remove(|_| true);
    ok(Cleared { status: "ok" })
}
