//! The routers: every row of the table behind its access check, and what happens to requests that match no row.

use super::access::{RouteAccess, RouteRollouts, authorise, authorise_llm_call, check};
use super::gateway::calls::{ClientConnection, call, refusal};
use super::idempotency::{IdempotencyCache, deduplicate};
use super::otlp::grpc;
use super::page::check_page;
use super::respond::{ApiError, ApiResult};
use super::route::RetriedRequests;
use super::settings::MAX_BODY_BYTES;
use super::state::ApiState;
use super::table::table;
use crate::gateway::Gateway;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use std::net::IpAddr;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, Any, CorsLayer};

/// The router of the API listener.
pub(super) fn router(state: ApiState) -> Router {
    let cache = IdempotencyCache::default();
    let mut router = Router::new();
    for route in table().into_iter().flat_map(|group| group.routes) {
        let mut handler = route.handler;
        if route.retries == RetriedRequests::Deduplicated {
            handler = handler.route_layer(from_fn_with_state(cache.clone(), deduplicate));
        }
        let guard = state.access_check(route.operation.access);
        router = router.route(route.operation.path, handler.route_layer(from_fn_with_state(guard, check)));
    }
    router
        .fallback(unmatched_path)
        .method_not_allowed_fallback(unmatched_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(state.clone(), check_page))
        .layer(cors(&state.cors_origins))
        .layer(from_fn_with_state(state.clone(), known_host))
        .with_state(state)
}

/// The router of the OTLP gRPC listener.
pub(super) fn grpc_router(state: ApiState) -> Router {
    let guard = state.access_check(RouteAccess::Agent(RouteRollouts::ByHandler));
    grpc::service(state).layer(from_fn_with_state(guard, check))
}

/// LLM calls that web pages make; the others do not get here. Everything else is unknown.
async fn unmatched_path(
    State(state): State<ApiState>,
    Extension(client): Extension<ClientConnection>,
    request: Request,
) -> Response {
    if Gateway::is_call_path(request.uri().path()) {
        return llm_call(&state, client, request).await;
    }
    match authorise_unmatched(&state, &request) {
        Ok(()) => ApiError::NotFoundPlain("Not Found".to_owned()).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn unmatched_method(State(state): State<ApiState>, request: Request) -> ApiError {
    authorise_unmatched(&state, &request).err().unwrap_or(ApiError::MethodNotAllowed)
}

fn authorise_unmatched(state: &ApiState, request: &Request) -> ApiResult<()> {
    let access = RouteAccess::unmatched(request.method());
    authorise(&state.tokens, access, request.headers(), None).map(drop)
}

/// Serves an LLM call if its caller may make it.
pub(super) async fn llm_call(state: &ApiState, client: ClientConnection, request: Request) -> Response {
    match authorise_llm_call(&state.tokens, &state.gateway, &request) {
        Ok(access) => call(state, client, &access, request).await,
        Err(ApiError::Unauthorized(cause)) => refusal(&request, StatusCode::UNAUTHORIZED, &cause),
        Err(ApiError::Forbidden(cause)) => refusal(&request, StatusCode::FORBIDDEN, &cause),
        Err(error) => error.into_response(),
    }
}

/// Allows web pages of these origins to call the API; none by default.
fn cors(origins: &[String]) -> CorsLayer {
    if origins.is_empty() {
        return CorsLayer::new();
    }
    let layer = CorsLayer::new();
    if origins.iter().any(|origin| origin == "*") {
        // Without credentials, which any page could otherwise use.
        return layer.allow_origin(AllowOrigin::any()).allow_methods(Any).allow_headers(Any);
    }
    let origins = AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse().ok()));
    // With credentials, `*` would be the name of a method or a header field.
    let (methods, headers) = (AllowMethods::mirror_request(), AllowHeaders::mirror_request());
    layer.allow_origin(origins).allow_methods(methods).allow_headers(headers).allow_credentials(true)
}

async fn known_host(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if is_known_host(&state, &request) { next.run(request).await } else { unknown_host() }
}

/// False for a request to a host name that is not ours, which a web page can send by DNS rebinding.
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

/// The response to a request for a host name that is not ours.
pub(super) fn unknown_host() -> Response {
    let text = "this host name is not served; add it to server.allowed_hosts\n";
    (StatusCode::FORBIDDEN, text).into_response()
}
