//! Which API a request belongs to, whether it may be a call at all, and whether a response is complete.
//!
//! Only [`detect`] needs a parsed body: the rest is safe on the hot path.

use super::endpoint::{Endpoint, PathMatch, Sharing, Streaming, Support, decoded};
use super::spec::{ApiSpec, WebSocketCalls};
use super::stream_end::{StreamHead, StreamTail};
use super::table::{ALL, CHAT_COMPLETIONS, MODELS, OPENAI_CHAT};
use crate::llm::operation::Operation;
use crate::wire::json::Json;
use http::{HeaderMap, HeaderValue, Method, header};

/// A request's path, read: the API, its endpoint, and the model that the path names.
#[derive(Clone, Debug)]
pub(crate) struct ApiCall {
    /// The API that has an endpoint with this path.
    pub api: &'static ApiSpec,
    /// The endpoint of that API that the path names.
    pub endpoint: Endpoint,
    /// The model, percent-decoded, where the path has one.
    pub model: Option<String>,
}

impl PartialEq for ApiCall {
    fn eq(&self, other: &Self) -> bool {
        (self.api, self.endpoint.pattern, &self.model) == (other.api, other.endpoint.pattern, &other.model)
    }
}

impl Eq for ApiCall {}

impl ApiCall {
    /// Reads a path of the gateway behind any prefix of its own. `None`: it is no endpoint that the gateway serves.
    pub(crate) fn at_gateway(path: &str) -> Option<Self> {
        let path = path.trim_end_matches('/');
        served_endpoints().find_map(|(api, endpoint)| {
            // Clients with a base URL in `/v1` have that in front of an engine's own API as well.
            let base_paths: &[&str] = if api.is_at_root() { &["/v1", ""] } else { api.base_paths };
            let found = base_paths.iter().find_map(|base| endpoint.match_whole(path.strip_prefix(base)?))?;
            call(api, endpoint, found)
        })
    }

    /// Reads a path that an agent meant for another host, with any prefix. `None`: the gateway serves no such endpoint. Those of
    /// an engine are none: other services have paths that end like them.
    pub(crate) fn at_other_host(path: &str) -> Option<Self> {
        let calls = served_endpoints()
            .filter(|(api, endpoint)| endpoint.operation != Operation::ListModels && !api.is_at_root());
        most_precise(calls, path).or_else(|| Self::at_gateway(path).filter(|call| !call.api.is_at_root()))
    }

    /// Reads any path, with any prefix. `None`: it is no API's.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        most_precise(read_endpoints().filter(|(_, endpoint)| endpoint.sharing == Sharing::Own), path)
    }

    /// OpenAI's chat completions, which calls of other APIs are translated to.
    pub(crate) fn chat_completions() -> Self {
        Self { api: &OPENAI_CHAT, endpoint: CHAT_COMPLETIONS, model: None }
    }

    /// The path behind a base URL, with the model that this call names.
    pub(crate) fn path(&self) -> String {
        self.endpoint.path(self.model.as_deref().unwrap_or_default())
    }

    /// What the endpoint does, as in `gen_ai.operation.name`.
    pub(crate) fn operation(&self) -> Operation {
        self.endpoint.operation
    }

    /// True when the model is named in the path, and not in the body.
    pub(crate) fn has_model_in_path(&self) -> bool {
        self.model.is_some()
    }

    /// The model that the path names.
    pub(crate) fn model_in_path(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// True when the response is a stream of server-sent events. `requests_stream`: whether the body has `"stream": true`.
    pub(crate) fn streams_events(&self, query: &str, requests_stream: impl FnOnce() -> bool) -> bool {
        match self.endpoint.streaming {
            Streaming::ByBody => requests_stream(),
            // Gemini's streams are lists unless the query says otherwise.
            Streaming::Always => wants_events(query),
            Streaming::Never => false,
        }
    }
}

/// True for a query by which Gemini's streams become server-sent events.
pub(crate) fn wants_events(query: &str) -> bool {
    query.split('&').any(|pair| pair == "alt=sse")
}

/// The path behind a base URL by which an engine lists its models.
pub(crate) fn models_path() -> String {
    MODELS.path("")
}

/// The path by which the engine that serves a call's path lists its models. `None`: it is no call's path.
pub(crate) fn models_path_beside(path: &str) -> Option<String> {
    let call = ApiCall::of_path(path)?;
    let base = path.trim_end_matches('/').strip_suffix(&call.path())?;
    // An engine's own API is beside its base URL of OpenAI's.
    let version = if call.api.is_at_root() { "/v1" } else { "" };
    Some(format!("{base}{version}{}", models_path()))
}

/// The API and endpoint of a request with a parsed body. `None`: it calls no model or tool that is known.
pub(crate) fn detect(path: &str, body: &Json<'_>) -> Option<ApiCall> {
    let fits =
        |(api, endpoint): &(&ApiSpec, &Endpoint)| endpoint.match_end(path).is_some() && api.takes(endpoint, body);
    let (api, _) = read_endpoints().find(fits)?;
    most_precise(read_endpoints().filter(|(other, endpoint)| *other == api && api.takes(endpoint, body)), path)
}

/// The one API that [`detect`] can find for a path, unless the body is a request of MCP. Its format can read a response
/// before the request was read. `None`: there is none, or the body decides between several.
pub(crate) fn sole_api(path: &str) -> Option<ApiCall> {
    // A request of MCP may have any path, but none of a model's API has its fields.
    let is_named = |(_, endpoint): &(&ApiSpec, &Endpoint)| !endpoint.pattern.is_empty();
    let mut fitting = read_endpoints().filter(is_named).filter(|(_, endpoint)| endpoint.match_end(path).is_some());
    let (api, first) = fitting.next()?;
    // An endpoint that takes any body leaves none for those behind it.
    let mut takes_any = first.needs.is_empty();
    for (other, endpoint) in fitting {
        if !takes_any && other != api {
            return None;
        }
        takes_any |= endpoint.needs.is_empty();
    }
    most_precise(read_endpoints().filter(|(other, _)| *other == api), path)
}

/// True when a request may call a model or tool: a posted JSON object, whatever its content type. Of a compressed body
/// the content type decides. `first` is the beginning of the body, with at least one byte that is not white space.
pub(crate) fn may_be_call(method: &Method, headers: &HeaderMap, first: &[u8]) -> bool {
    let field = |name| headers.get(name).map_or(b"".as_slice(), HeaderValue::as_bytes);
    let is_compressed = !field(header::CONTENT_ENCODING).is_empty();
    let is_json = field(header::CONTENT_TYPE).to_ascii_lowercase().windows(4).any(|word| word == b"json");
    method == Method::POST && (first.trim_ascii_start().starts_with(b"{") || (is_compressed && is_json))
}

/// True for a target that some API of a model has requests with, whatever their body.
pub(crate) fn has_api(target: &str) -> bool {
    ApiCall::of_path(target.split('?').next().unwrap_or_default()).is_some()
}

/// True for a path below the base URL of some version of an API (`/v1/…`, `/v1beta/…`), or of an endpoint that is known: its
/// requests may have a prompt. Logins are none.
pub(crate) fn is_api_path(path: &str) -> bool {
    let is_version = |segment: &str| {
        let rest =
            segment.strip_prefix('v').map(|rest| rest.trim_start_matches(|letter: char| letter.is_ascii_digit()));
        rest.is_some_and(|rest| rest.len() + 1 < segment.len() && matches!(rest, "" | "beta" | "alpha"))
    };
    let mut segments = path.split('/');
    ApiCall::of_path(path).is_some() || (segments.clone().all(|segment| segment != "oauth") && segments.any(is_version))
}

/// How a WebSocket that was opened with this target carries calls. `None`: it carries none.
pub(crate) fn websocket_calls(target: &str) -> Option<WebSocketCalls> {
    ApiCall::of_path(target.split('?').next().unwrap_or_default())?.api.websocket
}

/// True when a frame of a streamed response has the event by which an agent knows that the response is complete.
///
/// A wrong "no" delivers that event before the span is stored, a wrong "yes" delays a frame until it is; neither changes
/// a byte.
pub(crate) fn ends_stream(frame: &[u8]) -> bool {
    let (head, tail) = (StreamHead::of(frame), StreamTail::of(frame));
    tail.is_done()
        || ALL.iter().flat_map(|api| api.stream_end.events()).any(|kind| head.names(kind) || tail.names(kind))
}

/// All endpoints, in the order of the table.
fn all_endpoints() -> impl Iterator<Item = (&'static ApiSpec, &'static Endpoint)> {
    ALL.iter().flat_map(|api| api.endpoints.iter().map(|endpoint| (*api, endpoint)))
}

/// The endpoints that a format can read calls of.
fn read_endpoints() -> impl Iterator<Item = (&'static ApiSpec, &'static Endpoint)> {
    all_endpoints().filter(|(_, endpoint)| endpoint.support != Support::Served)
}

/// The endpoints that the gateway serves.
fn served_endpoints() -> impl Iterator<Item = (&'static ApiSpec, &'static Endpoint)> {
    all_endpoints().filter(|(_, endpoint)| endpoint.support != Support::Read)
}

/// The most precise endpoint that a path ends with.
fn most_precise(among: impl Iterator<Item = (&'static ApiSpec, &'static Endpoint)>, path: &str) -> Option<ApiCall> {
    let matching = among.filter_map(|(api, endpoint)| Some((api, endpoint, endpoint.match_end(path)?)));
    let (api, endpoint, found) = matching.max_by_key(|(_, endpoint, _)| endpoint.precision())?;
    call(api, endpoint, found)
}

/// `None`: the model's name is not UTF-8.
fn call(api: &'static ApiSpec, endpoint: &Endpoint, found: PathMatch<'_>) -> Option<ApiCall> {
    let model = match found.model {
        Some(model) => Some(decoded(model)?),
        None => None,
    };
    Some(ApiCall { api, endpoint: *endpoint, model })
}
