//! OpenAI's completions, which vLLM and SGLang serve to trainers.

use super::format::{ApiFormat, CallRequest};
use super::openai_chat::named_logprobs;
use super::parts::{self, TokenNames};
use crate::llm::call::LlmCall;
use crate::llm::message::{Message, Part};
use crate::llm::token_ids::tokens::Tokens;
use crate::wire::json::Json;

/// The format of completions.
pub(crate) struct Completions;

impl ApiFormat for Completions {
    fn request(&self, request: &CallRequest<'_>, call: &mut LlmCall) {
        call.request = parts::parameters(request.body);
        call.input = prompts(request.body.get("prompt"), call);
    }

    fn response(&self, body: &Json<'_>, call: &mut LlmCall) {
        self.event("", body, call);
    }

    fn event(&self, _: &str, data: &Json<'_>, call: &mut LlmCall) -> bool {
        parts::root(data, call);
        let mut moved = false;
        for (index, choice) in parts::choices(data, call) {
            let into = call.choice(index);
            let text = choice.get("text").text().unwrap_or_default();
            into.push_text(text);
            moved |= !text.is_empty() || choice.get("token_ids").len() > 0;
            if let Some(reason) = choice.get("finish_reason").word() {
                into.finish_reason = Some(reason);
            }
            into.tokens.push_ids(choice.get("token_ids"));
            parts::sampler_arrays(choice, &mut into.tokens);
            if into.prompt_ids.ids.is_none() {
                into.prompt_ids.push_ids(choice.get("prompt_token_ids"));
            }
            listed_logprobs(choice.get("logprobs"), TokenNames::beside(choice.get("token_ids")), &mut into.tokens);
        }
        moved
    }
}

/// Reads a prompt: a text, several texts, or the token ids of one prompt or of several.
pub(super) fn prompts(prompt: &Json<'_>, call: &mut LlmCall) -> Vec<Message> {
    if prompt.is_number_list() || prompt.list().iter().any(Json::is_number_list) {
        call.prompt_ids_of_request(prompt);
        return Vec::new();
    }
    let message =
        |text: String| Message { role: "user".to_owned(), parts: vec![Part::text(text)], ..Message::default() };
    parts::texts(prompt).into_iter().map(message).collect()
}

/// Reads `{tokens, token_logprobs}`, or `{content}`. Tokens may name their ids; see [`TokenNames`].
fn listed_logprobs(logprobs: &Json<'_>, names: TokenNames, into: &mut Tokens) {
    // llama.cpp's have the shape of chat completions.
    named_logprobs(logprobs.get("content"), names, into);
    into.push_logprobs(logprobs.get("token_logprobs"));
    if names == TokenNames::AreIds {
        for token in logprobs.get("tokens").list().iter().filter_map(Json::text) {
            into.push_named_id(token);
        }
    }
}
