//! The gateway's side of the server door: agents' calls, and what a trainer does with backends and the gate.

use super::access::Access;
use super::agent_lightning::{Answer, Refusal, created, ok, read, read_some};
use super::state::ApiState;
use crate::gateway::{Backend, BackendEngine, BackendSettings, Gateway, PauseForm, Reroute, issue_key};
use crate::util::secret::Secret;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// The routes of trainers.
pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/v1/tracewire/info", get(info))
        .route("/v1/tracewire/backends", get(backends).post(register))
        .route("/v1/tracewire/backends/{*id}", delete(remove))
        .route("/v1/tracewire/reroutes", get(reroutes).put(set_reroutes))
        .route("/v1/tracewire/keys", post(new_key))
        .route("/proxy/pause", post(pause))
        .route("/proxy/resume", post(resume))
        .route("/proxy/drain", post(drain))
        .route("/proxy/state", get(gate_state))
        .route("/api/models", get(models).post(register_models).delete(clear_models))
}

/// What is nobody else's is nothing, but for calls of models that came through all the layers.
pub(super) async fn fallback(
    State(state): State<ApiState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    access: Extension<Access>,
    request: Request,
) -> Response {
    if Gateway::is_call_path(request.uri().path()) {
        return call(&state, peer, &access, request).await;
    }
    (StatusCode::NOT_FOUND, Json(json!({ "detail": "Not Found" }))).into_response()
}

/// A call of a model.
pub(super) async fn call(state: &ApiState, peer: SocketAddr, access: &Access, request: Request) -> Response {
    let rollout = state.gateway.rollout_of(&request);
    if !access.is_full() && !rollout.as_deref().is_some_and(|rollout| access.may(rollout)) {
        let text = "this token is for some rollouts only, and the call names none of them";
        return (StatusCode::FORBIDDEN, Json(json!({ "detail": text, "error": { "message": text } }))).into_response();
    }
    state.gateway.serve_api(peer, state.guard.clone(), request).await.map(Body::new)
}

/// `GET /v1/tracewire/info`: what a worker must know.
async fn info(State(state): State<ApiState>) -> Answer {
    ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "proxy": format!("http://{}", state.proxy_address),
        "backends": state.gateway.backends().all().len(),
    }))
}

/// `GET /v1/tracewire/backends`
async fn backends(State(state): State<ApiState>) -> Answer {
    ok(state.gateway.backends().all().iter().map(|backend| described(backend)).collect::<Vec<_>>())
}

/// A backend, without its key.
fn described(backend: &Backend) -> Value {
    json!({
        "id": backend.id,
        "model": backend.model,
        "url": backend.url,
        "version": backend.version(),
        "weight": backend.weight(),
        "engine": backend.engine().as_str(),
        "healthy": backend.is_healthy(),
        "in_flight": backend.in_flight(),
    })
}

/// `POST /v1/tracewire/backends`: one, or a list.
async fn register(State(state): State<ApiState>, body: Bytes) -> Answer {
    let list: Vec<BackendSettings> = match read::<Value>(&body)? {
        Value::Array(_) => read(&body)?,
        _ => vec![read(&body)?],
    };
    let mut registered = Vec::new();
    for settings in &list {
        let backend = state.gateway.register(settings, None).map_err(|error| Refusal::Invalid(error.to_string()))?;
        registered.push(described(&backend));
    }
    ok(registered)
}

/// `DELETE /v1/tracewire/backends/{id}`
async fn remove(State(state): State<ApiState>, Path(id): Path<String>) -> Answer {
    match state.gateway.backends().remove(|backend| backend.id == id || backend.url == id) {
        0 => Err(Refusal::NotFound(format!("Backend {id} not found"))),
        count => ok(json!({ "removed": count })),
    }
}

/// `GET /v1/tracewire/reroutes`
async fn reroutes(State(state): State<ApiState>) -> Answer {
    ok(state.gateway.reroutes().as_ref())
}

/// `PUT /v1/tracewire/reroutes`: all of them.
async fn set_reroutes(State(state): State<ApiState>, body: Bytes) -> Answer {
    let reroutes: Vec<Reroute> = read(&body)?;
    state.gateway.set_reroutes(reroutes.clone());
    ok(reroutes)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    rollout_id: String,
    #[serde(default)]
    attempt_id: Option<String>,
    /// 0: it never expires.
    #[serde(default)]
    expires_in_seconds: u64,
}

/// `POST /v1/tracewire/keys`: an API key that names a rollout.
async fn new_key(State(state): State<ApiState>, access: Extension<Access>, body: Bytes) -> Answer {
    let NewKey { rollout_id, attempt_id, expires_in_seconds } = read(&body)?;
    access.check(&rollout_id)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let expires = if expires_in_seconds == 0 { 0 } else { now.saturating_add(expires_in_seconds) };
    let signing_key = &state.gateway.settings().signing_key;
    ok(json!({ "key": issue_key(&rollout_id, attempt_id.as_deref(), expires, signing_key) }))
}

#[derive(Deserialize)]
struct Pause {
    #[serde(default = "five")]
    retry_after_seconds: u64,
    #[serde(default)]
    reason: Option<String>,
    /// `refuse` or `hold`; not there: as settings say.
    #[serde(default)]
    form: Option<PauseForm>,
}

fn five() -> u64 {
    5
}

/// `POST /proxy/pause`
async fn pause(State(state): State<ApiState>, body: Bytes) -> Answer {
    // A list would do for the fields in their order.
    let fields: serde_json::Map<String, Value> = read(&body)?;
    let Pause { retry_after_seconds, reason, form } = read(&Value::Object(fields).to_string().into())?;
    let form = form.unwrap_or(state.gateway.settings().pause);
    state.gateway.gate().pause(form, retry_after_seconds, reason);
    ok(state.gateway.gate().state())
}

/// `POST /proxy/resume`
async fn resume(State(state): State<ApiState>) -> Answer {
    state.gateway.gate().resume();
    ok(state.gateway.gate().state())
}

#[derive(Deserialize)]
struct Drain {
    #[serde(default = "drain_seconds")]
    timeout_seconds: f64,
}

fn drain_seconds() -> f64 {
    600.0
}

/// `POST /proxy/drain`: answers when nobody is inside, 200; or when that takes too long, 504.
async fn drain(State(state): State<ApiState>, body: Bytes) -> Answer {
    let seconds = read_some::<Drain>(&body)?.map_or_else(drain_seconds, |drain| drain.timeout_seconds);
    let limit = Duration::try_from_secs_f64(seconds)
        .map_err(|_| Refusal::Invalid("timeout_seconds must be a number of seconds".to_owned()))?;
    let drained = state.gateway.gate().drained(limit).await;
    let status = if drained { StatusCode::OK } else { StatusCode::GATEWAY_TIMEOUT };
    Ok((status, Json(state.gateway.gate().state())).into_response())
}

/// `GET /proxy/state`
async fn gate_state(State(state): State<ApiState>) -> Answer {
    ok(state.gateway.gate().state())
}

/// Agent Lightning 1.0's `Model`, and what we take besides.
#[derive(Deserialize)]
struct Model {
    model: String,
    endpoint: String,
    #[serde(default)]
    version: i64,
    #[serde(default)]
    weight: Option<f64>,
    #[serde(default)]
    engine: Option<BackendEngine>,
    #[serde(default)]
    key: Option<Secret>,
}

/// `POST /api/models`
async fn register_models(State(state): State<ApiState>, body: Bytes) -> Answer {
    let models: Vec<Model> = read(&body)?;
    for model in models {
        let Model { model, endpoint, version, weight, engine, key } = model;
        let (weight, engine) = (weight.unwrap_or(1.0), engine.unwrap_or_default());
        let settings = BackendSettings { model, url: endpoint, version, weight, engine, key: key.unwrap_or_default() };
        state.gateway.register(&settings, None).map_err(|error| Refusal::Schema {
            place: vec!["body".to_owned(), "endpoint".to_owned()],
            message: error.to_string(),
        })?;
    }
    // The echo is what was sent, but for a key.
    let mut echo: Vec<serde_json::Map<String, Value>> = read(&body)?;
    for model in &mut echo {
        model.remove("key");
        model.entry("version").or_insert_with(|| 0.into());
    }
    created(echo)
}

/// `GET /api/models`, which Agent Lightning has not.
async fn models(State(state): State<ApiState>) -> Answer {
    let models = state.gateway.backends().all();
    let model =
        |backend: &Backend| json!({ "model": backend.model, "endpoint": backend.url, "version": backend.version() });
    ok(models.iter().map(|backend| model(backend)).collect::<Vec<_>>())
}

/// `DELETE /api/models`
async fn clear_models(State(state): State<ApiState>) -> Answer {
    state.gateway.backends().remove(|_| true);
    ok(json!({ "status": "ok" }))
}

/// The fields of an rLLM worker.
#[derive(Deserialize)]
struct Worker {
    url: String,
    #[serde(default)]
    api_path: Option<String>,
    #[serde(default)]
    model_name: Option<String>,
    #[serde(default)]
    weight: Option<f64>,
    #[serde(default)]
    worker_id: Option<String>,
}

/// `POST /admin/workers` of rLLM's gateway. A worker without a model serves any.
pub(super) fn register_worker(state: &ApiState, body: &Bytes) -> Result<Value, String> {
    let worker: Worker = read(body).map_err(|_| "url is required".to_owned())?;
    if worker.url.is_empty() {
        return Err("url is required".to_owned());
    }
    let uri: http::Uri = worker.url.parse().map_err(|_| "url is no URL".to_owned())?;
    let path = match (worker.api_path, uri.path().trim_end_matches('/')) {
        (Some(path), _) => path,
        (None, "") => "/v1".to_owned(),
        (None, path) => path.to_owned(),
    };
    let authority = uri.authority().map(ToString::to_string).ok_or("url names no host")?;
    let base = format!("{}://{authority}", uri.scheme_str().unwrap_or("http"));
    let settings = BackendSettings {
        model: worker.model_name.unwrap_or_default(),
        url: format!("{base}{path}"),
        version: state.gateway.backends().common_version().unwrap_or_default(),
        weight: worker.weight.unwrap_or(1.0),
        engine: BackendEngine::Auto,
        key: Secret::default(),
    };
    let id = worker.worker_id.unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
    let backend = state.gateway.register(&settings, Some(id)).map_err(|error| error.to_string())?;
    Ok(json!({ "worker_id": backend.id, "url": base, "api_path": path }))
}
