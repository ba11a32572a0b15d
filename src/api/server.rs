//! The API on the connections of its listeners. LLM calls, which are many, bypass the router.

use super::router::{grpc_router, is_known_host, router, unknown_host};
use super::state::ApiState;
use super::{access, gateway};
use crate::error::FramingFault;
use crate::gateway::Gateway;
use crate::net::http_server::{HttpConnection, serve};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use std::net::SocketAddr;

/// Serves one listener. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ApiServer {
    router: TowerToHyperService<Router>,
    // `None`: no LLM calls on this listener.
    calls: Option<ApiState>,
}

impl ApiServer {
    /// All routes, and LLM calls.
    pub(crate) fn new(state: ApiState) -> Self {
        Self { router: TowerToHyperService::new(router(state.clone())), calls: Some(state) }
    }

    /// OTLP over gRPC, and nothing else.
    pub(crate) fn grpc(state: ApiState) -> Self {
        Self { router: TowerToHyperService::new(grpc_router(state)), calls: None }
    }

    /// Serves a connection until it is closed, or until the drain has started and its requests are finished.
    pub(crate) async fn serve(self, connection: HttpConnection) {
        let peer = connection.peer;
        let respond = |request| {
            let server = self.clone();
            async move { server.respond(peer, request).await }
        };
        serve(connection, respond).await;
    }

    async fn respond(self, peer: SocketAddr, request: Result<http::Request<Incoming>, FramingFault>) -> Response {
        let mut request: Request = match request {
            Ok(request) => request.map(Body::new),
            Err(fault) => {
                let error = fault.of_request();
                let text = format!("{error}; {}", error.fix());
                return (error.status(), axum::Json(json!({ "detail": text }))).into_response();
            }
        };
        // The router responds to other origins, whose responses need header fields.
        let is_plain_call =
            Gateway::is_call_path(request.uri().path()) && !request.headers().contains_key(header::ORIGIN);
        match &self.calls {
            Some(state) if is_plain_call => {
                if !is_known_host(state, &request) {
                    return unknown_host();
                }
                match access::judge(state, &request) {
                    Ok(access) => gateway::call(state, peer, &access, request).await,
                    Err(rejected) => *rejected,
                }
            }
            _ => {
                request.extensions_mut().insert(ConnectInfo(peer));
                self.router.call(request).await.into_response()
            }
        }
    }
}
