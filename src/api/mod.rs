//! The server door: health and metrics. The store's REST APIs, OTLP ingest and the web page come here too.
//!
//! It must not see traffic; it reads counters and the store.

pub mod metrics;

use crate::store::SharedStore;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// `[server]` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Host names it answers to, besides addresses and `localhost`: a browser page of another site must not reach it by
    /// a name that it made resolve to this machine.
    pub allowed_hosts: Vec<String>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 4747)), allowed_hosts: Vec::new() }
    }
}

/// What the handlers read.
#[derive(Clone)]
pub struct ApiState {
    /// The store.
    pub store: SharedStore,
    /// Reads the counters of the other parts.
    pub counts: metrics::Counts,
    /// Host names answered to.
    pub allowed_hosts: Arc<[String]>,
}

/// The routes of the server door.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route("/", get(|| async { HELP }))
        .route("/healthz", get(health))
        .route("/metrics", get(metrics::serve))
        .layer(middleware::from_fn_with_state(state.clone(), known_host))
        .with_state(state)
}

async fn health(State(state): State<ApiState>) -> Response {
    match state.store.statistics().await {
        Ok(statistics) => axum::Json(serde_json::json!({ "status": "ok", "store": statistics })).into_response(),
        Err(error) => {
            let body = serde_json::json!({ "status": "error", "message": error.to_string() });
            (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body)).into_response()
        }
    }
}

/// Refuses names that are not ours (DNS rebinding).
async fn known_host(State(state): State<ApiState>, headers: HeaderMap, request: Request, next: Next) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).or_else(|| request.uri().host());
    let name = host.map(|host| host.parse::<http::uri::Authority>().map(|host| host.host().to_owned()));
    let known = match name {
        Some(Ok(name)) => {
            let bare = name.trim_matches(['[', ']']);
            bare == "localhost"
                || bare.parse::<IpAddr>().is_ok()
                || state.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(bare))
        }
        Some(Err(_)) => false,
        None => true,
    };
    if known {
        return next.run(request).await;
    }
    let text = "this host name is not served; name it in server.allowed_hosts\n";
    (StatusCode::FORBIDDEN, text).into_response()
}

const HELP: &str = "This is the server door of Tracewire: /healthz and /metrics.\n";
