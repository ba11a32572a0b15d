//! Requests of other APIs become requests of chat completions.

use super::answer::Answer;
use super::node::Node;
use super::source::{GeminiPath, SourceApi};
use super::untranslatable::{Untranslatable, refusal};
use super::{gemini, messages, request, responses, responses_answer};
use crate::wire::json::{Json, parse};
use serde_json::{Map, Value};
use std::sync::Arc;

/// A request as chat completions take it.
#[derive(Debug)]
pub(crate) struct Translated {
    /// Its body. Gemini has the model in its path: there it is for the caller to add.
    pub(crate) body: Map<String, Value>,
    /// How the answer goes back.
    pub(crate) answer: Answer,
}

/// A request of a client as chat completions. `gemini` counts for Gemini only.
pub(crate) fn to_chat(source: SourceApi, body: &[u8], gemini: GeminiPath) -> Result<Translated, Untranslatable> {
    let json = parse(body).map_err(|error| refusal("body", &format!("is no JSON: {error}")))?;
    let root = Node::root(&json);
    let (chat, echo) = match source {
        SourceApi::Messages => (messages::to_chat(&root)?, Json::Null),
        SourceApi::Responses => (responses::to_chat(&root)?, responses_answer::echo(&root)),
        SourceApi::Gemini => (gemini::to_chat(&root, gemini.streams)?, Json::Null),
    };
    // SourceApis that have not asked for thoughts take the first part of an answer for its text.
    let thinks = match source {
        SourceApi::Messages => chat.get("chat_template_kwargs").get("enable_thinking").bool() == Some(true),
        SourceApi::Responses => true,
        SourceApi::Gemini => gemini::includes_thoughts(&json),
    };
    let answer = Answer {
        source,
        thinks,
        streams: chat.get("stream").bool() == Some(true),
        sse: source != SourceApi::Gemini || gemini.sse,
        model: chat.get("model").word().unwrap_or_default(),
        echo: Arc::new(echo),
    };
    Ok(Translated { body: request::body(chat), answer })
}
