//! The table of all routes, and the documents that describe them.

use super::access::RouteAccess;
use super::access::RouteRollouts::{All, ByHandler};
use super::gateway::calls::LLM_CALLS;
use super::openapi::{Group, document};
use super::respond::ok;
use super::route::{ApiOperation, Route, get};
use super::schema::{object, text};
use super::token::Scope;
use super::{agent_lightning, gateway, health, metrics, otlp, sessions, training, ui, v1};
use axum::http::{Method, StatusCode};
use serde_json::Value as JsonValue;
use std::sync::LazyLock;

/// Routes that a document shows together.
pub(super) struct RouteGroup {
    tag: &'static str,
    pub(super) routes: Vec<Route>,
}

impl RouteGroup {
    fn described(&self) -> Group<'_> {
        Group { tag: self.tag, operations: self.routes.iter().map(|route| &route.operation).collect() }
    }
}

/// All routes of the API listener, without LLM calls.
pub(super) fn table() -> Vec<RouteGroup> {
    let group = |tag, routes| RouteGroup { tag, routes };
    vec![
        group(
            AGENT_LIGHTNING,
            agent_lightning::routes().into_iter().chain([agent_lightning_document_route()]).collect(),
        ),
        group("Agent Lightning 1.0", v1::routes()),
        group("rLLM", sessions::routes()),
        group("Gateway", gateway::routes()),
        group("Training data", training::routes()),
        group("Web page", ui::routes().into_iter().chain(ui::page_routes()).collect()),
        group("OTLP", otlp::routes()),
        group("Server", health::routes().into_iter().chain([metrics_route(), document_route()]).collect()),
    ]
}

const AGENT_LIGHTNING: &str = "Agent Lightning 0.3";

fn metrics_route() -> Route {
    get("/metrics", metrics::serve).read(All, "Get all metrics in Prometheus' text format").returns_as(
        StatusCode::OK,
        &["text/plain"],
        text,
    )
}

fn document_route() -> Route {
    get("/openapi.json", || async { ok(&DOCUMENTS.all) }).open("Get this document").returns(object)
}

fn agent_lightning_document_route() -> Route {
    get("/v1/agl/openapi.json", || async { ok(&DOCUMENTS.agent_lightning) }).open("Get this document").returns(object)
}

struct Documents {
    all: JsonValue,
    agent_lightning: JsonValue,
}

static DOCUMENTS: LazyLock<Documents> = LazyLock::new(|| {
    let (table, calls) = (table(), llm_calls());
    let mut all: Vec<Group<'_>> = table.iter().map(RouteGroup::described).collect();
    all.push(Group { tag: "LLM calls", operations: calls.iter().collect() });
    let store = table.iter().filter(|one| one.tag == AGENT_LIGHTNING).map(RouteGroup::described);
    Documents {
        agent_lightning: document("Tracewire: Agent Lightning's store", &store.collect::<Vec<_>>()),
        all: document("Tracewire", &all),
    }
});

fn llm_calls() -> Vec<ApiOperation> {
    let access = RouteAccess::Token(Scope::Write, ByHandler);
    let call = |(path, summary): &(&'static str, &'static str)| ApiOperation {
        request: Some((&["application/json"], object)),
        responses: vec![(StatusCode::OK, &["application/json", "text/event-stream"], object)],
        ..ApiOperation::new(Method::POST, path, access, summary)
    };
    LLM_CALLS.iter().map(call).collect()
}

#[cfg(test)]
mod tests {
    use super::super::access::{AccessCheck, authorise, check};
    use super::super::token::{RolloutScope, Token};
    use super::*;
    use crate::gateway::Gateway;
    use crate::util::secret::Secret;
    use axum::Router;
    use axum::body::Body;
    use axum::http::{HeaderMap, Request, header};
    use axum::middleware::from_fn_with_state;
    use axum::response::IntoResponse;
    use axum::routing::{MethodFilter, on};
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    fn token(text: &str, scopes: &[Scope], rollouts: &[&str]) -> Token {
        let patterns: Vec<String> = rollouts.iter().map(|pattern| (*pattern).to_owned()).collect();
        Token {
            token: Secret::new(text),
            scopes: scopes.to_vec(),
            rollouts: RolloutScope::from((!patterns.is_empty()).then_some(patterns)),
        }
    }

    /// The rows of the table with their access checks, and handlers that respond with 200.
    fn guarded(tokens: &Arc<[Token]>) -> Router {
        let routes = table().into_iter().flat_map(|group| group.routes);
        routes.fold(Router::new(), |router, Route { operation, .. }| {
            let guard =
                AccessCheck { tokens: Arc::clone(tokens), signing_key: Secret::default(), access: operation.access };
            let method = MethodFilter::try_from(operation.method).unwrap();
            let handler = on(method, || async {}).route_layer(from_fn_with_state(guard, check));
            router.route(operation.path, handler)
        })
    }

    #[tokio::test]
    async fn tokens_allow_what_they_say() {
        let tokens: Arc<[Token]> = Arc::new([
            token("reader", &[Scope::Read], &[]),
            token("writer", &[Scope::Write], &[]),
            token("admin", &[Scope::Admin], &[]),
            token("one", &[Scope::Read, Scope::Write], &["ro-1*"]),
            token("", &[Scope::Admin], &[]),
        ]);
        let router = TowerToHyperService::new(guarded(&tokens));
        let status = async |presented: &str, method: &Method, path: &str| {
            let authorization = format!("Bearer {presented}");
            if Gateway::is_call_path(path) {
                let headers = HeaderMap::from_iter([(header::AUTHORIZATION, authorization.parse().unwrap())]);
                let access = authorise(&tokens, RouteAccess::llm_call(method), &headers, None);
                return access.map_or_else(|error| error.into_response().status().as_u16(), |_| 200);
            }
            let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, authorization);
            router.call(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
        };
        let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
        for (presented, method, path, expected) in [
            ("", &get, "/v1/agl/rollouts", 401),
            ("wrong", &get, "/v1/agl/rollouts", 401),
            ("wrong", &get, "/healthz", 200),
            ("wrong", &get, "/openapi.json", 200),
            ("reader", &get, "/v1/agl/rollouts", 200),
            ("reader", &Method::HEAD, "/v1/agl/rollouts", 200),
            ("reader", &get, "/metrics", 200),
            ("reader", &post, "/v1/agl/rollouts/search", 200),
            ("reader", &post, "/v1/agl/rollouts/ro-1/attempts/search", 200),
            ("reader", &post, "/v1/agl/resources/search", 403),
            ("reader", &post, "/v1/agl/rollouts/waits/attempts", 403),
            ("reader", &post, "/v1/agl/rollouts", 403),
            ("writer", &post, "/v1/agl/rollouts", 200),
            ("writer", &get, "/v1/agl/rollouts", 403),
            ("admin", &post, "/v1/agl/rollouts", 200),
            ("writer", &post, "/api/rollouts", 200),
            ("writer", &post, "/v1/tracewire/keys", 200),
            ("writer", &post, "/api/rollouts/ro-1/attempt/0/events", 200),
            ("writer", &post, "/api/models", 403),
            ("writer", &delete, "/api/models", 403),
            ("writer", &post, "/v1/tracewire/backends", 403),
            ("writer", &delete, "/v1/tracewire/backends/x", 403),
            ("writer", &Method::PUT, "/v1/tracewire/reroutes", 403),
            ("writer", &post, "/proxy/pause", 403),
            ("writer", &post, "/proxy/resume", 403),
            ("writer", &post, "/proxy/drain", 403),
            ("writer", &post, "/admin/workers", 403),
            ("writer", &delete, "/admin/workers/w", 403),
            ("writer", &post, "/admin/weight_version", 403),
            ("writer", &delete, "/api/rollouts/ro-1", 403),
            ("writer", &delete, "/sessions/ro-1", 403),
            ("writer", &post, "/sessions/batch_delete", 403),
            ("admin", &post, "/api/models", 200),
            ("admin", &delete, "/api/rollouts/ro-1", 200),
            ("one", &delete, "/api/rollouts/ro-12", 200),
            ("one", &delete, "/sessions/ro-12", 200),
            ("one", &get, "/v1/agl/rollouts/ro-12", 200),
            ("one", &get, "/v1/agl/rollouts/ro%2D12", 200),
            ("one", &post, "/v1/agl/rollouts/ro-2/attempts", 403),
            ("one", &get, "/v1/agl/rollouts", 403),
            ("one", &post, "/v1/agl/queues/rollouts/dequeue", 403),
            ("one", &post, "/v1/agl/spans", 200),
            ("one", &get, "/metrics", 403),
            ("one", &get, "/api/rollouts/ro-12/events", 200),
            ("one", &delete, "/api/rollouts/ro-2", 403),
            ("one", &get, "/api/rollouts/terminal", 403),
            ("one", &get, "/api/rollouts", 403),
            ("one", &get, "/sessions/ro-1x/traces", 200),
            ("one", &delete, "/sessions/ro-2", 403),
            ("one", &post, "/sessions/batch_delete", 403),
            ("one", &post, "/proxy/pause", 403),
            ("one", &post, "/admin/workers", 403),
            ("one", &post, "/v1/tracewire/backends", 403),
            ("one", &get, "/v1/tracewire/rollouts/ro-1x/verdict", 200),
            ("one", &get, "/v1/tracewire/rollouts/ro-2/trajectory", 403),
            ("one", &post, "/v1/tracewire/keys", 200),
            ("one", &post, "/rollout/ro-2/attempt/0/v1/messages", 200),
        ] {
            assert_eq!(status(presented, method, path).await, expected, "{presented} {method} {path}");
        }
        for (presented, method, expected) in
            [("", &get, 401), ("reader", &post, 403), ("one", &post, 403), ("reader", &get, 200)]
        {
            let headers =
                HeaderMap::from_iter([(header::AUTHORIZATION, format!("Bearer {presented}").parse().unwrap())]);
            let access = authorise(&tokens, RouteAccess::unmatched(method), &headers, None);
            let status = access.map_or_else(|error| error.into_response().status().as_u16(), |_| 200);
            assert_eq!(status, expected, "unknown route: {presented} {method}");
        }
        let without_tokens = TowerToHyperService::new(guarded(&Arc::from([])));
        let request = Request::post("/v1/agl/rollouts").body(Body::empty()).unwrap();
        assert_eq!(without_tokens.call(request).await.unwrap().status(), StatusCode::OK);
    }

    #[test]
    fn a_token_for_an_empty_list_of_rollouts_reaches_none() {
        let tokens = [Token { rollouts: RolloutScope::Rollouts(Vec::new()), ..token("t", &[Scope::Read], &[]) }];
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, "Bearer t".parse().unwrap())]);
        let access = RouteAccess::Token(Scope::Read, All);
        assert!(authorise(&tokens, access, &headers, None).is_err());
    }

    #[test]
    fn the_documents_have_every_route_and_nothing_else() {
        let described = |document: &JsonValue| -> BTreeSet<(String, String)> {
            let paths = document["paths"].as_object().unwrap().iter();
            let methods = paths.flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |one| (path, one)));
            methods.map(|(path, method)| (method.to_uppercase(), path.clone())).collect()
        };
        let operation = |one: &ApiOperation| (one.method.to_string(), one.path.replace("{*", "{"));
        let table = table();
        let routes = |tag: Option<&str>| -> BTreeSet<(String, String)> {
            let groups = table.iter().filter(|group| tag.is_none_or(|tag| tag == group.tag));
            groups.flat_map(|group| group.routes.iter().map(|route| operation(&route.operation))).collect()
        };
        let calls: BTreeSet<_> = llm_calls().iter().map(operation).collect();
        assert_eq!(described(&DOCUMENTS.agent_lightning), routes(Some(AGENT_LIGHTNING)));
        assert_eq!(described(&DOCUMENTS.all), routes(None).union(&calls).cloned().collect());
        assert!(calls.iter().all(|(_, path)| Gateway::is_call_path(path)));
        let rows: usize = table.iter().map(|group| group.routes.len()).sum();
        assert_eq!(rows, routes(None).len(), "no two rows have the same method and path");
    }

    #[test]
    fn every_reference_of_the_documents_has_a_schema() {
        for document in [&DOCUMENTS.all, &DOCUMENTS.agent_lightning] {
            let text = document.to_string();
            for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn every_parameter_of_a_path_is_described() {
        for (path, item) in DOCUMENTS.all["paths"].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let in_path = parameters.filter(|parameter| parameter["in"] == "path");
                let described: Vec<String> =
                    in_path.map(|one| format!("{{{}}}", one["name"].as_str().unwrap())).collect();
                assert_eq!(path.matches('{').count(), described.len(), "{path}");
                assert!(described.iter().all(|name| path.contains(name)), "{path}: {described:?}");
            }
        }
    }
}
