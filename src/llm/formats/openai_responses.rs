//! OpenAI responses. The events are the same over HTTP and over a WebSocket.

use super::format::{ApiFormat, CallRequest};
use super::openai_chat::named_logprobs;
use super::parts::{self, TokenNames};
use crate::llm::call::LlmCall;
use crate::llm::message::{Message, Part, arguments_of_text};
use crate::llm::token_ids::tokens::Tokens;
use crate::wire::json::Json;

/// The format of responses.
pub(crate) struct Responses;

impl ApiFormat for Responses {
    fn request(&self, request: &CallRequest<'_>, call: &mut LlmCall) {
        let body = request.body;
        call.request = parts::parameters(body);
        call.request.previous_response_id = body.get("previous_response_id").word();
        let conversation = body.get("conversation");
        call.request.conversation_id = conversation.word().or_else(|| conversation.get("id").word());
        call.request.wants_token_ids |= body.get("enable_response_messages").bool() == Some(true);
        call.system = parts::content(body.get("instructions"));
        call.request.is_warmup = body.get("generate").bool() == Some(false);
        call.tools = parts::tools(body.get("tools"));
        call.input = match body.get("input") {
            Json::Text(text) => vec![message("user", vec![Part::text(text.clone())])],
            items => {
                // Codex adds tools in mid-conversation.
                let (tools, messages): (Vec<_>, Vec<_>) =
                    items.list().iter().partition(|item| item.get("type").text() == Some("additional_tools"));
                call.tools.extend(tools.into_iter().flat_map(|item| parts::tools(item.get("tools"))));
                messages.into_iter().map(item).collect()
            }
        };
    }

    fn response(&self, body: &Json<'_>, call: &mut LlmCall) {
        parts::root(body, call);
        call.request.sampling.extend(parts::sampling(body));
        let choice = call.choice(0);
        let output = body.get("output").list();
        if !output.is_empty() {
            choice.parts = output.iter().flat_map(|element| item(element).parts).collect();
        }
        let status = body.get("status").word();
        let reason = body.at(&["incomplete_details", "reason"]).word();
        choice.finish_reason = reason.or(status).or(choice.finish_reason.take());
        let content = output.iter().flat_map(|element| element.get("content").list());
        for part in content {
            named_logprobs(part.get("logprobs"), TokenNames::AreIds, &mut choice.tokens);
        }
        // Sent by vLLM for `enable_response_messages`.
        if body.has("output_messages") {
            choice.tokens.ids = None;
            message_ids(body.get("output_messages"), &mut choice.tokens);
            if call.prompt_ids.ids.is_none() {
                message_ids(body.get("input_messages"), &mut call.prompt_ids);
            }
        }
    }

    fn event(&self, name: &str, data: &Json<'_>, call: &mut LlmCall) -> bool {
        let kind = data.get("type").text().unwrap_or(name);
        let delta = data.get("delta").text().unwrap_or_default();
        let key = data.get("output_index").int().unwrap_or(0);
        match kind {
            "response.completed" | "response.incomplete" | "response.failed" | "response.done" => {
                let response = data.get("response");
                let error = response.get("error");
                if !error.is_null() {
                    let text = |name: &str| error.get(name).text().unwrap_or_default().to_owned();
                    call.error = Some((text("code"), text("message")));
                }
                self.response(response, call);
                false
            }
            "response.created" | "response.in_progress" => {
                parts::root(data.get("response"), call);
                false
            }
            "response.output_text.delta" | "response.refusal.delta" => {
                call.choice(0).push_text(delta);
                true
            }
            "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" => {
                call.choice(0).push_reasoning(delta);
                true
            }
            "response.output_item.added" => {
                let item = data.get("item");
                if item.get("type").text() == Some("function_call") {
                    let (id, name) = (item.get("call_id").word(), item.get("name").text());
                    call.choice(0).push_call(key, id, name, "");
                }
                false
            }
            "response.function_call_arguments.delta" => {
                call.choice(0).push_call(key, None, None, delta);
                true
            }
            _ => false,
        }
    }
}

/// Reads the ids of vLLM's messages, one after the other.
fn message_ids(messages: &Json<'_>, into: &mut Tokens) {
    into.ids.get_or_insert_default();
    messages.list().iter().for_each(|message| into.push_ids(message.get("tokens")));
}

fn message(role: &str, parts: Vec<Part>) -> Message {
    Message { role: role.to_owned(), parts, ..Message::default() }
}

/// An input or output item.
fn item(json: &Json<'_>) -> Message {
    let id = || json.any(&["call_id", "id"]).word();
    match json.get("type").text().unwrap_or("message") {
        "function_call" | "custom_tool_call" => {
            let arguments = json.any(&["arguments", "input"]).text().map_or(Json::Null, arguments_of_text);
            let name = json.get("name").word().unwrap_or_default();
            message("assistant", vec![Part::ToolCall { id: id(), name, arguments }])
        }
        "function_call_output" | "custom_tool_call_output" => {
            let response = parts::flat(json.get("output"));
            message("tool", vec![Part::ToolCallResponse { id: id(), response }])
        }
        "reasoning" => {
            let texts = json.get("summary").list().iter().chain(json.get("content").list());
            let texts: Vec<&str> = texts.filter_map(|part| part.get("text").text()).collect();
            message("assistant", vec![Part::Reasoning { content: texts.join("\n") }])
        }
        "agent_message" => {
            let texts = json.get("content").list().iter();
            let texts = texts.filter_map(|part| part.any(&["text", "encrypted_content"]).text());
            message("user", vec![Part::text(texts.collect::<String>())])
        }
        "message" => message(json.get("role").text().unwrap_or("assistant"), parts::content(json.get("content"))),
        _ => message("assistant", vec![Part::Other(json.clone().into_owned())]),
    }
}
