//! Authorisation: tokens with scopes, compared in constant time, and the access that each route requires.
//!
//! A [`Token`] allows scopes, and all rollouts or some. A [`RouteAccess`] stands in the row of each route. Without tokens
//! every caller has full access, which is why such a listener may bind to loopback only.

use super::respond::{ApiError, ApiResult};
use crate::gateway::Gateway;
use crate::llm::api::api_key;
use crate::util::glob::text_matches;
use crate::util::secret::Secret;
use axum::RequestPartsExt;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One of `[[server.tokens]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    /// The secret that callers present, in a header that an LLM API has for keys: `Authorization: Bearer …`, `x-api-key` …
    pub(crate) token: Secret,
    /// What the token allows.
    #[serde(default = "read_and_write")]
    pub(crate) scopes: Vec<Scope>,
    /// The rollouts that the token is for, in the settings a list of patterns with `*`. An empty list means all.
    #[serde(default)]
    pub(crate) rollouts: RolloutScope,
}

fn read_and_write() -> Vec<Scope> {
    vec![Scope::Read, Scope::Write]
}

/// A kind of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// Requests that change nothing.
    Read,
    /// Requests that change rollouts, spans or backends, and LLM calls. Does not include [`Self::Read`].
    Write,
    /// Every request, whatever scope its route needs.
    Admin,
}

impl Scope {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    /// The scope that a request needs by its method alone.
    fn of_method(method: &Method) -> Self {
        if *method == Method::GET || *method == Method::HEAD { Self::Read } else { Self::Write }
    }
}

/// The rollouts that a caller may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub(crate) enum RolloutScope {
    /// Every rollout, and requests that concern no rollout or all of them.
    #[default]
    All,
    /// The rollouts that match one of these patterns with `*`, and nothing else.
    Rollouts(Vec<String>),
}

impl From<Vec<String>> for RolloutScope {
    fn from(patterns: Vec<String>) -> Self {
        if patterns.is_empty() { Self::All } else { Self::Rollouts(patterns) }
    }
}

impl From<RolloutScope> for Vec<String> {
    fn from(scope: RolloutScope) -> Self {
        match scope {
            RolloutScope::All => Self::new(),
            RolloutScope::Rollouts(patterns) => patterns,
        }
    }
}

/// The access of one caller. Handlers get it as an extension of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallerAccess {
    /// By a token, or without one if there are no tokens.
    Rollouts(RolloutScope),
    /// By a signed key, for this rollout.
    Rollout(String),
}

impl CallerAccess {
    /// Access to everything.
    pub(super) fn full() -> Self {
        Self::Rollouts(RolloutScope::All)
    }

    /// True when the caller may use every rollout.
    pub(super) fn includes_all(&self) -> bool {
        *self == Self::full()
    }

    /// True when the caller may use this rollout.
    pub(super) fn includes(&self, rollout: &str) -> bool {
        match self {
            Self::Rollouts(RolloutScope::All) => true,
            Self::Rollouts(RolloutScope::Rollouts(patterns)) => {
                patterns.iter().any(|pattern| text_matches(pattern, rollout))
            }
            Self::Rollout(id) => id == rollout,
        }
    }

    /// The rollout that the caller is limited to, if it is exactly one.
    pub(super) fn only_rollout(&self) -> Option<&str> {
        match self {
            Self::Rollouts(RolloutScope::All) => None,
            Self::Rollouts(RolloutScope::Rollouts(patterns)) => match patterns.as_slice() {
                [one] if !one.contains('*') => Some(one),
                _ => None,
            },
            Self::Rollout(id) => Some(id),
        }
    }

    /// An error unless the caller may use this rollout.
    pub(super) fn require(&self, rollout: &str) -> ApiResult<()> {
        if self.includes(rollout) {
            return Ok(());
        }
        Err(ApiError::Forbidden(format!("this token is not for rollout {rollout}")))
    }
}

/// The access that a route requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteAccess {
    /// No token: the response contains nothing confidential.
    Open,
    /// A token with this scope, for the rollouts that the route concerns.
    Token(Scope, RouteRollouts),
}

impl RouteAccess {
    /// For requests that match no route: callers without access do not learn which routes exist.
    pub(super) fn unmatched(method: &Method) -> Self {
        Self::Token(Scope::of_method(method), RouteRollouts::All)
    }

    /// For LLM calls, which are not in the table. The gateway reads their rollout from the path, the header fields or the
    /// key, see `calls`.
    pub(super) fn llm_call(method: &Method) -> Self {
        Self::Token(Scope::of_method(method), RouteRollouts::ByHandler)
    }
}

/// The rollouts that a route concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteRollouts {
    /// All of them, or none in particular. A token for some rollouts is not enough.
    All,
    /// The one in this parameter of the path.
    InPath(&'static str),
    /// Those that the body or the query names. The handler checks them with [`CallerAccess::require`].
    ByHandler,
}

/// The state of [`check`].
#[derive(Clone)]
pub(super) struct AccessCheck {
    pub(super) tokens: Arc<[Token]>,
    pub(super) access: RouteAccess,
}

/// Passes a request on if its caller has the access that the route requires.
pub(super) async fn check(State(check): State<AccessCheck>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let mut rollout = None;
    if let RouteAccess::Token(_, RouteRollouts::InPath(name)) = check.access {
        // Rejected only when the path is not UTF-8; the handler's own extractor says so.
        let parameters = parts.extract::<RawPathParams>().await;
        rollout = parameters.ok().and_then(|all| all.iter().find(|(key, _)| *key == name).map(|(_, id)| id.to_owned()));
    }
    match authorise(&check.tokens, check.access, &parts.headers, rollout.as_deref()) {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(error) => error.into_response(),
    }
}

/// The access of the caller of an LLM call. A signed key that names a rollout replaces the token.
pub(super) fn authorise_llm_call<B>(
    tokens: &[Token],
    gateway: &Gateway,
    request: &http::Request<B>,
) -> ApiResult<CallerAccess> {
    if let Some(caller) = access_by_signed_key(gateway, request) {
        return Ok(caller);
    }
    authorise(tokens, RouteAccess::llm_call(request.method()), request.headers(), None)
}

/// The access that a signed API key of a rollout gives; `None` without a valid one. Unsigned keys give none: they only
/// name a rollout.
fn access_by_signed_key<B>(gateway: &Gateway, request: &http::Request<B>) -> Option<CallerAccess> {
    let is_signed = !gateway.settings().signing_key.is_empty();
    let key = gateway.key_of(request.headers(), request.uri().query().unwrap_or_default());
    let rollout = key.ok().flatten().filter(|_| is_signed)?.rollout?;
    Some(CallerAccess::Rollout(rollout.as_str().to_owned()))
}

/// The access of the caller with these header fields, if it is enough. `rollout` is the one in the path.
pub(super) fn authorise(
    tokens: &[Token],
    access: RouteAccess,
    headers: &HeaderMap,
    rollout: Option<&str>,
) -> ApiResult<CallerAccess> {
    let (scope, rollouts) = match access {
        RouteAccess::Token(scope, rollouts) if !tokens.is_empty() => (scope, rollouts),
        _ => return Ok(CallerAccess::full()),
    };
    let presented = api_key(headers).unwrap_or_default();
    // Every token is compared, so that the time does not depend on which one matches.
    let known = tokens.iter().fold(None, |known, one| if one.token.matches(presented) { Some(one) } else { known });
    let Some(token) = known.filter(|_| !presented.is_empty()) else {
        return Err(ApiError::Unauthorized("Invalid or missing API key".to_owned()));
    };
    if !token.scopes.contains(&scope) && !token.scopes.contains(&Scope::Admin) {
        return Err(ApiError::Forbidden(format!("this token's scopes do not include {}", scope.as_str())));
    }
    let caller = CallerAccess::Rollouts(token.rollouts.clone());
    let is_included = caller.includes_all()
        || match rollouts {
            RouteRollouts::All => false,
            RouteRollouts::InPath(_) => rollout.is_some_and(|rollout| caller.includes(rollout)),
            RouteRollouts::ByHandler => true,
        };
    if is_included { Ok(caller) } else { Err(ApiError::Forbidden("this token is for some rollouts only".to_owned())) }
}
