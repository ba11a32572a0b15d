//! The routes of the API: the store's REST APIs, the gateway, OTLP, health and metrics.

use super::idempotency::Waiting;
use super::settings::MAX_BODY_BYTES;
use super::state::ApiState;
use super::{access, agent_lightning, gateway, metrics, otlp, sessions, v1};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::net::IpAddr;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

/// All routes.
pub(super) fn router(state: ApiState) -> Router {
    let waiting = Waiting::default();
    Router::new()
        .route("/", get(|| async { HELP }))
        .route("/healthz", get(|| async { axum::Json(serde_json::json!({ "status": "ok" })) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics::serve))
        .nest("/v1/agl", agent_lightning::router())
        .layer(middleware::from_fn(move |request, next| waiting.clone().run(request, next)))
        .merge(v1::router())
        .merge(sessions::router())
        .merge(gateway::router())
        .merge(otlp::router())
        .fallback(gateway::fallback)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(state.clone(), access::check))
        .layer(cors(&state.cors_origins))
        .layer(middleware::from_fn_with_state(state.clone(), known_host))
        .with_state(state)
}

/// OTLP over gRPC, for a listener of its own.
pub(super) fn grpc_router(state: ApiState) -> Router {
    otlp::grpc_service(state.clone()).layer(middleware::from_fn_with_state(state, access::check))
}

/// Allows pages of the origins that the settings name; by default of none.
fn cors(origins: &[String]) -> CorsLayer {
    if origins.is_empty() {
        return CorsLayer::new();
    }
    let origins = match origins {
        [all] if all == "*" => AllowOrigin::any(),
        list => AllowOrigin::list(list.iter().filter_map(|origin| origin.parse().ok())),
    };
    CorsLayer::new().allow_origin(origins).allow_methods(Any).allow_headers(Any)
}

async fn ready(State(state): State<ApiState>) -> Response {
    match state.rollouts.store().statistics().await {
        Ok(statistics) => axum::Json(serde_json::json!({ "status": "ok", "store": statistics })).into_response(),
        Err(error) => {
            let body = serde_json::json!({ "status": "error", "message": error.to_string() });
            (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body)).into_response()
        }
    }
}

/// Rejects host names that the settings do not name (DNS rebinding).
async fn known_host(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if is_known_host(&state, &request) { next.run(request).await } else { unknown_host() }
}

pub(super) fn is_known_host(state: &ApiState, request: &Request) -> bool {
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).or_else(|| request.uri().host());
    let name = host.map(|host| host.parse::<http::uri::Authority>().map(|host| host.host().to_owned()));
    match name {
        Some(Ok(name)) => {
            let bare = name.trim_matches(['[', ']']);
            bare == "localhost"
                || bare.parse::<IpAddr>().is_ok()
                || state.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(bare))
        }
        Some(Err(_)) => false,
        None => true,
    }
}

pub(super) fn unknown_host() -> Response {
    let text = "this host name is not allowed; add it to server.allowed_hosts\n";
    (StatusCode::FORBIDDEN, text).into_response()
}

const HELP: &str = "This is Tracewire's API: LLM calls under /v1 and /rollout/{id}/attempt/{id}/v1, Agent Lightning's store under\n\
     /v1/agl and its 1.0 API under /api, OTLP under /v1/traces, /healthz and /metrics.\n";
