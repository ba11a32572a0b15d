//! Authorisation: tokens with scopes, compared in constant time, and the access that each route requires.
//!
//! A [`Token`] allows scopes, and all rollouts or some. A signed key, which agents get, allows what the agent of one attempt
//! does. A [`RouteAccess`] stands in the row of each route. Without tokens every caller has full access, which is why such a
//! listener may bind to loopback only.

use super::respond::{ApiError, ApiResult};
use super::token::{RolloutScope, Scope, Token};
use crate::gateway::{Gateway, NamedRollout, rollout_of_key};
use crate::llm::api::api_key;
use crate::trace::check_id;
use crate::util::glob::text_matches;
use crate::util::secret::Secret;
use axum::RequestPartsExt;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// The access of one caller. Handlers get it as an extension of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallerAccess {
    /// By a token, or without one if there are no tokens.
    Rollouts(RolloutScope),
    /// By a signed key, for this rollout, and only for this attempt if it names one.
    Key { rollout: String, attempt: Option<String> },
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
            Self::Key { rollout: id, .. } => id == rollout,
        }
    }

    /// True when the caller may use this attempt of a rollout that it may use.
    pub(super) fn includes_attempt(&self, attempt: &str) -> bool {
        !matches!(self, Self::Key { attempt: Some(only), .. } if only != attempt)
    }

    /// The rollout that the caller is limited to, if it is exactly one.
    pub(super) fn only_rollout(&self) -> Option<&str> {
        match self {
            Self::Rollouts(RolloutScope::All) => None,
            Self::Rollouts(RolloutScope::Rollouts(patterns)) => match patterns.as_slice() {
                [one] if !one.contains('*') => Some(one),
                _ => None,
            },
            Self::Key { rollout, .. } => Some(rollout),
        }
    }

    /// The attempt that the caller is limited to.
    pub(super) fn only_attempt(&self) -> Option<&str> {
        match self {
            Self::Rollouts(_) => None,
            Self::Key { attempt, .. } => attempt.as_deref(),
        }
    }

    /// An error unless the caller may use this rollout.
    pub(super) fn require(&self, rollout: &str) -> ApiResult<()> {
        if self.includes(rollout) {
            return Ok(());
        }
        Err(ApiError::Forbidden(format!("this token is not for rollout {rollout}")))
    }

    /// An error unless the caller may use this attempt of this rollout.
    pub(super) fn require_attempt(&self, rollout: &str, attempt: &str) -> ApiResult<()> {
        self.require(rollout)?;
        if self.includes_attempt(attempt) {
            return Ok(());
        }
        Err(ApiError::Forbidden(format!("this key is not for attempt {attempt}")))
    }
}

/// The access that a route requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteAccess {
    /// No token: the response contains nothing confidential.
    Open,
    /// A token with this scope, for the rollouts that the route concerns.
    Token(Scope, RouteRollouts),
    /// A token with [`Scope::Write`], for the rollouts that the route concerns, or the signed key of an agent: what an agent
    /// sends about its own attempt.
    Agent(RouteRollouts),
}

impl RouteAccess {
    /// The scope that a token needs, and the rollouts that it must be for. `None`: no token is needed.
    pub(super) fn needed(self) -> Option<(Scope, RouteRollouts)> {
        match self {
            Self::Open => None,
            Self::Token(scope, rollouts) => Some((scope, rollouts)),
            Self::Agent(rollouts) => Some((Scope::Write, rollouts)),
        }
    }

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
    pub(super) signing_key: Secret,
    pub(super) access: RouteAccess,
}

/// Passes a request on if its caller has the access that the route requires.
pub(super) async fn check(State(check): State<AccessCheck>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    // Rejected only when the path is not UTF-8; the handler's own extractor says so.
    let parameters = parts.extract::<RawPathParams>().await.ok();
    let parameter = |name: &str| {
        let found = parameters.as_ref()?.iter().find(|(key, _)| *key == name);
        found.map(|(_, id)| id.to_owned())
    };
    let rollout = match check.access.needed() {
        Some((_, RouteRollouts::InPath(name))) => parameter(name),
        _ => None,
    };
    let by_key = match check.access {
        RouteAccess::Agent(_) => access_by_signed_key(&check.signing_key, &parts.headers, ""),
        _ => None,
    };
    let authorised = match by_key {
        Some(caller) => {
            let attempt = parameter("attempt");
            let named = rollout.as_deref().map_or(Ok(()), |rollout| match attempt.as_deref() {
                Some(attempt) => caller.require_attempt(rollout, attempt),
                None => caller.require(rollout),
            });
            named.map(|()| caller)
        }
        None => authorise(&check.tokens, check.access, &parts.headers, rollout.as_deref()),
    };
    let invalid_id = parameters.iter().flatten().find_map(|(name, id)| Some((name, id, check_id(id).err()?)));
    if let (Ok(_), Some((name, id, error))) = (&authorised, invalid_id) {
        return ApiError::of_value(&["path", name], error.to_string(), id).into_response();
    }
    match authorised {
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
    let (key, query) = (&gateway.settings().signing_key, request.uri().query().unwrap_or_default());
    if let Some(caller) = access_by_signed_key(key, request.headers(), query) {
        return Ok(caller);
    }
    authorise(tokens, RouteAccess::llm_call(request.method()), request.headers(), None)
}

/// The access that a signed API key of a rollout gives; `None` without a valid one. Unsigned keys give none: they only
/// name a rollout.
fn access_by_signed_key(signing_key: &Secret, headers: &HeaderMap, query: &str) -> Option<CallerAccess> {
    let is_signed = !signing_key.is_empty();
    let NamedRollout { rollout, attempt } =
        rollout_of_key(signing_key, headers, query).ok().flatten().filter(|_| is_signed)?;
    let attempt = attempt.map(|attempt| attempt.as_str().to_owned());
    Some(CallerAccess::Key { rollout: rollout?.as_str().to_owned(), attempt })
}

/// The access of the caller with these header fields, if it is enough. `rollout` is the one in the path.
pub(super) fn authorise(
    tokens: &[Token],
    access: RouteAccess,
    headers: &HeaderMap,
    rollout: Option<&str>,
) -> ApiResult<CallerAccess> {
    let Some((scope, rollouts)) = access.needed().filter(|_| !tokens.is_empty()) else {
        return Ok(CallerAccess::full());
    };
    let presented = api_key(headers).unwrap_or_default();
    // Every token is compared, so that the time does not depend on which one matches.
    let known = tokens.iter().fold(None, |known, one| if one.token.matches(presented) { Some(one) } else { known });
    let Some(token) = known.filter(|_| !presented.is_empty()) else {
        return Err(ApiError::Unauthorized("Invalid or missing API key".to_owned()));
    };
    // A token for some rollouts may delete these.
    let is_own = matches!(rollouts, RouteRollouts::InPath(_)) && token.rollouts != RolloutScope::All;
    let scope = if scope == Scope::Admin && is_own { Scope::Write } else { scope };
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
