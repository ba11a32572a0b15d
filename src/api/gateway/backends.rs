//! Backends and reroutes: what a worker must know, and how trainers register model servers.

use crate::api::request_json::{read, read_fields, typed};
use crate::api::respond::{ApiError, ApiResult, ok};
use crate::api::state::ApiState;
use crate::gateway::{Backend, BackendEngine, BackendSettings, Reroute};
use crate::util::secret::Secret;
use axum::extract::{Path, State};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value as JsonValue;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
pub(super) struct Info {
    /// The version of the program.
    version: &'static str,
    /// The URL of the proxy.
    proxy: String,
    /// The number of backends.
    backends: usize,
    /// True if `/v1/tracewire/keys` makes keys that authenticate: for the API, and as the password of the proxy.
    signed_keys: bool,
}

/// `GET /v1/tracewire/info`
pub(super) async fn info(State(state): State<ApiState>) -> ApiResult {
    ok(Info {
        version: env!("CARGO_PKG_VERSION"),
        proxy: format!("http://{}", state.proxy_address),
        backends: state.gateway.backends().all().len(),
        signed_keys: !state.gateway.settings().signing_key.is_empty(),
    })
}

/// A backend, without its key.
#[derive(Serialize, ToSchema)]
pub(super) struct BackendView {
    id: String,
    model: String,
    url: String,
    /// The version of its weights.
    version: i64,
    weight: f64,
    engine: &'static str,
    healthy: bool,
    /// Calls that it is answering.
    in_flight: usize,
}

impl BackendView {
    fn of(backend: &Backend) -> Self {
        Self {
            id: backend.id.clone(),
            model: backend.model.clone(),
            url: backend.url.clone(),
            version: backend.version(),
            weight: backend.weight(),
            engine: backend.engine().as_str(),
            healthy: backend.is_healthy(),
            in_flight: backend.in_flight(),
        }
    }
}

/// `GET /v1/tracewire/backends`
pub(super) async fn list(State(state): State<ApiState>) -> ApiResult {
    ok(state.gateway.backends().all().iter().map(|backend| BackendView::of(backend)).collect::<Vec<_>>())
}

/// `POST /v1/tracewire/backends`
pub(super) async fn register(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    let all: Vec<BackendSettings> = match read::<JsonValue>(&body)? {
        JsonValue::Array(_) => read(&body)?,
        _ => vec![read(&body)?],
    };
    let mut registered = Vec::new();
    for settings in &all {
        let backend = state.gateway.register(settings, None).map_err(|error| ApiError::Invalid(error.to_string()))?;
        registered.push(BackendView::of(&backend));
    }
    ok(registered)
}

/// The number of backends that a request removed.
#[derive(Serialize, ToSchema)]
pub(super) struct RemovedBackends {
    removed: usize,
}

/// `DELETE /v1/tracewire/backends/{id}`, where the id may be the URL.
pub(super) async fn remove(State(state): State<ApiState>, Path(id): Path<String>) -> ApiResult {
    match state.gateway.backends().remove(|backend| backend.id == id || backend.url == id) {
        0 => Err(ApiError::NotFound(format!("Backend {id} not found"))),
        removed => ok(RemovedBackends { removed }),
    }
}

/// `GET /v1/tracewire/reroutes`
pub(super) async fn reroutes(State(state): State<ApiState>) -> ApiResult {
    ok(state.gateway.reroutes().as_ref())
}

/// `PUT /v1/tracewire/reroutes`
pub(super) async fn set_reroutes(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    let reroutes: Vec<Reroute> = read(&body)?;
    state.gateway.set_reroutes(reroutes.clone());
    ok(reroutes)
}

/// A worker that rLLM registers.
#[derive(Deserialize, ToSchema)]
pub(crate) struct NewWorker {
    /// The URL of the model server, with or without the path of its API.
    url: String,
    /// The path of its API, instead of the one in the URL.
    #[serde(default)]
    api_path: Option<String>,
    /// The model that it serves; absent: any.
    #[serde(default)]
    model_name: Option<String>,
    #[serde(default)]
    weight: Option<f64>,
    /// Absent: a random id.
    #[serde(default)]
    worker_id: Option<String>,
}

/// The worker that rLLM has registered.
#[derive(Serialize, ToSchema)]
pub(crate) struct RegisteredWorker {
    worker_id: String,
    url: String,
    api_path: String,
}

/// `POST /admin/workers` of rLLM's gateway.
pub(crate) fn register_worker(state: &ApiState, body: &Bytes) -> ApiResult<RegisteredWorker> {
    let invalid = |text: &str| ApiError::InvalidRllm(text.to_owned());
    let fields = read_fields(body).unwrap_or_default();
    if !fields.contains_key("url") {
        return Err(invalid("url is required"));
    }
    let worker: NewWorker = typed("body", &JsonValue::Object(fields)).map_err(|error| match error {
        ApiError::Schema(problem) => ApiError::InvalidRllm(problem.to_string()),
        other => other,
    })?;
    if worker.url.is_empty() {
        return Err(invalid("url is required"));
    }
    let (url, api_path) = worker_address(&worker.url, worker.api_path).map_err(invalid)?;
    let settings = BackendSettings {
        model: worker.model_name.unwrap_or_default(),
        url: format!("{url}{api_path}"),
        version: state.gateway.backends().common_version().unwrap_or_default(),
        weight: worker.weight.unwrap_or(1.0),
        engine: BackendEngine::Auto,
        key: Secret::default(),
    };
    let id = worker.worker_id.unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
    let backend =
        state.gateway.register(&settings, Some(id)).map_err(|error| ApiError::InvalidRllm(error.to_string()))?;
    Ok(RegisteredWorker { worker_id: backend.id.clone(), url, api_path })
}

/// The URL of a worker without a path, and the path of its API: `api_path` if there is one, else that of the URL, else
/// `/v1`.
fn worker_address(url: &str, api_path: Option<String>) -> Result<(String, String), &'static str> {
    let uri: http::Uri = url.parse().map_err(|_| "url is no URL")?;
    let authority = uri.authority().ok_or("url names no host")?;
    let path = match (api_path, uri.path().trim_end_matches('/')) {
        // Without a slash it would become a part of the host.
        (Some(path), _) if !path.is_empty() && !path.starts_with('/') => format!("/{path}"),
        (Some(path), _) => path,
        (None, "") => "/v1".to_owned(),
        (None, path) => path.to_owned(),
    };
    Ok((format!("{}://{authority}", uri.scheme_str().unwrap_or("http")), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_has_an_address_and_a_path() {
        for (url, api_path, expected) in [
            ("http://gpu:8000", None, Ok(("http://gpu:8000", "/v1"))),
            ("gpu:8000", None, Ok(("http://gpu:8000", "/v1"))),
            ("https://gpu/api/", None, Ok(("https://gpu", "/api"))),
            ("http://gpu/api", Some("/v2"), Ok(("http://gpu", "/v2"))),
            ("http://gpu", Some("v2"), Ok(("http://gpu", "/v2"))),
            ("http://gpu/v1", Some(""), Ok(("http://gpu", ""))),
            ("/v1", None, Err("url names no host")),
        ] {
            let expected = expected.map(|(url, path): (&str, &str)| (url.to_owned(), path.to_owned()));
            assert_eq!(worker_address(url, api_path.map(str::to_owned)), expected, "{url} {api_path:?}");
        }
    }
}
