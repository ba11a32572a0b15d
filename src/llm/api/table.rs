//! The table of the APIs of models and tools: one row an API.
//!
//! The only place that knows an API's paths. A new API is a row here, listed in [`ALL`], and its format. Data only.

use super::endpoint::{Endpoint, Streaming};
use super::error::ErrorShape;
use super::stream_end::StreamEnd;
use crate::llm::formats::format::ApiFormat;
use crate::llm::formats::{
    anthropic, bedrock, cohere, gemini, llama_cpp, mcp, ollama, openai_chat, openai_completions, openai_embeddings,
    openai_responses, sglang, vllm,
};
use crate::llm::operation::Operation::{
    Chat, CountTokens, Embeddings, GenerateContent, ListModels, Other, StoredResponse, TextCompletion,
};
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

/// All APIs. The first with an endpoint and fields that fit a request counts.
pub(crate) static ALL: &[&ApiSpec] = &[
    &MCP,
    &OPENAI_CHAT,
    &VLLM_GENERATE,
    &OLLAMA,
    &GEMINI,
    &ANTHROPIC_MESSAGES,
    &BEDROCK_CONVERSE,
    &COHERE_CHAT,
    &OPENAI_RESPONSES,
    &OPENAI_EMBEDDINGS,
    &SGLANG_GENERATE,
    &LLAMA_CPP_COMPLETION,
    &OPENAI_COMPLETIONS,
    &OPENAI_MODELS,
];

/// What most rows have.
const COMMON: ApiSpec = ApiSpec {
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

const OPENAI_HEADERS: &[&str] = &["openai-beta"];

pub(crate) static MCP: ApiSpec = ApiSpec {
    name: "mcp",
    format: Some(&mcp::Mcp),
    // Its requests are known by their body, at any path.
    endpoints: &[Endpoint::read_only("", Other).needs(&[&["jsonrpc"], &["method"]]).shared()],
    json_rpc_methods: &[
        "initialize",
        "ping",
        "tools/call",
        "tools/list",
        "resources/list",
        "resources/read",
        "resources/subscribe",
        "resources/unsubscribe",
        "resources/templates/list",
        "prompts/get",
        "prompts/list",
        "completion/complete",
        "logging/setLevel",
        "sampling/createMessage",
        "elicitation/create",
        "roots/list",
        "server/discover",
        "subscriptions/listen",
        "notifications/",
    ],
    provider: "",
    ..COMMON
};

/// The endpoint that calls of other APIs are translated to.
pub(crate) const CHAT_COMPLETIONS: Endpoint = Endpoint::served("/chat/completions", Chat);

pub(crate) static OPENAI_CHAT: ApiSpec = ApiSpec {
    name: "openai.chat",
    format: Some(&openai_chat::Chat),
    // Azure has the model in the path.
    endpoints: &[CHAT_COMPLETIONS, Endpoint::read_only("/deployments/{model}/chat/completions", Chat)],
    stream_end: StreamEnd::Done,
    length_limits: &["max_completion_tokens", "max_tokens"],
    request_headers: OPENAI_HEADERS,
    ..COMMON
};

pub(crate) static OPENAI_COMPLETIONS: ApiSpec = ApiSpec {
    name: "openai.completions",
    format: Some(&openai_completions::Completions),
    endpoints: &[Endpoint::served("/completions", TextCompletion).needs(&[&["prompt"]])],
    stream_end: StreamEnd::Done,
    request_headers: OPENAI_HEADERS,
    ..COMMON
};

pub(crate) static OPENAI_RESPONSES: ApiSpec = ApiSpec {
    name: "openai.responses",
    format: Some(&openai_responses::Responses),
    endpoints: &[
        Endpoint::served("/responses", Chat).needs(&[RESPONSES_FIELDS]),
        Endpoint::read_only("/responses/compact", Chat).needs(&[RESPONSES_FIELDS]),
        Endpoint::served_only("/responses/{model}", StoredResponse).streaming(Streaming::Never),
    ],
    stream_end: StreamEnd::Events(&["response.completed", "response.incomplete", "response.failed", "response.done"]),
    sampling: SamplingFields {
        objects: &[],
        names: &[("max_tokens", "max_output_tokens"), ("max_completion_tokens", "max_output_tokens")],
        same: None,
    },
    length_limits: &["max_output_tokens"],
    websocket: Some(WebSocketCalls {
        begin: "response.create",
        ends: &["response.completed", "response.incomplete", "response.failed", "response.done", "error"],
    }),
    request_headers: OPENAI_HEADERS,
    ..COMMON
};
const RESPONSES_FIELDS: &[&str] = &["input", "prompt", "previous_response_id", "conversation", "model"];

pub(crate) static OPENAI_EMBEDDINGS: ApiSpec = ApiSpec {
    name: "openai.embeddings",
    format: Some(&openai_embeddings::Embeddings),
    endpoints: &[Endpoint::served("/embeddings", Embeddings).needs(&[&["input"]])],
    request_headers: OPENAI_HEADERS,
    ..COMMON
};

/// The endpoint by which engines are probed.
pub(crate) const MODELS: Endpoint = Endpoint::served_only("/models", ListModels).streaming(Streaming::Never);

/// The list of models, which every engine has, and one of them. No call of a model.
pub(crate) static OPENAI_MODELS: ApiSpec = ApiSpec {
    name: "openai.models",
    endpoints: &[MODELS, Endpoint::served_only("/models/{model}", ListModels).streaming(Streaming::Never)],
    ..COMMON
};

pub(crate) static ANTHROPIC_MESSAGES: ApiSpec = ApiSpec {
    name: "anthropic.messages",
    format: Some(&anthropic::Messages),
    // On Vertex and Bedrock the model is in the path.
    endpoints: &[
        Endpoint::served("/messages", Chat).needs(MESSAGES),
        Endpoint::served("/messages/count_tokens", CountTokens).needs(MESSAGES).streaming(Streaming::Never),
        Endpoint::read_only("/publishers/anthropic/models/{model}:rawPredict", Chat).needs(MESSAGES),
        Endpoint::read_only("/publishers/anthropic/models/{model}:streamRawPredict", Chat).needs(MESSAGES),
        Endpoint::read_only("/model/{model}/invoke", Chat).needs(MESSAGES),
        Endpoint::read_only("/model/{model}/invoke-with-response-stream", Chat).needs(MESSAGES),
    ],
    stream_end: StreamEnd::Events(&["message_stop"]),
    sampling: SamplingFields {
        objects: &[],
        names: &[("max_completion_tokens", "max_tokens"), ("stop", "stop_sequences")],
        same: None,
    },
    error_shape: ErrorShape::Anthropic,
    request_headers: &["anthropic-version", "anthropic-beta"],
    provider: "anthropic",
    hosted: &[("/model/", "aws.bedrock"), ("/publishers/", "gcp.vertex_ai")],
    ..COMMON
};
const MESSAGES: &[&[&str]] = &[&["messages"]];

pub(crate) static GEMINI: ApiSpec = ApiSpec {
    name: "gemini",
    format: Some(&gemini::Gemini),
    // Vertex has models of its own below `/endpoints/`, Google AI below `/tunedModels/`.
    endpoints: &[
        Endpoint::served("/models/{model}:generateContent", GenerateContent).streaming(Streaming::Never),
        Endpoint::served("/models/{model}:streamGenerateContent", GenerateContent).streaming(Streaming::Always),
        Endpoint::served_only("/models/{model}:countTokens", CountTokens).streaming(Streaming::Never),
        Endpoint::served_only("/models/{model}:embedContent", Embeddings).streaming(Streaming::Never),
        Endpoint::read_only("/{model}:generateContent", GenerateContent).streaming(Streaming::Never),
        Endpoint::read_only("/{model}:streamGenerateContent", GenerateContent).streaming(Streaming::Always),
    ],
    error_shape: ErrorShape::Google,
    sampling: SamplingFields {
        objects: &["generationConfig", "generation_config"],
        names: &[
            ("top_p", "topP"),
            ("top_k", "topK"),
            ("max_tokens", "maxOutputTokens"),
            ("max_completion_tokens", "maxOutputTokens"),
            ("stop", "stopSequences"),
            ("presence_penalty", "presencePenalty"),
            ("frequency_penalty", "frequencyPenalty"),
            ("n", "candidateCount"),
        ],
        same: Some(&["logprobs", "responseLogprobs", "seed", "temperature", "thinkingConfig"]),
    },
    length_limits: &["maxOutputTokens"],
    provider: "gcp.gen_ai",
    hosted: &[("/publishers/", "gcp.vertex_ai")],
    ..COMMON
};

pub(crate) static BEDROCK_CONVERSE: ApiSpec = ApiSpec {
    name: "bedrock.converse",
    format: Some(&bedrock::Converse),
    endpoints: &[
        Endpoint::read_only("/model/{model}/converse", Chat).streaming(Streaming::Never),
        Endpoint::read_only("/model/{model}/converse-stream", Chat).streaming(Streaming::Always),
    ],
    base_paths: &[""],
    stream_end: StreamEnd::Events(&["messageStop"]),
    provider: "aws.bedrock",
    ..COMMON
};

pub(crate) static COHERE_CHAT: ApiSpec = ApiSpec {
    name: "cohere.chat",
    format: Some(&cohere::Chat),
    endpoints: &[Endpoint::read_only("/v2/chat", Chat).needs(MESSAGES)],
    base_paths: &[""],
    stream_end: StreamEnd::Events(&["message-end"]),
    provider: "cohere",
    ..COMMON
};

pub(crate) static OLLAMA: ApiSpec = ApiSpec {
    name: "ollama",
    format: Some(&ollama::Ollama),
    endpoints: &[
        Endpoint::read_only("/api/chat", Chat).needs(MESSAGES),
        Endpoint::read_only("/api/generate", TextCompletion).needs(&[&["model"]]),
        Endpoint::read_only("/api/embed", Embeddings).needs(&[&["model"]]).streaming(Streaming::Never),
        Endpoint::read_only("/api/embeddings", Embeddings).needs(&[&["model"]]).streaming(Streaming::Never),
    ],
    base_paths: &[""],
    provider: "ollama",
    ..COMMON
};

pub(crate) static VLLM_GENERATE: ApiSpec = ApiSpec {
    name: "vllm.generate",
    format: Some(&vllm::Generate),
    endpoints: &[Endpoint::read_only("/inference/v1/generate", TextCompletion).needs(&[&["token_ids"]])],
    base_paths: &[""],
    stream_end: StreamEnd::Done,
    provider: "vllm",
    ..COMMON
};

pub(crate) static SGLANG_GENERATE: ApiSpec = ApiSpec {
    name: "sglang.generate",
    format: Some(&sglang::Generate),
    endpoints: &[Endpoint::read_only("/generate", TextCompletion).needs(&[&["sampling_params", "input_ids"]])],
    base_paths: &[""],
    stream_end: StreamEnd::Done,
    provider: "sglang",
    ..COMMON
};

pub(crate) static LLAMA_CPP_COMPLETION: ApiSpec = ApiSpec {
    name: "llama_cpp.completion",
    format: Some(&llama_cpp::Completion),
    // The server takes OpenAI's completions at the same path; fields of its own tell them apart.
    endpoints: &[
        Endpoint::read_only("/completion", TextCompletion).needs(&[&["prompt"]]),
        Endpoint::read_only("/completions", TextCompletion)
            .needs(&[&["prompt"], &["n_predict", "n_probs", "return_tokens"]])
            .shared(),
    ],
    base_paths: &[""],
    provider: "llama_cpp",
    ..COMMON
};
