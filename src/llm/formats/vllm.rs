//! vLLM's generate: token ids in, token ids out.

use super::format::{ApiFormat, CallRequest};
use super::openai_chat::named_logprobs;
use super::parts::{self, TokenNames};
use crate::llm::call::LlmCall;
use crate::wire::json::Json;

/// The format of vLLM's generate.
pub(crate) struct Generate;

impl ApiFormat for Generate {
    fn request(&self, request: &CallRequest<'_>, call: &mut LlmCall) {
        let body = request.body;
        call.request = parts::parameters(body.get("sampling_params"));
        call.request.model = body.get("model").word();
        call.request.stream = body.get("stream").bool() == Some(true);
        call.request.wants_token_ids = true;
        call.request.first_expert_row = body.at(&["sampling_params", "routed_experts_prompt_start"]).int();
        call.prompt_ids_once(body.get("token_ids"));
    }

    fn response(&self, body: &Json<'_>, call: &mut LlmCall) {
        self.event("", body, call);
    }

    fn event(&self, _: &str, data: &Json<'_>, call: &mut LlmCall) -> bool {
        parts::root(data, call);
        call.response_id = data.get("request_id").word().or(call.response_id.take());
        let mut moved = false;
        for (index, choice) in parts::choices(data, call) {
            let into = call.choice(index);
            into.tokens.push_ids(choice.get("token_ids"));
            parts::sampler_arrays(choice, &mut into.tokens);
            named_logprobs(choice.at(&["logprobs", "content"]), TokenNames::AreTexts, &mut into.tokens);
            if let Some(reason) = choice.get("finish_reason").word() {
                into.finish_reason = Some(reason);
            }
            moved |= choice.get("token_ids").len() > 0;
        }
        moved
    }
}
