//! llama.cpp's native `/completion`.

use super::format::{ApiFormat, CallRequest};
use super::openai_chat::named_logprobs;
use super::openai_completions::prompts;
use super::parts::{self, Place, TokenNames, ids_in};
use crate::llm::call::LlmCall;
use crate::llm::usage::Usage;
use crate::wire::json::Json;

/// The format of llama.cpp's native completions.
pub(crate) struct Completion;

impl ApiFormat for Completion {
    fn request(&self, request: &CallRequest<'_>, call: &mut LlmCall) {
        let body = request.body;
        call.request = parts::parameters(body);
        call.request.max_tokens = body.get("n_predict").int();
        call.request.choice_count = call.request.choice_count.or_else(|| body.get("n_cmpl").int());
        call.input = prompts(body.get("prompt"), call);
    }

    fn response(&self, body: &Json<'_>, call: &mut LlmCall) {
        self.event("", body, call);
        call.ended = true;
    }

    fn event(&self, _: &str, data: &Json<'_>, call: &mut LlmCall) -> bool {
        call.request.sampling.extend(parts::sampling(data.get("generation_settings")));
        call.response_model = data.get("model").word().or(call.response_model.take());
        let choice = call.answered_choice(data);
        choice.usage.update(Usage {
            input: data.get("tokens_evaluated").int(),
            output: data.get("tokens_predicted").int(),
            cache_read: data.get("tokens_cached").int(),
            ..Usage::default()
        });
        let text = data.get("content").text().unwrap_or_default();
        choice.push_text(text);
        let ids = data.get("tokens");
        let sampled = data.get("completion_probabilities");
        named_logprobs(sampled, TokenNames::AreTexts, &mut choice.tokens);
        if ids.len() > 0 {
            choice.tokens.push_ids(ids);
        } else if sampled.len() > 0 {
            choice.tokens.push_ids(&ids_in(sampled, Place::Field("id")));
        }
        if data.get("stop").bool() == Some(true) {
            choice.finish_reason = data.any(&["stop_type"]).word().or_else(|| Some("stop".to_owned()));
            call.ended = true;
        }
        call.add_up_usage();
        !text.is_empty()
    }
}
