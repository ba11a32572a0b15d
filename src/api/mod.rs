//! The server door: REST APIs of the store and of the gateway, health and metrics.
//!
//! It does what trainers and runners ask of the store, and hands calls of models to the gateway without looking at them.

mod access;
mod agent_lightning;
mod gateway;
mod idempotency;
pub(crate) mod metrics;
pub(crate) mod otlp;
mod sessions;
mod v1;

use crate::gateway::Gateway;
use crate::net::drain::DrainGuard;
use crate::rollout::Rollouts;
use crate::store::BoxFuture;
use crate::trace::span::{Link, SpanContext};
use crate::trace::{Attributes, RolloutId, Span, Value, semconv as names};
use crate::wire::redact::Redactor;
use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

pub(crate) use access::Token;
use idempotency::Waiting;

/// `[server]` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServerSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Host names it answers to, besides addresses and `localhost`: a browser page of another site must not reach it by
    /// a name that it made resolve to this machine.
    pub allowed_hosts: Vec<String>,
    /// Where it takes OTLP over gRPC; none: nowhere.
    pub otlp_grpc_listen: Option<SocketAddr>,
    /// Who may do what; none: everybody everything.
    pub tokens: Vec<Token>,
    /// Web pages of these origins may use it.
    pub cors_origins: Vec<String>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4747)),
            allowed_hosts: Vec::new(),
            otlp_grpc_listen: None,
            tokens: Vec::new(),
            cors_origins: Vec::new(),
        }
    }
}

/// The largest body that is taken.
const MAX_BODY_BYTES: usize = 64 << 20;

/// What the handlers read.
#[derive(Clone)]
pub(crate) struct ApiState {
    /// What is done with rollouts, and their store.
    pub rollouts: Rollouts,
    /// Numbers spans, together with everybody else who does.
    pub sequences: Arc<dyn Sequences>,
    /// Takes secrets out of what others record.
    pub redactor: Arc<Redactor>,
    /// What OTLP ingest counts.
    pub ingest: Arc<otlp::IngestCounters>,
    /// When the program began.
    pub started: Instant,
    /// Reads the metrics of the other parts.
    pub metrics: metrics::MetricsSource,
    /// Host names answered to.
    pub allowed_hosts: Arc<[String]>,
    /// Who may do what.
    pub tokens: Arc<[Token]>,
    /// Origins whose pages may use it.
    pub cors_origins: Arc<[String]>,
    /// Answers calls of models.
    pub(crate) gateway: Gateway,
    /// Held by calls of models until they are over.
    pub guard: DrainGuard,
    /// Where the proxy door is.
    pub proxy_address: SocketAddr,
}

/// What this door shares with the proxy door, which counts and records too: `app` passes it in.
pub(crate) trait Sequences: Send + Sync {
    /// The next id of a rollout.
    fn next<'a>(&'a self, rollout: &'a RolloutId) -> BoxFuture<'a, u64>;

    /// The span with which the proxy recorded the call of this answer, if it did lately.
    fn recorded(&self, rollout: &RolloutId, response_id: &str) -> Option<SpanContext>;

    /// Somebody has used this id: later ones are higher.
    fn raise<'a>(&'a self, rollout: &'a RolloutId, to: u64) -> BoxFuture<'a, ()>;
}

impl ApiState {
    /// Makes a span that somebody else recorded ours: without secrets, and linked to the proxy's if that is the same call.
    fn adopt(&self, span: &mut Span) {
        self.redactor.span(span);
        let response_id = span.attributes.get(names::GEN_AI_RESPONSE_ID).and_then(Value::as_str);
        if let Some(context) = response_id.and_then(|id| self.sequences.recorded(&span.rollout_id, id)) {
            let attributes = Attributes::from([(names::LINK.to_owned(), "same_call".into())]);
            span.links.push(Link { context, attributes: Some(attributes) });
        }
    }
}

/// The routes of the server door.
fn router(state: ApiState) -> Router {
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

/// The server door: its routes, and before them a short way for calls of models, which are many.
pub(crate) fn door(state: ApiState) -> Router {
    let (router, short) = (TowerToHyperService::new(router(state.clone())), state);
    let front = move |ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request| {
        let (router, state) = (router.clone(), short.clone());
        async move {
            let is_plain_call =
                Gateway::is_call_path(request.uri().path()) && !request.headers().contains_key(header::ORIGIN);
            if !is_plain_call {
                return router.call(request).await.into_response();
            }
            if !is_known_host(&state, &request) {
                return unknown_host();
            }
            match access::judge(&state, &request) {
                Ok(access) => gateway::call(&state, peer, &access, request).await,
                Err(refused) => *refused,
            }
        }
    };
    Router::new().fallback(front)
}

/// The gRPC service, for a port of its own.
pub(crate) fn grpc(state: ApiState) -> Router {
    otlp::grpc_service(state.clone()).layer(middleware::from_fn_with_state(state, access::check))
}

/// Lets pages of other origins in, if settings name them; by default none.
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

/// Refuses names that are not ours (DNS rebinding).
async fn known_host(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if is_known_host(&state, &request) { next.run(request).await } else { unknown_host() }
}

fn is_known_host(state: &ApiState, request: &Request) -> bool {
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

fn unknown_host() -> Response {
    let text = "this host name is not served; name it in server.allowed_hosts\n";
    (StatusCode::FORBIDDEN, text).into_response()
}

const HELP: &str = "This is the server door of Tracewire: models under /v1 and /rollout/{id}/attempt/{id}/v1, Agent Lightning's store under\n\
     /v1/agl and its 1.0 API under /api, OTLP under /v1/traces, /healthz and /metrics.\n";
