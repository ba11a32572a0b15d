//! Reads the URL of a call: which rollout and attempt it belongs to, what it is for, and which API it is.
//!
//! Pure. An id is the text between two slashes, percent-decoded once; it is never used as a path.

use crate::error::{ErrorKind, ProxyError};
use crate::forward::NamedRollout;
use crate::llm::api::ApiCall;
use crate::trace::check_id;
use percent_encoding::percent_decode_str;

/// The interface that a call was made through. It decides what is checked, and the format of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApiSurface {
    /// `/v1/…`, and `/rollout/{rollout}/attempt/{attempt}/…` of Agent Lightning 0.3.
    Plain,
    /// `/proxy/rollout/{rollout}/attempt/{attempt}/mode/{mode}/openai/v1/…` of Agent Lightning 1.0.
    V1,
    /// `/sessions/{session}/v1/…` of rLLM's gateway.
    Session,
    /// A call to another host that the proxy took (`[[reroute]]`).
    Reroute,
}

impl ApiSurface {
    /// The surface of a path of the API listener, also if the rest of the path is invalid.
    pub(super) fn of(path: &str) -> Self {
        match path {
            _ if path.starts_with("/proxy/rollout/") => Self::V1,
            _ if path.starts_with("/sessions/") => Self::Session,
            _ => Self::Plain,
        }
    }
}

/// What a call is for. It decides about sampling parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallMode {
    /// `train`: the parameters of `[gateway.train]` apply.
    Train,
    /// `val`: the parameters of `[gateway.val]` apply.
    Val,
}

impl CallMode {
    /// The mode with this name; `None` for any other text.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "train" => Some(Self::Train),
            "val" => Some(Self::Val),
            _ => None,
        }
    }

    /// The name in URLs and spans.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
        }
    }
}

/// The parsed URL of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) surface: ApiSurface,
    /// The rollout and attempt in the URL; empty if the URL names none.
    pub(super) identity: NamedRollout,
    /// What the call is for; `None` if the URL does not say.
    pub(super) mode: Option<CallMode>,
    /// The API, its endpoint, and the model if the path names one.
    pub(super) api: ApiCall,
    /// The query without `?`; empty if there is none.
    pub(super) query: String,
}

impl Route {
    /// Parses the target of a request to the API listener.
    pub(super) fn parse(target: &str) -> Result<Self, ProxyError> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let route = |surface, identity, mode, tail: &str| {
            let unknown = || match surface {
                ApiSurface::V1 => format!("Unsupported upstream path: {}", tail.trim_start_matches('/')),
                _ => format!("no LLM API has the path {}", shortened(tail)),
            };
            let api = ApiCall::at_gateway(tail).ok_or_else(|| unknown_route(unknown()))?;
            if let Some(error) = api.model_in_path().and_then(|model| check_id(model).err()) {
                let cause = format!("the model in the path: {error}");
                return Err(ProxyError::new(ErrorKind::CallMalformed, "", cause));
            }
            Ok(Self { surface, identity, mode, api, query: query.to_owned() })
        };
        if let Some(rest) = path.strip_prefix("/rollout/") {
            let (identity, tail) = rollout_and_attempt(rest)?;
            return route(ApiSurface::Plain, identity, None, tail);
        }
        if let Some(rest) = path.strip_prefix("/proxy/rollout/") {
            let (identity, tail) = rollout_and_attempt(rest)?;
            let mode = tail.strip_prefix("/mode/").and_then(|tail| tail.split_once('/'));
            let Some((mode, tail)) = mode else { return Err(unknown_route("Not Found".to_owned())) };
            let Some(mode) = CallMode::from_name(mode) else {
                return Err(unknown_route(format!("Unsupported proxy mode: {}", shortened(mode))));
            };
            let Some(tail) = tail.strip_prefix("openai/v1") else {
                return Err(unknown_route("Not Found".to_owned()));
            };
            return route(ApiSurface::V1, identity, Some(mode), tail);
        }
        if let Some(rest) = path.strip_prefix("/sessions/") {
            let Some((id, tail)) = session_and_tail(rest) else { return Err(unknown_route("Not Found".to_owned())) };
            let identity = NamedRollout { rollout: Some(parse_id(id)?.as_str().into()), attempt: None };
            return route(ApiSurface::Session, identity, None, tail);
        }
        route(ApiSurface::Plain, NamedRollout::default(), None, path)
    }

    /// The rollout and attempt in a path, also if the rest of it is invalid.
    pub(super) fn identity_in(path: &str) -> NamedRollout {
        let rest = path.strip_prefix("/rollout/").or_else(|| path.strip_prefix("/proxy/rollout/"));
        rest.and_then(|rest| rollout_and_attempt(rest).ok()).map(|(identity, _)| identity).unwrap_or_default()
    }

    /// Parses the target of a request to another host. `None`: it is not an LLM call.
    pub(super) fn parse_rerouted(target: &str) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let api = ApiCall::at_other_host(path)?;
        let (identity, query) = (NamedRollout::default(), query.to_owned());
        Some(Self { surface: ApiSurface::Reroute, identity, mode: None, api, query })
    }
}

/// True for the base URL that names a rollout, and for `/api/hello` below it. Clients such as Claude Code request them to see
/// whether the server is there: they are no calls.
pub(super) fn is_base_url(path: &str) -> bool {
    let rest = path.strip_prefix("/rollout/").and_then(|rest| rest.split_once("/attempt/"));
    let Some((rollout, rest)) = rest else { return false };
    let (attempt, tail) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let has_ids = [rollout, attempt].iter().all(|id| parse_id(id).is_ok()) && !rollout.contains('/');
    has_ids && matches!(tail, "" | "/" | "/api/hello")
}

/// Reads `{rollout}/attempt/{attempt}`; also returns what follows, with its slash.
fn rollout_and_attempt(rest: &str) -> Result<(NamedRollout, &str), ProxyError> {
    let invalid = || unknown_route("the path is /rollout/{rollout}/attempt/{attempt}/v1/…".to_owned());
    let (rollout, rest) = rest.split_once("/attempt/").ok_or_else(invalid)?;
    if rollout.contains('/') {
        return Err(invalid());
    }
    let end = rest.find('/').ok_or_else(invalid)?;
    let (attempt, tail) = rest.split_at(end);
    let (rollout, attempt) = (parse_id(rollout)?, parse_id(attempt)?);
    Ok((NamedRollout { rollout: Some(rollout.as_str().into()), attempt: Some(attempt.as_str().into()) }, tail))
}

/// Divides a path into a session id and `/v1` or `/v1/…`. The id may contain slashes; the shortest one is taken.
fn session_and_tail(rest: &str) -> Option<(&str, &str)> {
    let mut ends = rest.match_indices("/v1").map(|(at, _)| at);
    ends.find(|at| *at > 0 && matches!(rest.as_bytes().get(at + 3), None | Some(b'/'))).map(|at| rest.split_at(at))
}

/// Decodes an id in a URL or an API key. An error if it could not be stored unchanged.
pub(super) fn parse_id(encoded: &str) -> Result<String, ProxyError> {
    let invalid = |cause: String| ProxyError::new(ErrorKind::CallMalformed, "", cause);
    let id = percent_decode_str(encoded).decode_utf8().map_err(|_| invalid("an id is not UTF-8".to_owned()))?;
    check_id(&id).map_err(|error| invalid(error.to_string()))?;
    Ok(id.into_owned())
}

fn unknown_route(cause: String) -> ProxyError {
    ProxyError::new(ErrorKind::RouteUnknown, "", cause)
}

/// The start of a path, for an error message.
fn shortened(path: &str) -> String {
    path.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Parsed = Result<(ApiSurface, Option<String>, Option<String>, String), String>;

    fn parse(target: &str) -> Parsed {
        let route = Route::parse(target).map_err(|error| error.cause)?;
        let rollout = route.identity.rollout.map(|id| id.to_string());
        let attempt = route.identity.attempt.map(|id| id.to_string());
        Ok((route.surface, rollout, attempt, route.api.path()))
    }

    fn parsed(surface: ApiSurface, rollout: &str, attempt: &str, api: &str) -> Parsed {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok((surface, some(rollout), some(attempt), api.to_owned()))
    }

    #[test]
    fn urls_name_rollouts_and_apis() {
        for (target, expected) in [
            ("/api/v1/chat/completions", Some("/chat/completions")),
            ("/openai/deployments/d/chat/completions?api-version=1", Some("/chat/completions")),
            ("/backend-api/codex/responses", Some("/responses")),
            ("/v1/messages/count_tokens?beta=true", Some("/messages/count_tokens")),
            ("/v1/projects/p/publishers/google/models/g:generateContent", Some("/models/g:generateContent")),
            ("/v1/files", None),
        ] {
            assert_eq!(Route::parse_rerouted(target).map(|route| route.api.path()).as_deref(), expected, "{target}");
        }
        for (target, expected) in [
            (
                "/rollout/ro-1/attempt/at-1/v1/chat/completions",
                parsed(ApiSurface::Plain, "ro-1", "at-1", "/chat/completions"),
            ),
            (
                "/rollout/a%2Fb%2E%2E/attempt/..%00x/v1/messages",
                Err("an id must not contain control characters".to_owned()),
            ),
            ("/rollout/a%2Fb/attempt/../v1/messages", parsed(ApiSurface::Plain, "a/b", "..", "/messages")),
            ("/rollout/%61%2531/attempt/0/v1/completions?x=1", parsed(ApiSurface::Plain, "a%31", "0", "/completions")),
            (
                "/rollout/r/attempt/a/v1beta/models/g-2:streamGenerateContent?alt=sse",
                parsed(ApiSurface::Plain, "r", "a", "/models/g-2:streamGenerateContent"),
            ),
            ("/rollout/r/attempt/a/v1/models", parsed(ApiSurface::Plain, "r", "a", "/models")),
            ("/rollout/r/attempt/a/v1/models/org%2Fm", parsed(ApiSurface::Plain, "r", "a", "/models/org/m")),
            ("/rollout/r/attempts/a/v1/models", Err("the path is /rollout/{rollout}/attempt/{attempt}/v1/…".into())),
            ("/rollout//attempt/a/v1/models", Err("an id must not be empty".into())),
            (
                "/proxy/rollout/r/attempt/0/mode/train/openai/v1/chat/completions",
                parsed(ApiSurface::V1, "r", "0", "/chat/completions"),
            ),
            (
                "/proxy/rollout/r/attempt/0/mode/test/openai/v1/chat/completions",
                Err("Unsupported proxy mode: test".into()),
            ),
            ("/proxy/rollout/r/attempt/0/mode/val/openai/v1/files", Err("Unsupported upstream path: files".into())),
            ("/sessions/task/7/v1/chat/completions", parsed(ApiSurface::Session, "task/7", "", "/chat/completions")),
            ("/sessions/v1/v1/v1/responses", Err("no LLM API has the path /v1/v1/responses".into())),
            ("/sessions/s/v1", Err("no LLM API has the path /v1".into())),
            ("/v1/embeddings", parsed(ApiSurface::Plain, "", "", "/embeddings")),
            ("/v1/agl", Err("no LLM API has the path /v1/agl".into())),
        ] {
            assert_eq!(parse(target), expected, "{target}");
        }
        assert!(parse(&format!("/rollout/{}/attempt/0/v1/models", "x".repeat(4096))).is_err());
        assert!(parse("/rollout/%ff/attempt/0/v1/models").is_err());
    }

    proptest! {
        #[test]
        fn any_id_is_decoded_to_itself(rollout in "[^\\pC]{0,40}\\w", attempt in "[^\\pC]{0,40}\\w") {
            let encoded = |id: &str| percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string();
            let target = format!("/rollout/{}/attempt/{}/v1/chat/completions", encoded(&rollout), encoded(&attempt));
            prop_assert_eq!(parse(&target), parsed(ApiSurface::Plain, &rollout, &attempt, "/chat/completions"));
        }

        #[test]
        fn nothing_panics(target in "\\PC{0,200}") {
            drop(Route::parse(&target));
        }
    }
}
