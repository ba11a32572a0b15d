//! LLM calls. The gateway recognises them by their path, so they are not rows of the route table.

use crate::api::access::CallerAccess;
use crate::api::state::ApiState;
use crate::gateway::Gateway;
use crate::net::drain::DrainGuard;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use std::net::SocketAddr;

/// The connection of a request.
#[derive(Clone)]
pub(crate) struct ClientConnection {
    pub(crate) peer: SocketAddr,
    /// Held by an LLM call until it ends, so that a shutdown waits for it.
    pub(crate) drain: DrainGuard,
}

/// Serves an LLM call. A caller that is limited to some rollouts must name one of them.
pub(crate) async fn call(
    state: &ApiState,
    client: ClientConnection,
    access: &CallerAccess,
    request: Request,
) -> Response {
    let named = state.gateway.rollout_of(&request);
    if !access.includes_all() && !named.rollout.is_some_and(|rollout| access.includes(rollout.as_str())) {
        let text = "this token is for some rollouts only, and the call names none of them";
        return refusal(&request, StatusCode::FORBIDDEN, text);
    }
    if named.attempt.is_some_and(|attempt| !access.includes_attempt(attempt.as_str())) {
        return refusal(
            &request,
            StatusCode::FORBIDDEN,
            "this key is for another attempt than the one that the call names",
        );
    }
    state.gateway.serve_api(client.peer, client.drain, request).await.map(Body::new)
}

/// The response to a call that its caller may not make, in the format of the API that it calls.
pub(crate) fn refusal(request: &Request, status: StatusCode, cause: &str) -> Response {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    Gateway::refusal(target, status, cause).map(Body::new)
}

/// The paths of LLM calls for the OpenAPI document: the tails that an API defines, and the prefixes that name a rollout.
pub(crate) const LLM_CALLS: &[(&str, &str)] = &[
    ("/v1/chat/completions", "Call a model: OpenAI chat completions"),
    ("/v1/completions", "Call a model: OpenAI completions"),
    ("/v1/responses", "Call a model: OpenAI responses"),
    ("/v1/embeddings", "Call a model: OpenAI embeddings"),
    ("/v1/messages", "Call a model: Anthropic messages"),
    ("/v1/messages/count_tokens", "Count tokens: Anthropic messages"),
    ("/v1beta/models/{model}:generateContent", "Call a model: Gemini"),
    ("/v1beta/models/{model}:streamGenerateContent", "Call a model: Gemini, streamed"),
    ("/generate", "Call a model: SGLang's own API"),
    ("/inference/v1/generate", "Call a model: vLLM's own API"),
    ("/tokenize", "Turn text into token ids: the tokenizer of the engine"),
    ("/detokenize", "Turn token ids into text: the tokenizer of the engine"),
    (
        "/rollout/{rollout}/attempt/{attempt}/v1/chat/completions",
        "Call a model for an attempt; any API's path may follow",
    ),
    ("/sessions/{session}/v1/chat/completions", "Call a model in a session of rLLM; any API's path may follow"),
    (
        "/proxy/rollout/{rollout}/attempt/{attempt}/mode/{mode}/openai/v1/chat/completions",
        "Call a model for an attempt of Agent Lightning 1.0; any API's path may follow",
    ),
];
