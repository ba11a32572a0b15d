//! Access to the API: bearer tokens with scopes, compared in constant time.
//!
//! Without tokens every caller has full access, which is why such a listener is allowed on loopback only.

use super::state::ApiState;
use super::token::{Scope, Token};
use crate::gateway::Gateway;
use crate::llm::api::api_key;
use crate::util::glob::text_matches;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// What the caller of a request may do.
#[derive(Clone, Debug)]
pub(super) struct Access {
    rollouts: Vec<String>,
}

impl Access {
    /// Everything.
    pub(super) fn full() -> Self {
        Self { rollouts: Vec::new() }
    }

    /// True when there is nothing that the caller may not do.
    pub(super) fn is_full(&self) -> bool {
        self.rollouts.is_empty()
    }

    /// The one rollout that the caller may speak for, if it is one.
    pub(super) fn only(&self) -> Option<&String> {
        match self.rollouts.as_slice() {
            [one] if !one.contains('*') => Some(one),
            _ => None,
        }
    }

    /// True when this rollout is the caller's business.
    pub(super) fn may(&self, rollout: &str) -> bool {
        self.rollouts.is_empty() || self.rollouts.iter().any(|pattern| text_matches(pattern, rollout))
    }
}

/// Lets a request through whose token allows it; the handlers of spans look at the rollout themselves.
pub(super) async fn check(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    match judge(&state, &request) {
        Ok(access) => {
            request.extensions_mut().insert(access);
            next.run(request).await
        }
        Err(response) => *response,
    }
}

/// What the caller of a request may do, or why it is refused.
pub(super) fn judge<B>(state: &ApiState, request: &http::Request<B>) -> Result<Access, Box<Response>> {
    let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
    let called = if Gateway::is_call_path(path) { called(state, request) } else { None };
    called.map_or_else(|| allowed(&state.tokens, method, path, headers), Ok).map_err(|(status, text)| {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        Box::new((status, challenge, axum::Json(json!({ "detail": text }))).into_response())
    })
}

/// What the caller of a model may do who shows a signed key of a rollout in place of a token. What an unsigned one says
/// is for the gateway to judge.
fn called<B>(state: &ApiState, request: &http::Request<B>) -> Option<Access> {
    let is_signed = !state.gateway.settings().signing_key.is_empty();
    let named = state.gateway.key_of(request.headers(), request.uri().query().unwrap_or_default());
    let rollout = named.ok().flatten().filter(|_| is_signed)?.rollout?;
    Some(Access { rollouts: vec![rollout.as_str().replace('*', "?")] })
}

fn allowed(tokens: &[Token], method: &Method, path: &str, headers: &HeaderMap) -> Result<Access, (StatusCode, String)> {
    if tokens.is_empty() || OPEN.contains(&path) {
        return Ok(Access::full());
    }
    let given = api_key(headers).unwrap_or_default();
    // All are looked at, so that time does not tell which is nearest.
    let known = tokens.iter().fold(None, |known, token| if token.token.matches(given) { Some(token) } else { known });
    let Some(token) = known.filter(|_| !given.is_empty()) else {
        return Err((StatusCode::UNAUTHORIZED, "Invalid or missing API key".to_owned()));
    };
    let needed = scope_of(method, path);
    if !token.scopes.contains(&needed) && !token.scopes.contains(&Scope::Admin) {
        let text = format!("this token's scopes don't include {}", needed.as_str());
        return Err((StatusCode::FORBIDDEN, text));
    }
    let access = Access { rollouts: token.rollouts.clone() };
    if !access.rollouts.is_empty() && !concerns_one(path, &access) {
        return Err((StatusCode::FORBIDDEN, "this token is for some rollouts only".to_owned()));
    }
    Ok(access)
}

/// True when a request concerns a rollout that the caller may see, or names it where only the handler sees it.
fn concerns_one(path: &str, access: &Access) -> bool {
    let nouns = ["/v1/agl/rollouts/", "/api/rollouts/", "/sessions/"];
    let named = nouns.iter().find_map(|noun| path.strip_prefix(noun)).and_then(|rest| rest.split('/').next());
    match named {
        // The handlers of these look themselves, and whoever takes calls of models does.
        _ if Gateway::is_call_path(path) => true,
        Some("search" | "terminal" | "batch_delete") => false,
        None => {
            path.starts_with("/v1/agl/spans")
                || path == "/v1/traces"
                || path == "/v1/tracewire/keys"
                || path.starts_with(GRPC)
        }
        Some(rollout) => {
            let rollout = percent_encoding::percent_decode_str(rollout).decode_utf8_lossy();
            access.may(&rollout)
        }
    }
}

fn scope_of(method: &Method, path: &str) -> Scope {
    let looks = method == Method::GET || method == Method::HEAD || LOOKS.contains(&path) || is_attempt_search(path);
    if looks { Scope::Read } else { Scope::Write }
}

/// `POST /rollouts/{rollout}/attempts/search`
fn is_attempt_search(path: &str) -> bool {
    let rollout = path.strip_prefix("/v1/agl/rollouts/").and_then(|rest| rest.strip_suffix("/attempts/search"));
    rollout.is_some_and(|rollout| !rollout.contains('/'))
}

/// Posted to, and changes nothing.
const LOOKS: &[&str] =
    &["/v1/agl/rollouts/search", "/v1/agl/workers/search", "/v1/agl/spans/search", "/v1/agl/waits/rollouts"];
/// Says nothing that anybody may not know.
const OPEN: &[&str] = &["/", "/health", "/healthz", "/readyz", "/v1/agl/health", "/v1/agl/openapi.json"];
const GRPC: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::secret::Secret;

    fn token(text: &str, scopes: &[Scope], rollouts: &[&str]) -> Token {
        let rollouts = rollouts.iter().map(|pattern| (*pattern).to_owned()).collect();
        Token { token: Secret::new(text), scopes: scopes.to_vec(), rollouts }
    }

    #[test]
    fn tokens_allow_what_they_say() {
        let tokens = [
            token("reader", &[Scope::Read], &[]),
            token("writer", &[Scope::Write], &[]),
            token("admin", &[Scope::Admin], &[]),
            token("one", &[Scope::Read, Scope::Write], &["ro-1*"]),
            token("", &[Scope::Admin], &[]),
        ];
        let status = |given: &str, method: Method, path: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, format!("Bearer {given}").parse().unwrap());
            allowed(&tokens, &method, path, &headers).map_or_else(|(status, _)| status.as_u16(), |_| 200)
        };
        let (get, post) = (Method::GET, Method::POST);
        for (given, method, path, expected) in [
            ("", &get, "/v1/agl/rollouts", 401),
            ("wrong", &get, "/v1/agl/rollouts", 401),
            ("wrong", &get, "/healthz", 200),
            ("reader", &get, "/v1/agl/rollouts", 200),
            ("reader", &get, "/metrics", 200),
            ("reader", &post, "/v1/agl/rollouts/search", 200),
            ("reader", &post, "/v1/agl/rollouts/ro-1/attempts/search", 200),
            ("reader", &post, "/v1/agl/resources/search", 403),
            ("reader", &post, "/v1/agl/rollouts/waits/attempts", 403),
            ("reader", &post, "/v1/agl/rollouts", 403),
            ("writer", &post, "/v1/agl/rollouts", 200),
            ("writer", &get, "/v1/agl/rollouts", 403),
            ("admin", &post, "/v1/agl/rollouts", 200),
            ("one", &get, "/v1/agl/rollouts/ro-12", 200),
            ("one", &post, "/v1/agl/rollouts/ro-2/attempts", 403),
            ("one", &get, "/v1/agl/rollouts", 403),
            ("one", &post, "/v1/agl/queues/rollouts/dequeue", 403),
            ("one", &post, "/v1/agl/spans", 200),
            ("one", &get, "/metrics", 403),
            ("one", &get, "/api/rollouts/ro-12/events", 200),
            ("one", &Method::DELETE, "/api/rollouts/ro-2", 403),
            ("one", &get, "/api/rollouts/terminal", 403),
            ("one", &get, "/api/rollouts", 403),
            ("one", &post, "/sessions/ro-1x/traces", 200),
            ("one", &Method::DELETE, "/sessions/ro-2", 403),
            ("one", &post, "/sessions/batch_delete", 403),
            ("one", &post, "/proxy/pause", 403),
            ("one", &post, "/admin/workers", 403),
            ("one", &post, "/v1/tracewire/backends", 403),
            ("one", &post, "/rollout/ro-2/attempt/0/v1/messages", 200),
        ] {
            assert_eq!(status(given, method.clone(), path), expected, "{given} {method} {path}");
        }
        assert!(allowed(&[], &post, "/v1/agl/rollouts", &HeaderMap::new()).is_ok());
    }
}
