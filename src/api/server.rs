//! The API on the connections of its listeners. LLM calls take a short way past the router.

use super::gateway::calls::ClientConnection;
use super::page::is_from_browser;
use super::respond::ApiError;
use super::router::{grpc_router, is_known_host, llm_call, router, unknown_host};
use super::state::ApiState;
use crate::error::FramingFault;
use crate::gateway::Gateway;
use crate::net::http_server::{HttpConnection, serve};
use crate::util::panics::{Panicked, caught};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

/// Serves a listener of the API. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ApiServer {
    router: TowerToHyperService<Router>,
    // `None`: LLM calls are not served.
    calls: Option<ApiState>,
}

impl ApiServer {
    /// Serves all routes and LLM calls.
    pub(crate) fn new(state: ApiState) -> Self {
        Self { router: TowerToHyperService::new(router(state.clone())), calls: Some(state) }
    }

    /// Serves OTLP over gRPC, and nothing else.
    pub(crate) fn grpc(state: ApiState) -> Self {
        Self { router: TowerToHyperService::new(grpc_router(state)), calls: None }
    }

    /// Serves a connection until it is closed, or until the drain has started and its requests are finished.
    pub(crate) async fn serve(self, connection: HttpConnection) {
        let client = ClientConnection { peer: connection.peer, drain: connection.drain.clone() };
        let answer = |request| {
            let answering = caught(Box::pin(self.clone().answer(client.clone(), request)));
            async move { answering.await.unwrap_or_else(|Panicked| ApiError::Internal.into_response()) }
        };
        serve(connection, answer).await;
    }

    async fn answer(
        self,
        client: ClientConnection,
        request: Result<http::Request<Incoming>, FramingFault>,
    ) -> Response {
        let mut request: Request = match request {
            Ok(request) => request.map(Body::new),
            Err(fault) => return ApiError::from(fault).into_response(),
        };
        // The router handles what web pages send.
        let is_plain_call = Gateway::is_call_path(request.uri().path()) && !is_from_browser(request.headers());
        match &self.calls {
            Some(state) if is_plain_call => {
                if is_known_host(state, &request) {
                    llm_call(state, client, request).await
                } else {
                    unknown_host()
                }
            }
            _ => {
                request.extensions_mut().insert(client);
                self.router.call(request).await.into_response()
            }
        }
    }
}
