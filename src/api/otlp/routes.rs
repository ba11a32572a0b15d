//! The routes of OTLP over HTTP.

use super::http;
use crate::api::access::RouteRollouts::{All, ByHandler};
use crate::api::route::{Route, post};
use crate::api::schema::object;
use axum::http::StatusCode;

/// The rows of the table.
pub(crate) fn routes() -> Vec<Route> {
    let unsupported = StatusCode::NOT_IMPLEMENTED;
    vec![
        post("/v1/traces", http::traces)
            .agent(ByHandler, "Export spans: ExportTraceServiceRequest")
            .body_as(CONTENT_TYPES, object)
            .returns_as(StatusCode::OK, CONTENT_TYPES, object),
        post("/v1/metrics", http::metrics).write(All, "Not supported").returns_as(unsupported, CONTENT_TYPES, object),
        post("/v1/logs", http::logs).write(All, "Not supported").returns_as(unsupported, CONTENT_TYPES, object),
        post("/v1/development/profiles", http::profiles).write(All, "Not supported").returns_as(
            unsupported,
            CONTENT_TYPES,
            object,
        ),
    ]
}

const CONTENT_TYPES: &[&str] = &["application/json", "application/x-protobuf"];
