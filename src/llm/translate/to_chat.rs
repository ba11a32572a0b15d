//! Requests of other APIs become requests of chat completions.

use super::chat_response::Reasoning;
use super::node::{Dropped, Node};
use super::options::TranslationOptions;
use super::response::{ResponseFormat, ResponseTranslator};
use super::responses_response::AnsweredRequest;
use super::source::{GeminiPath, SourceApi};
use super::untranslatable::{Untranslatable, untranslatable};
use super::{chat_request, gemini_request, messages_request, responses_request};
use crate::wire::json::parse;
use crate::wire::json_repair::without_lone_surrogates;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A request that was translated to chat completions.
#[derive(Debug)]
pub(crate) struct TranslatedRequest {
    /// The body. Gemini names the model in the path: then the caller adds it.
    pub(crate) body: Map<String, Value>,
    /// Translates the response back.
    pub(crate) response: ResponseTranslator,
    /// The places of what was left out because it has no effect on the answer.
    pub(crate) dropped: Vec<String>,
    /// The line about billing that was left out of the system prompt.
    pub(crate) billing_line: Option<String>,
    /// Nothing is to be sampled.
    pub(crate) is_warmup: bool,
}

impl TranslatedRequest {
    /// Leaves out the fields of the chat request that are not among these, and what is too long for a service that rejects
    /// other fields.
    pub(crate) fn keep_only(&mut self, fields: &[&str]) {
        let is_kept = |name: &str, value: &Value| match name {
            "user" => value.as_str().is_none_or(|user| user.len() <= MAX_USER_BYTES),
            name => fields.contains(&name),
        };
        let dropped = &mut self.dropped;
        self.body.retain(|name, value| {
            let is_kept = is_kept(name, value);
            if !is_kept {
                dropped.push(name.clone());
            }
            is_kept
        });
        for message in self.body.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(message) = message.as_object_mut() {
                message.retain(|name, _| !matches!(name.as_str(), "reasoning" | "reasoning_content"));
            }
        }
    }
}

/// The longest `user` that OpenAI takes.
const MAX_USER_BYTES: usize = 64;

/// Translates a request. `gemini` is used for Gemini only.
pub(crate) fn to_chat(
    source: SourceApi,
    body: &[u8],
    gemini: GeminiPath,
    options: TranslationOptions,
) -> Result<TranslatedRequest, Untranslatable> {
    let text = std::str::from_utf8(body).map_err(|error| untranslatable("body", &format!("is no UTF-8: {error}")))?;
    let text = without_lone_surrogates(text);
    let json = parse(text.as_bytes()).map_err(|error| untranslatable("body", &format!("is no JSON: {error}")))?;
    let dropped = Dropped::default();
    let root = Node::root(&json, &dropped);
    let (chat, format) = match source {
        SourceApi::Messages => (messages_request::to_chat(&root, options)?, ResponseFormat::Messages),
        SourceApi::Responses => {
            let (chat, tools) = responses_request::to_chat(&root, options)?;
            (chat, ResponseFormat::Responses(Arc::new(AnsweredRequest::new(&root, tools))))
        }
        SourceApi::Gemini => {
            let thoughts = Reasoning::shown_if(gemini_request::includes_thoughts(&json));
            (gemini_request::to_chat(&root, gemini, options)?, ResponseFormat::Gemini(thoughts))
        }
    };
    // Clients that did not ask for reasoning take the first part of an answer for its text.
    let wants_reasoning = match source {
        SourceApi::Messages => chat.get("chat_template_kwargs").get("enable_thinking").bool() == Some(true),
        // All of Gemini's clients get it in signatures.
        SourceApi::Responses | SourceApi::Gemini => true,
    };
    let response = ResponseTranslator {
        format,
        reasoning: Reasoning::shown_if(wants_reasoning),
        streams: chat.get("stream").bool() == Some(true),
        sse: source != SourceApi::Gemini || gemini.sse,
        model: chat.get("model").word().unwrap_or_default(),
    };
    let is_warmup = source == SourceApi::Responses && responses_request::is_warmup(&root);
    let body = chat_request::body(chat);
    let places = dropped.places();
    Ok(TranslatedRequest { body, response, dropped: places, billing_line: dropped.into_billing_line(), is_warmup })
}
