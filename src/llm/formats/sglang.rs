//! SGLang's native generate: token ids in, token ids out.

use super::format::{ApiFormat, CallRequest};
use super::openai_chat::paired_logprobs;
use super::openai_completions::prompts;
use super::parts::{self, Place, ids_in};
use crate::llm::call::LlmCall;
use crate::llm::message::Part;
use crate::llm::token_ids::tokens::Tokens;
use crate::llm::usage::Usage;
use crate::wire::json::Json;

/// The format of SGLang's generate.
pub(crate) struct Generate;

impl ApiFormat for Generate {
    fn request(&self, request: &CallRequest<'_>, call: &mut LlmCall) {
        let body = request.body;
        let sampling = body.get("sampling_params");
        call.request = parts::parameters(sampling);
        call.request.model = body.get("model").word();
        call.request.stream = body.get("stream").bool() == Some(true);
        call.request.first_expert_row = body.get("routed_experts_start_len").int();
        call.request.max_tokens = sampling.get("max_new_tokens").int();
        call.request.wants_token_ids = true;
        call.request.wants_logprobs = body.get("return_logprob").bool() == Some(true);
        call.prompt_ids_of_request(body.get("input_ids"));
        call.input = prompts(body.get("text"), call);
    }

    fn response(&self, body: &Json<'_>, call: &mut LlmCall) {
        self.event("", body, call);
    }

    fn event(&self, _: &str, data: &Json<'_>, call: &mut LlmCall) -> bool {
        let meta = data.get("meta_info");
        call.response_id = meta.get("id").word().or(call.response_id.take());
        let choice = call.answered_choice(data);
        choice.usage.update(Usage {
            input: meta.get("prompt_tokens").int(),
            output: meta.get("completion_tokens").int(),
            ..Usage::default()
        });
        // Each event has the whole text so far; with incremental streaming only the new part.
        let text = data.get("text").text().unwrap_or_default();
        let known = match choice.parts.last() {
            Some(Part::Text { content }) if text.starts_with(content.as_str()) => content.len(),
            _ => 0,
        };
        choice.push_text(text.get(known..).unwrap_or_default());
        let reason = meta.get("finish_reason");
        choice.finish_reason = reason.word().or_else(|| reason.get("type").word()).or(choice.finish_reason.take());
        let mut so_far = Tokens::default();
        so_far.push_ids(data.get("output_ids"));
        let pairs = meta.get("output_token_logprobs");
        paired_logprobs(pairs, &mut so_far);
        if so_far.ids.is_none() && pairs.len() > 0 {
            so_far.push_ids(&ids_in(pairs, Place::Position(1)));
        }
        parts::sampler_arrays(data, &mut so_far);
        add_tokens(&mut choice.tokens, so_far);
        call.add_up_usage();
        !text.is_empty()
    }
}

/// Adds the tokens of an event: cumulative ones replace the known, incremental ones are appended.
fn add_tokens(known: &mut Tokens, newer: Tokens) {
    let is_cumulative = match (&known.ids, &newer.ids) {
        (Some(known), Some(newer)) => newer.starts_with(known),
        _ => true,
    };
    known.issues.extend(&newer.issues);
    known.routed_experts = newer.routed_experts.or(known.routed_experts.take());
    known.sampling_mask = newer.sampling_mask.or(known.sampling_mask.take());
    if is_cumulative {
        known.ids = newer.ids.or(known.ids.take());
        known.logprobs = newer.logprobs.or(known.logprobs.take());
    } else {
        known.ids.get_or_insert_default().extend(newer.ids.unwrap_or_default());
        known.logprobs.get_or_insert_default().extend(newer.logprobs.unwrap_or_default());
        if known.logprobs.as_ref().is_some_and(Vec::is_empty) {
            known.logprobs = None;
        }
    }
}
