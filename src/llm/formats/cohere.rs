//! Cohere's chat, version 2.

use super::format::{ApiFormat, CallRequest};
use super::parts;
use crate::llm::call::LlmCall;
use crate::llm::message::Part;
use crate::llm::usage::Usage;
use crate::wire::json::Json;

/// The format of Cohere's chat.
pub(crate) struct Chat;

impl ApiFormat for Chat {
    fn request(&self, request: &CallRequest<'_>, call: &mut LlmCall) {
        let body = request.body;
        call.request = parts::parameters(body);
        call.request.top_p = body.get("p").float();
        call.request.top_k = body.get("k").float();
        call.tools = parts::tools(body.get("tools"));
        call.input = body.get("messages").list().iter().map(parts::chat_message).collect();
    }

    fn response(&self, body: &Json<'_>, call: &mut LlmCall) {
        call.response_id = body.get("id").word();
        call.usage = usage(body.get("usage"));
        let mut message = parts::chat_message(body.get("message"));
        if let Some(plan) = body.at(&["message", "tool_plan"]).word() {
            message.parts.insert(0, Part::Reasoning { content: plan });
        }
        let choice = call.choice(0);
        (choice.role, choice.parts) = (Some(message.role), message.parts);
        choice.finish_reason = body.get("finish_reason").word();
    }

    fn event(&self, name: &str, data: &Json<'_>, call: &mut LlmCall) -> bool {
        let delta = data.get("delta");
        let message = delta.get("message");
        let key = data.get("index").int().unwrap_or(0);
        match data.get("type").text().unwrap_or(name) {
            "message-start" => {
                call.response_id = data.get("id").word();
                call.choice(0).role = message.get("role").word();
                false
            }
            "content-delta" => {
                let content = message.get("content");
                let choice = call.choice(0);
                choice.push_reasoning(content.get("thinking").text().unwrap_or_default());
                choice.push_text(content.get("text").text().unwrap_or_default());
                true
            }
            "tool-plan-delta" => {
                call.choice(0).push_reasoning(message.get("tool_plan").text().unwrap_or_default());
                true
            }
            kind @ ("tool-call-start" | "tool-call-delta") => {
                let tool = message.get("tool_calls");
                let function = tool.get("function");
                let arguments = function.get("arguments").text().unwrap_or_default();
                call.choice(0).push_call(key, tool.get("id").word(), function.get("name").text(), arguments);
                kind == "tool-call-delta"
            }
            "message-end" => {
                call.choice(0).finish_reason = delta.get("finish_reason").word();
                call.usage = usage(delta.get("usage"));
                false
            }
            _ => false,
        }
    }
}

fn usage(usage: &Json<'_>) -> Usage {
    let tokens = usage.get("tokens");
    Usage { input: tokens.get("input_tokens").int(), output: tokens.get("output_tokens").int(), ..Usage::default() }
}
