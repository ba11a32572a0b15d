//! The table of the APIs of models and tools: one row an API.
//!
//! The only place that knows an API's paths. A new API is a row here, listed in [`ALL`], and its format. Data only.

use super::endpoint::{Endpoint, Streaming};
use super::error::ErrorShape;
use super::spec::{ApiSpec, COMMON, SamplingFields, WebSocketCalls};
use super::stream_end::StreamEnd;
use crate::llm::formats::{
    anthropic, bedrock, cohere, gemini, llama_cpp, mcp, ollama, openai_chat, openai_completions, openai_embeddings,
    openai_responses, sglang, vllm,
};
use crate::llm::operation::Operation::{
    Chat, CountTokens, Embeddings, GenerateContent, ListModels, Other, StoredResponse, TextCompletion,
};

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
    &ENGINE_TOKENIZER,
];
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
    endpoints: &[Endpoint::served("/inference/v1/generate", TextCompletion).needs(&[&["token_ids"]])],
    base_paths: &[""],
    stream_end: StreamEnd::Done,
    sampling: SamplingFields { objects: SAMPLING_PARAMS, names: &[], same: None },
    provider: "vllm",
    ..COMMON
};

pub(crate) static SGLANG_GENERATE: ApiSpec = ApiSpec {
    name: "sglang.generate",
    format: Some(&sglang::Generate),
    endpoints: &[Endpoint::served("/generate", TextCompletion).needs(&[&["sampling_params", "input_ids"]])],
    base_paths: &[""],
    stream_end: StreamEnd::Done,
    sampling: SamplingFields {
        objects: SAMPLING_PARAMS,
        names: &[("max_tokens", "max_new_tokens"), ("max_completion_tokens", "max_new_tokens")],
        same: None,
    },
    length_limits: &["max_new_tokens"],
    provider: "sglang",
    ..COMMON
};

const SAMPLING_PARAMS: &[&str] = &["sampling_params"];

/// The tokenizers of engines. No calls of a model.
pub(crate) static ENGINE_TOKENIZER: ApiSpec = ApiSpec {
    name: "engine.tokenizer",
    endpoints: &[
        Endpoint::served_only("/tokenize", Other).streaming(Streaming::Never),
        Endpoint::served_only("/detokenize", Other).streaming(Streaming::Never),
    ],
    base_paths: &[""],
    provider: "",
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
