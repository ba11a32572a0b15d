//! The help page, liveness and readiness.

use super::respond::{ApiResult, ok};
use super::route::{Route, get};
use super::schema::{one, text};
use super::state::ApiState;
use crate::store::Statistics;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// The rows of the table.
pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/", help).open("Get a list of the APIs").returns_as(StatusCode::OK, &["text/plain"], text),
        get("/healthz", live).open("Check that the server responds").returns(one::<Liveness>),
        get("/readyz", ready).open("Check that the store responds").returns(one::<Readiness>).returns_as(
            StatusCode::SERVICE_UNAVAILABLE,
            &["application/json"],
            one::<Readiness>,
        ),
    ]
}

/// Browsers get the web page.
async fn help(headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") { Redirect::to("/ui/").into_response() } else { HELP.into_response() }
}

const HELP: &str = "This is the API server of Tracewire. /openapi.json describes every route.\n\
    /v1, /rollout/{id}/attempt/{id}/v1   LLM APIs\n\
    /v1/agl                              Agent Lightning's store (0.3)\n\
    /api                                 Agent Lightning's API (1.0)\n\
    /sessions, /traces, /admin           rLLM's gateway\n\
    /v1/traces                           OTLP\n\
    /ui/                                 the web page\n\
    /healthz, /readyz, /metrics          health and metrics\n";

#[derive(Serialize, ToSchema)]
struct Liveness {
    /// `ok`.
    status: &'static str,
}

async fn live() -> ApiResult {
    ok(Liveness { status: "ok" })
}

#[derive(Serialize, ToSchema)]
struct Readiness {
    /// `ok`, or `error` if the store does not respond.
    status: &'static str,
    /// What the store contains.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    store: Option<Statistics>,
    /// Why what is recorded is incomplete now, although the store responds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// Why the store does not respond.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

async fn ready(State(state): State<ApiState>) -> Response {
    let mut warnings = (state.warnings)();
    match state.rollouts.store().statistics().await {
        Ok(statistics) => {
            if statistics.lost_files > 0 {
                warnings.push(
                    "the store's file was removed or replaced while it was in use: what it held is gone".to_owned(),
                );
            }
            if statistics.damaged_reads > 0 {
                warnings.push("records of the store are damaged: the log names their rollouts".to_owned());
            }
            Json(Readiness { status: "ok", store: Some(statistics), warnings, message: None }).into_response()
        }
        Err(error) => {
            let body = Readiness { status: "error", store: None, warnings, message: Some(error.to_string()) };
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}
