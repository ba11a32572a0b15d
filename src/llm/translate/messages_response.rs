//! Responses in the format of Anthropic messages.
//!
//! The agent gets no more than that API has: no token ids, no logprobs.

use super::blocks::{Block, BlockEvent, BlockKind};
use super::chat_response::{ChatResponse, FinishReason, ResponseWriter};
use crate::llm::api::error::{ApiErrorKind, ErrorShape};
use crate::llm::json_object::{object, write_event};
use crate::wire::json::Json;

/// Writes responses of Anthropic messages.
#[derive(Debug)]
pub(super) struct MessagesWriter;

impl ResponseWriter for MessagesWriter {
    fn whole<'a>(&'a self, response: &'a ChatResponse) -> Json<'a> {
        let blocks = response.blocks().iter().enumerate();
        let content = blocks.map(|(index, block)| {
            let is_call = matches!(block.kind, BlockKind::ToolCall { .. });
            let input = if is_call { response.arguments(index) } else { Json::Null };
            content(block, &block.text, input)
        });
        message(response, content.collect(), Some(response.finish_reason()))
    }

    fn event(&mut self, response: &ChatResponse, event: &BlockEvent, out: &mut Vec<u8>) {
        let block = |index: &usize| response.blocks().get(*index);
        match event {
            BlockEvent::Started => {
                let message = message(response, Vec::new(), None);
                write_event(&object! {"type": "message_start", "message": message}, out);
            }
            BlockEvent::Opened(index) => {
                if let Some(block) = block(index) {
                    let block = content(block, "", object! {});
                    write_event(&object! {"type": "content_block_start", "index": *index, "content_block": block}, out);
                }
            }
            BlockEvent::Appended(index, text) => {
                if let Some(block) = block(index) {
                    let delta = delta(&block.kind, text);
                    write_event(&object! {"type": "content_block_delta", "index": *index, "delta": delta}, out);
                }
            }
            BlockEvent::Closed(index) => write_event(&object! {"type": "content_block_stop", "index": *index}, out),
        }
    }

    fn end(&mut self, response: &ChatResponse, out: &mut Vec<u8>) {
        let delta = object! {"stop_reason": stop_reason(response), "stop_sequence": stop_sequence(response)};
        write_event(&object! {"type": "message_delta", "delta": delta, "usage": usage(response)}, out);
        write_event(&object! {"type": "message_stop"}, out);
    }

    fn fail(&mut self, _reply: &ChatResponse, kind: ApiErrorKind, message: &str, out: &mut Vec<u8>) {
        out.extend(ErrorShape::Anthropic.event(kind, message));
    }
}

/// The message with this content, and with the reason for the end where it has ended.
fn message<'a>(response: &'a ChatResponse, content: Vec<Json<'a>>, finish: Option<FinishReason>) -> Json<'a> {
    object! {
        "id": &response.id,
        "type": "message",
        "role": "assistant",
        "model": &response.model,
        "content": content,
        "stop_reason": finish.map(|_| stop_reason(response)),
        "stop_sequence": finish.and_then(|_| stop_sequence(response)),
        "usage": usage(response),
    }
}

fn content<'a>(block: &'a Block, text: &'a str, input: Json<'a>) -> Json<'a> {
    match &block.kind {
        // Backends don't sign reasoning.
        BlockKind::Reasoning => object! {"type": "thinking", "thinking": text, "signature": ""},
        BlockKind::Text => object! {"type": "text", "text": text},
        BlockKind::ToolCall { id, name } => object! {"type": "tool_use", "id": id, "name": name, "input": input},
    }
}

fn delta<'a>(kind: &BlockKind, text: &'a str) -> Json<'a> {
    match kind {
        BlockKind::Reasoning => object! {"type": "thinking_delta", "thinking": text},
        BlockKind::Text => object! {"type": "text_delta", "text": text},
        BlockKind::ToolCall { .. } => object! {"type": "input_json_delta", "partial_json": text},
    }
}

fn stop_reason(response: &ChatResponse) -> &'static str {
    match response.finish_reason() {
        FinishReason::Stop if response.stop.is_some() => "stop_sequence",
        FinishReason::Stop => "end_turn",
        FinishReason::ToolCalls => "tool_use",
        FinishReason::Length => "max_tokens",
        FinishReason::ContentFilter => "refusal",
    }
}

fn stop_sequence(response: &ChatResponse) -> Option<&str> {
    response.stop.as_deref().filter(|_| response.finish_reason() == FinishReason::Stop)
}

/// Tokens from the cache are not part of `input_tokens`.
fn usage(response: &ChatResponse) -> Json<'static> {
    let usage = response.usage;
    object! {
        "input_tokens": usage.uncached_input(),
        "cache_creation_input_tokens": 0_i64,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
    }
}
