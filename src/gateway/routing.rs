//! What a URL of the gateway says: whose call it is, in which mode, of which API.
//!
//! Pure. Ids are opaque bytes between two slashes, percent-decoded once; they are never a path.

use crate::error::{ErrorKind, ProxyError};
use crate::forward::NamedRollout;
use crate::llm::api::ApiCall;
use percent_encoding::percent_decode_str;

/// Whose contract a call is made under: it decides what is checked, and how errors look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiSurface {
    /// `/v1/…`, and `/rollout/{rollout}/attempt/{attempt}/…` of Agent Lightning 0.3.
    Plain,
    /// `/proxy/rollout/{rollout}/attempt/{attempt}/mode/{mode}/openai/v1/…` of Agent Lightning 1.0.
    V1,
    /// `/sessions/{session}/v1/…` of rLLM's gateway.
    Session,
    /// A host that the proxy door intercepted.
    Reroute,
}

impl ApiSurface {
    /// By the beginning of a path, also where the rest of it can't be read.
    pub fn of(path: &str) -> Self {
        match path {
            _ if path.starts_with("/proxy/rollout/") => Self::V1,
            _ if path.starts_with("/sessions/") => Self::Session,
            _ => Self::Plain,
        }
    }
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Training.
    Train,
    /// Validation.
    Val,
}

impl Mode {
    /// The mode of this name.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "train" => Some(Self::Train),
            "val" => Some(Self::Val),
            _ => None,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
        }
    }
}

/// A call's URL, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whose contract it is under.
    pub contract: ApiSurface,
    /// Whose call it is, if the URL says so.
    pub named: NamedRollout,
    /// What it is for, if the URL says so.
    pub mode: Option<Mode>,
    /// The API, its endpoint, and the model that the path names.
    pub(crate) api: ApiCall,
    /// The query, without `?`.
    pub query: String,
}

impl Route {
    /// Reads a target of the server door.
    pub fn read(target: &str) -> Result<Self, ProxyError> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let route = |contract, named, mode, tail: &str| {
            let unknown = || match contract {
                ApiSurface::V1 => format!("Unsupported upstream path: {}", tail.trim_start_matches('/')),
                _ => format!("no API of models has the path {}", shortened(tail)),
            };
            let api = ApiCall::at_gateway(tail).ok_or_else(|| unknown_route(unknown()))?;
            Ok(Self { contract, named, mode, api, query: query.to_owned() })
        };
        if let Some(rest) = path.strip_prefix("/rollout/") {
            let (named, tail) = rollout_and_attempt(rest)?;
            return route(ApiSurface::Plain, named, None, tail);
        }
        if let Some(rest) = path.strip_prefix("/proxy/rollout/") {
            let (named, tail) = rollout_and_attempt(rest)?;
            let mode = tail.strip_prefix("/mode/").and_then(|tail| tail.split_once('/'));
            let Some((mode, tail)) = mode else { return Err(unknown_route("Not Found".to_owned())) };
            let Some(mode) = Mode::of(mode) else {
                return Err(unknown_route(format!("Unsupported proxy mode: {}", shortened(mode))));
            };
            let Some(tail) = tail.strip_prefix("openai/v1") else {
                return Err(unknown_route("Not Found".to_owned()));
            };
            return route(ApiSurface::V1, named, Some(mode), tail);
        }
        if let Some(rest) = path.strip_prefix("/sessions/") {
            let Some((id, tail)) = session(rest) else { return Err(unknown_route("Not Found".to_owned())) };
            let rollout = id_of(id)?;
            return route(
                ApiSurface::Session,
                NamedRollout { rollout: Some(rollout.as_str().into()), attempt: None },
                None,
                tail,
            );
        }
        route(ApiSurface::Plain, NamedRollout::default(), None, path)
    }

    /// Whose call a target is, also where the rest of it can't be read.
    pub fn owner(target: &str) -> NamedRollout {
        let path = target.split('?').next().unwrap_or_default();
        let rest = path.strip_prefix("/rollout/").or_else(|| path.strip_prefix("/proxy/rollout/"));
        rest.and_then(|rest| rollout_and_attempt(rest).ok()).map(|(named, _)| named).unwrap_or_default()
    }

    /// Reads a target that an agent meant for another host. `None`: it is no call of a model.
    pub fn of_elsewhere(target: &str) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let api = ApiCall::elsewhere(path)?;
        let (named, query) = (NamedRollout::default(), query.to_owned());
        Some(Self { contract: ApiSurface::Reroute, named, mode: None, api, query })
    }
}

/// Keys that are made for one rollout: `ROLLOUT.ATTEMPT` and what follows, percent-encoded where they have dots.
fn rollout_and_attempt(rest: &str) -> Result<(NamedRollout, &str), ProxyError> {
    let wrong = || unknown_route("the path is /rollout/{rollout}/attempt/{attempt}/v1/…".to_owned());
    let (rollout, rest) = rest.split_once("/attempt/").ok_or_else(wrong)?;
    if rollout.contains('/') {
        return Err(wrong());
    }
    let at = rest.find('/').ok_or_else(wrong)?;
    let (attempt, tail) = rest.split_at(at);
    let (rollout, attempt) = (id_of(rollout)?, id_of(attempt)?);
    Ok((NamedRollout { rollout: Some(rollout.as_str().into()), attempt: Some(attempt.as_str().into()) }, tail))
}

/// The shortest id that leaves a tail of `/v1` or `/v1/…`: an id may hold slashes.
fn session(rest: &str) -> Option<(&str, &str)> {
    let mut ends = rest.match_indices("/v1").map(|(at, _)| at);
    ends.find(|at| *at > 0 && matches!(rest.as_bytes().get(at + 3), None | Some(b'/'))).map(|at| rest.split_at(at))
}

/// An id as it is meant. What can't be kept is refused, loudly.
pub fn id_of(segment: &str) -> Result<String, ProxyError> {
    let bad = |cause: &str| Err(ProxyError::new(ErrorKind::CallMalformed, "", cause));
    if segment.is_empty() {
        return bad("an id is empty");
    }
    if segment.len() > MAX_ID_BYTES {
        return bad("an id is longer than 1024 bytes");
    }
    let Some(id) = decoded(segment) else { return bad("an id is not UTF-8") };
    if id.chars().any(char::is_control) {
        return bad("an id holds control characters");
    }
    Ok(id)
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

fn unknown_route(cause: String) -> ProxyError {
    ProxyError::new(ErrorKind::RouteUnknown, "", cause)
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

const MAX_ID_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(target: &str) -> Result<(ApiSurface, Option<String>, Option<String>, String), String> {
        let route = Route::read(target).map_err(|error| error.cause)?;
        let text = |id: Option<String>| id;
        let rollout = route.named.rollout.map(|id| id.to_string());
        let attempt = route.named.attempt.map(|id| id.to_string());
        Ok((route.contract, text(rollout), text(attempt), route.api.path()))
    }

    fn found(
        contract: ApiSurface,
        rollout: &str,
        attempt: &str,
        api: &str,
    ) -> Result<(ApiSurface, Option<String>, Option<String>, String), String> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok((contract, some(rollout), some(attempt), api.to_owned()))
    }

    #[test]
    fn urls_say_whose_call_it_is() {
        for (target, expected) in [
            ("/api/v1/chat/completions", Some("/chat/completions")),
            ("/openai/deployments/d/chat/completions?api-version=1", Some("/chat/completions")),
            ("/backend-api/codex/responses", Some("/responses")),
            ("/v1/messages/count_tokens?beta=true", Some("/messages/count_tokens")),
            ("/v1/projects/p/publishers/google/models/g:generateContent", Some("/models/g:generateContent")),
            ("/v1/responses/compact", None),
            ("/v1/files", None),
        ] {
            assert_eq!(Route::of_elsewhere(target).map(|route| route.api.path()).as_deref(), expected, "{target}");
        }
        for (target, expected) in [
            (
                "/rollout/ro-1/attempt/at-1/v1/chat/completions",
                found(ApiSurface::Plain, "ro-1", "at-1", "/chat/completions"),
            ),
            ("/rollout/a%2Fb%2E%2E/attempt/..%00x/v1/messages", Err("an id holds control characters".to_owned())),
            ("/rollout/a%2Fb/attempt/../v1/messages", found(ApiSurface::Plain, "a/b", "..", "/messages")),
            ("/rollout/%61%2531/attempt/0/v1/completions?x=1", found(ApiSurface::Plain, "a%31", "0", "/completions")),
            (
                "/rollout/r/attempt/a/v1beta/models/g-2:streamGenerateContent?alt=sse",
                found(ApiSurface::Plain, "r", "a", "/models/g-2:streamGenerateContent"),
            ),
            ("/rollout/r/attempt/a/v1/models", found(ApiSurface::Plain, "r", "a", "/models")),
            ("/rollout/r/attempt/a/v1/models/org%2Fm", found(ApiSurface::Plain, "r", "a", "/models/org/m")),
            ("/rollout/r/attempts/a/v1/models", Err("the path is /rollout/{rollout}/attempt/{attempt}/v1/…".into())),
            ("/rollout//attempt/a/v1/models", Err("an id is empty".into())),
            (
                "/proxy/rollout/r/attempt/0/mode/train/openai/v1/chat/completions",
                found(ApiSurface::V1, "r", "0", "/chat/completions"),
            ),
            (
                "/proxy/rollout/r/attempt/0/mode/test/openai/v1/chat/completions",
                Err("Unsupported proxy mode: test".into()),
            ),
            ("/proxy/rollout/r/attempt/0/mode/val/openai/v1/files", Err("Unsupported upstream path: files".into())),
            ("/sessions/task/7/v1/chat/completions", found(ApiSurface::Session, "task/7", "", "/chat/completions")),
            ("/sessions/v1/v1/v1/responses", Err("no API of models has the path /v1/v1/responses".into())),
            ("/sessions/s/v1", Err("no API of models has the path /v1".into())),
            ("/v1/embeddings", found(ApiSurface::Plain, "", "", "/embeddings")),
            ("/v1/agl", Err("no API of models has the path /v1/agl".into())),
        ] {
            assert_eq!(read(target), expected, "{target}");
        }
        assert!(read(&format!("/rollout/{}/attempt/0/v1/models", "x".repeat(4096))).is_err());
        assert!(read("/rollout/%ff/attempt/0/v1/models").is_err());
    }

    proptest! {
        #[test]
        fn any_id_comes_back_as_it_was(rollout in "[^\\pC]{1,40}", attempt in "[^\\pC]{1,40}") {
            let encoded = |id: &str| percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string();
            let target = format!("/rollout/{}/attempt/{}/v1/chat/completions", encoded(&rollout), encoded(&attempt));
            prop_assert_eq!(read(&target), found(ApiSurface::Plain, &rollout, &attempt, "/chat/completions"));
        }

        #[test]
        fn nothing_panics(target in "\\PC{0,200}") {
            drop(Route::read(&target));
        }
    }
}
