//! What is known of an API: the type of a row of the table.

use super::endpoint::Endpoint;
use super::error::ErrorShape;
use super::stream_end::StreamEnd;
use crate::llm::formats::format::ApiFormat;
use crate::wire::json::Json;
use crate::wire::json_edit::Object;
use std::fmt;

/// What is known of one API: a row of the table.
pub(crate) struct ApiSpec {
    /// The name on spans, such as `openai.chat`.
    pub name: &'static str,
    /// Its endpoints; a request belongs to the API if one of them fits its path and body.
    pub endpoints: &'static [Endpoint],
    /// Paths that its clients have in front of an endpoint's: the end of the base URL that they are configured with.
    pub base_paths: &'static [&'static str],
    /// Methods of JSON-RPC by which its requests are known; one that ends with a slash stands for all that begin so.
    /// Empty: the API does not speak JSON-RPC.
    pub json_rpc_methods: &'static [&'static str],
    /// How a streamed response ends.
    pub stream_end: StreamEnd,
    /// The shape of its errors.
    pub error_shape: ErrorShape,
    /// Header fields of its requests that mean something to a server of it, beside those of HTTP.
    pub request_headers: &'static [&'static str],
    /// Where requests have their sampling parameters.
    pub sampling: SamplingFields,
    /// Fields that limit the length of an answer; the last one is set where a request has none of them.
    pub length_limits: &'static [&'static str],
    /// The provider (`gen_ai.provider.name`) where nothing else tells it, after those that `hosted` finds.
    pub provider: &'static str,
    /// Parts of a path by which a cloud is known that hosts this API, and the cloud's provider name.
    pub hosted: &'static [(&'static str, &'static str)],
    /// Reads its calls. `None`: they are not recorded as calls.
    pub format: Option<&'static dyn ApiFormat>,
    /// Its calls over a WebSocket, if it has any.
    pub websocket: Option<WebSocketCalls>,
}

/// Where the requests of an API have their sampling parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SamplingFields {
    /// The field that has them in its object, in all its spellings. Empty: they are in the request itself.
    pub objects: &'static [&'static str],
    /// Chat completions' names, and the API's own, where they differ.
    pub names: &'static [(&'static str, &'static str)],
    /// The parameters that have the same name here, if servers reject all others.
    pub same: Option<&'static [&'static str]>,
}

impl SamplingFields {
    /// The API's name of a parameter of chat completions.
    pub(crate) fn name<'a>(&self, of_chat: &'a str) -> &'a str {
        self.names.iter().find(|(name, _)| *name == of_chat).map_or(of_chat, |(_, own)| own)
    }

    /// True if servers take a parameter, by the API's own name.
    pub(crate) fn has(&self, own: &str) -> bool {
        self.same.is_none_or(|same| same.contains(&own) || self.names.iter().any(|(_, name)| *name == own))
    }
}

/// The messages that divide a WebSocket into calls. Each is JSON with a `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WebSocketCalls {
    /// The agent's message that begins a call; it is what the body of a request would be.
    pub begin: &'static str,
    /// The endpoint's messages that end a call.
    pub ends: &'static [&'static str],
}

impl ApiSpec {
    /// The fields that keep an answer within `max` tokens, with their values. Every limit of the request that is not a
    /// number up to `max` gets that value; where it has none, the API's last one does.
    pub(crate) fn limit_length(&self, body: &Object<'_>, max: u64) -> Vec<(&'static str, String)> {
        let is_set = |name: &&&str| body.values(name).any(|value| value != b"null");
        let is_low = |value: &[u8]| serde_json::from_slice::<u64>(value).is_ok_and(|value| value <= max);
        let names: Vec<&str> = match self.length_limits.iter().filter(is_set).copied().collect::<Vec<_>>() {
            names if names.is_empty() => self.length_limits.last().copied().into_iter().collect(),
            names => names.into_iter().filter(|name| !body.values(name).all(is_low)).collect(),
        };
        names.into_iter().map(|name| (name, max.to_string())).collect()
    }

    /// True for an API at the root of its server, such as an engine's own: it is beside OpenAI's `/v1`, not below it.
    pub(crate) fn is_at_root(&self) -> bool {
        self.base_paths == [""]
    }

    /// The path in front of the API's endpoints on a server with this base path, which is that of OpenAI's APIs for an API at
    /// the root.
    pub(crate) fn base_path_at<'a>(&self, path: &'a str) -> &'a str {
        if self.is_at_root() { COMMON.without_base_path(path) } else { path }
    }

    /// The part of a backend's base path in front of the API's own base path.
    pub(crate) fn without_base_path<'a>(&self, path: &'a str) -> &'a str {
        self.base_paths.iter().find_map(|base| path.strip_suffix(base)).unwrap_or(path)
    }

    /// True when a request with this body calls this endpoint.
    pub(crate) fn takes(&self, endpoint: &Endpoint, body: &Json<'_>) -> bool {
        endpoint.takes(body) && (self.json_rpc_methods.is_empty() || self.has_method(body))
    }

    fn has_method(&self, body: &Json<'_>) -> bool {
        let method = body.get("method").text().unwrap_or_default();
        let is_method = |known: &&str| method == *known || known.ends_with('/') && method.starts_with(known);
        body.get("jsonrpc").text() == Some("2.0") && self.json_rpc_methods.iter().any(is_method)
    }
}

/// Two rows are the same if their names are.
impl PartialEq for ApiSpec {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ApiSpec {}

impl fmt::Debug for ApiSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// What most rows have.
pub(super) const COMMON: ApiSpec = ApiSpec {
    name: "",
    endpoints: &[],
    base_paths: VERSIONS,
    json_rpc_methods: &[],
    stream_end: StreamEnd::Content,
    error_shape: ErrorShape::OpenAi,
    request_headers: &[],
    sampling: SamplingFields { objects: &[], names: &[], same: None },
    length_limits: &["max_tokens"],
    provider: "openai",
    hosted: &[],
    format: None,
    websocket: None,
};

/// Base URLs end with the API's version, or with nothing; clients mix the versions of OpenAI's and Google's APIs.
const VERSIONS: &[&str] = &["/v1beta", "/v1alpha", "/v1", ""];
