//! OpenAI chat completions, from any server; with the token ids of vLLM, SGLang and llama.cpp.

use super::format::{ApiFormat, CallRequest};
use super::parts::{self, Place, TokenNames, ids_in};
use crate::llm::call::{LlmCall, Parameters};
use crate::llm::token_ids::tokens::{TokenIdIssue, Tokens};
use crate::trace::SamplerArray;
use crate::wire::json::Json;
use crate::wire::json_value::Packed;

/// The format of chat completions.
pub(crate) struct Chat;

impl ApiFormat for Chat {
    fn request(&self, request: &CallRequest<'_>, call: &mut LlmCall) {
        let body = request.body;
        let deployment = request.model.map(str::to_owned);
        let asks = |name: &str| request.headers.get(name).is_some_and(|value| value == "1");
        call.request = Parameters { model: body.get("model").word().or(deployment), ..parts::parameters(body) };
        call.request.wants_token_ids |= asks("x-sglext-return-output-ids");
        call.tools = parts::tools(body.any(&["tools", "functions"]));
        // System instructions are messages here, with the role `system` or `developer`.
        call.input = body.get("messages").list().iter().map(parts::chat_message).collect();
    }

    fn response(&self, body: &Json<'_>, call: &mut LlmCall) {
        parts::root(body, call);
        for (index, choice) in parts::choices(body, call) {
            let message = parts::chat_message(choice.get("message"));
            let into = call.choice(index);
            into.role = Some(message.role).filter(|role| !role.is_empty());
            into.parts = message.parts;
            into.finish_reason = choice.get("finish_reason").word();
            choice_tokens(index, choice, call);
        }
        root_tokens(body, call);
    }

    fn event(&self, _: &str, data: &Json<'_>, call: &mut LlmCall) -> bool {
        parts::root(data, call);
        let mut moved = false;
        for (index, choice) in parts::choices(data, call) {
            let delta = choice.get("delta");
            let into = call.choice(index);
            if let Some(role) = delta.get("role").word() {
                into.role = Some(role);
            }
            // Some servers send the reasoning under both names.
            let reasoning = delta.any(&["reasoning_content", "reasoning"]).text().unwrap_or_default();
            into.push_reasoning(reasoning);
            moved |= !reasoning.is_empty();
            for name in ["content", "refusal"] {
                let text = delta.get(name).text().unwrap_or_default();
                into.push_text(text);
                moved |= !text.is_empty();
            }
            for piece in delta.get("tool_calls").list() {
                let function = piece.get("function");
                let arguments = function.get("arguments").text().unwrap_or_default();
                into.push_call(
                    piece.get("index").int().unwrap_or(0),
                    piece.get("id").word(),
                    function.get("name").text(),
                    arguments,
                );
                moved = true;
            }
            if let Some(reason) = choice.get("finish_reason").word() {
                into.finish_reason = Some(reason);
            }
            moved |= choice.get("token_ids").len() > 0;
            choice_tokens(index, choice, call);
        }
        root_tokens(data, call);
        moved
    }
}

/// Reads the token ids and logprobs of a choice, in each of the places where servers put them.
fn choice_tokens(index: i64, choice: &Json<'_>, call: &mut LlmCall) {
    let extra = choice.get("provider_specific_fields");
    let meta = choice.get("meta_info");
    let into = call.choice(index);
    let ids = if choice.get("token_ids").is_null() { extra.get("token_ids") } else { choice.get("token_ids") };
    into.tokens.push_ids(ids);
    let prompt = if choice.get("prompt_token_ids").is_null() {
        extra.get("prompt_token_ids")
    } else {
        choice.get("prompt_token_ids")
    };
    if into.prompt_ids.ids.is_none() {
        into.prompt_ids.push_ids(prompt);
    }
    parts::sampler_arrays(choice, &mut into.tokens);
    let sampled = meta.get("output_token_logprobs");
    if sampled.len() == 0 {
        named_logprobs(choice.at(&["logprobs", "content"]), TokenNames::beside(ids), &mut into.tokens);
    } else {
        // Complete, whereas some versions of SGLang truncate `logprobs.content`.
        paired_logprobs(sampled, &mut into.tokens);
    }
}

/// Reads `[{token, logprob}]`. Tokens may name their ids (see [`TokenNames`]), or have them in a field as llama.cpp's do.
pub(super) fn named_logprobs(content: &Json<'_>, names: TokenNames, into: &mut Tokens) {
    if let Json::Packed(Packed::Table(table)) = content {
        into.push_column(table, table.column("logprob"));
        if names == TokenNames::AreIds {
            if table.column("id").is_some_and(|ids| ids.get(0).int().is_some()) {
                into.push_ids(&ids_in(content, Place::Field("id")));
            } else if let Some(texts) = table.column("token") {
                for text in (0..table.rows()).filter_map(|row| texts.text(row)) {
                    into.push_named_id(text);
                }
            }
        }
    }
    for token in content.list() {
        into.push_logprob(token.get("logprob"));
    }
    if names == TokenNames::AreIds {
        if content.list().first().is_some_and(|first| first.get("id").int().is_some()) {
            into.push_ids(&ids_in(content, Place::Field("id")));
        } else {
            for text in content.list().iter().filter_map(|token| token.get("token").text()) {
                into.push_named_id(text);
            }
        }
    }
}

/// Reads SGLang's `[[logprob, id, text]]`.
pub(super) fn paired_logprobs(pairs: &Json<'_>, into: &mut Tokens) {
    if let Json::Packed(Packed::Table(table)) = pairs {
        into.push_column(table, table.position(0));
    }
    pairs.list().iter().for_each(|pair| into.push_logprob(pair.list().first().unwrap_or(&Json::Null)));
}

/// Reads SGLang's ids at the root, which come once, with the last event.
fn root_tokens(body: &Json<'_>, call: &mut LlmCall) {
    let sglext = body.get("sglext");
    if sglext.is_null() {
        return;
    }
    call.prompt_ids_once(sglext.get("input_ids"));
    call.choice(0).tokens.push_array(SamplerArray::RoutedExperts, sglext.get("routed_experts"));
    for (index, ids) in (0..).zip(sglext.get("output_ids").list()) {
        let tokens = &mut call.choice(index).tokens;
        let mut whole = Tokens::default();
        whole.push_ids(ids);
        if tokens.ids.is_none() {
            tokens.ids = whole.ids;
        } else if tokens.ids != whole.ids {
            tokens.issues.insert(TokenIdIssue::IdsDiffer);
        }
        tokens.issues.extend(whole.issues);
    }
}
