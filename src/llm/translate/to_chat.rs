//! Requests of other APIs become requests of chat completions.

use super::chat_response::Reasoning;
use super::node::Node;
use super::response::ResponseTranslator;
use super::source::{GeminiPath, SourceApi};
use super::untranslatable::{Untranslatable, untranslatable};
use super::{chat_request, gemini_request, messages_request, responses_request, responses_response};
use crate::wire::json::{Json, parse};
use serde_json::{Map, Value};
use std::sync::Arc;

/// A request that was translated to chat completions.
#[derive(Debug)]
pub(crate) struct TranslatedRequest {
    /// The body. Gemini names the model in the path: then the caller adds it.
    pub(crate) body: Map<String, Value>,
    /// Translates the response back.
    pub(crate) response: ResponseTranslator,
}

/// Translates a request. `gemini` is used for Gemini only.
pub(crate) fn to_chat(source: SourceApi, body: &[u8], gemini: GeminiPath) -> Result<TranslatedRequest, Untranslatable> {
    let json = parse(body).map_err(|error| untranslatable("body", &format!("is no JSON: {error}")))?;
    let root = Node::root(&json);
    let (chat, echo) = match source {
        SourceApi::Messages => (messages_request::to_chat(&root)?, Json::Null),
        SourceApi::Responses => (responses_request::to_chat(&root)?, responses_response::echo(&root)),
        SourceApi::Gemini => (gemini_request::to_chat(&root, gemini)?, Json::Null),
    };
    // Clients that did not ask for reasoning take the first part of an answer for its text.
    let wants_reasoning = match source {
        SourceApi::Messages => chat.get("chat_template_kwargs").get("enable_thinking").bool() == Some(true),
        SourceApi::Responses => true,
        SourceApi::Gemini => gemini_request::includes_thoughts(&json),
    };
    let response = ResponseTranslator {
        source,
        reasoning: if wants_reasoning { Reasoning::Shown } else { Reasoning::Hidden },
        streams: chat.get("stream").bool() == Some(true),
        sse: source != SourceApi::Gemini || gemini.sse,
        model: chat.get("model").word().unwrap_or_default(),
        echo: Arc::new(echo),
    };
    Ok(TranslatedRequest { body: chat_request::body(chat), response })
}
