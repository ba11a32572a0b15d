//! Anthropic messages, from any host: Anthropic, Bedrock, Vertex, vLLM, SGLang.

use super::format::{ApiFormat, CallRequest};
use super::parts;
use crate::llm::call::LlmCall;
use crate::llm::message::{Message, Part};
use crate::llm::operation::Operation;
use crate::llm::usage::Usage;
use crate::wire::json::Json;

/// The format of Anthropic messages and of token counts for them.
pub(crate) struct Messages;

impl ApiFormat for Messages {
    fn request(&self, request: &CallRequest<'_>, call: &mut LlmCall) {
        let body = request.body;
        call.request = parts::parameters(body);
        call.request.reasoning_level = body.at(&["thinking", "type"]).word();
        if call.request.model.is_none() {
            call.request.model = request.model.map(str::to_owned);
        }
        call.system = parts::content(body.get("system"));
        call.tools = parts::tools(body.get("tools"));
        let message = |message: &Json<'_>| Message {
            role: message.get("role").text().unwrap_or_default().to_owned(),
            parts: parts::content(message.get("content")),
            ..Message::default()
        };
        call.input = body.get("messages").list().iter().map(message).collect();
        if request.operation == Operation::CountTokens {
            call.api = "anthropic.count_tokens";
        }
    }

    fn response(&self, body: &Json<'_>, call: &mut LlmCall) {
        parts::root(body, call);
        call.usage = usage(if body.has("usage") { body.get("usage") } else { body });
        if body.has("content") {
            let choice = call.choice(0);
            choice.role = body.get("role").word();
            choice.parts = parts::content(body.get("content"));
            choice.finish_reason = body.get("stop_reason").word();
            choice.tokens.push_ids(body.any(&["token_ids", "response_token_ids"]));
        }
    }

    fn event(&self, name: &str, data: &Json<'_>, call: &mut LlmCall) -> bool {
        let key = data.get("index").int().unwrap_or(0);
        match data.get("type").text().unwrap_or(name) {
            "message_start" => {
                let message = data.get("message");
                parts::root(message, call);
                call.usage = usage(message.get("usage"));
                call.choice(0).role = message.get("role").word();
                false
            }
            "content_block_start" => {
                let block = data.get("content_block");
                let choice = call.choice(0);
                match block.get("type").text() {
                    Some("tool_use") => {
                        choice.push_call(key, block.get("id").word(), block.get("name").text(), "");
                    }
                    Some("text") => choice.open_block(key, Part::text(block.get("text").text().unwrap_or_default())),
                    Some("thinking") => {
                        let content = block.get("thinking").text().unwrap_or_default().to_owned();
                        choice.open_block(key, Part::Reasoning { content });
                    }
                    _ => choice.open_block(key, Part::Other(block.clone().into_owned())),
                }
                false
            }
            "content_block_delta" => {
                let delta = data.get("delta");
                let text = delta.any(&["text", "thinking", "partial_json"]).text().unwrap_or_default();
                let choice = call.choice(0);
                if delta.get("type").text() == Some("input_json_delta") {
                    choice.push_call(key, None, None, text);
                } else if let Some(Part::Text { content } | Part::Reasoning { content }) = choice.block(key) {
                    content.push_str(text);
                }
                !text.is_empty()
            }
            "message_delta" => {
                // Its counts are cumulative.
                let newer = usage(data.get("usage"));
                call.usage.update(Usage { input: newer.input.filter(|input| *input > 0), ..newer });
                if let Some(reason) = data.at(&["delta", "stop_reason"]).word() {
                    call.choice(0).finish_reason = Some(reason);
                }
                false
            }
            _ => false,
        }
    }
}

/// Tokens used. Anthropic's `input_tokens` does not include cached tokens; the conventions' count does.
fn usage(usage: &Json<'_>) -> Usage {
    let number = |name: &str| usage.get(name).int();
    let (read, write) = (number("cache_read_input_tokens"), number("cache_creation_input_tokens"));
    Usage {
        input: number("input_tokens")
            .map(|input| input.saturating_add(read.unwrap_or(0)).saturating_add(write.unwrap_or(0))),
        output: number("output_tokens"),
        cache_read: read,
        cache_write: write,
        reasoning: None,
    }
}
