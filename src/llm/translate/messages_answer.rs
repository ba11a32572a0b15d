//! Answers as Anthropic messages has them.
//!
//! It must not show the agent more than that API does: no token ids, no logprobs.

use super::blocks::{Block, Event, Kind};
use super::chat::{Finish, Reply, Writer};
use super::untranslatable::Untranslatable;
use crate::llm::api::error::{ApiErrorKind, ErrorShape};
use crate::llm::json_object::{object, write_event};
use crate::wire::json::Json;

/// Writes them.
#[derive(Debug)]
pub(super) struct AsMessages;

impl Writer for AsMessages {
    fn whole<'a>(&self, reply: &'a Reply) -> Result<Json<'a>, Untranslatable> {
        let blocks = reply.blocks().iter().enumerate();
        let content = blocks.map(|(index, block)| {
            let input = if matches!(block.kind, Kind::Call { .. }) { reply.arguments(index)? } else { Json::Null };
            Ok(content(block, &block.text, input))
        });
        Ok(message(reply, content.collect::<Result<Vec<_>, Untranslatable>>()?, true))
    }

    fn event(&mut self, reply: &Reply, event: &Event, out: &mut Vec<u8>) -> Result<(), Untranslatable> {
        let block = |index: &usize| reply.blocks().get(*index);
        match event {
            Event::Began => {
                let message = message(reply, Vec::new(), false);
                write_event(&object! {"type": "message_start", "message": message}, out);
            }
            Event::Opened(index) => {
                if let Some(block) = block(index) {
                    let block = content(block, "", object! {});
                    write_event(&object! {"type": "content_block_start", "index": *index, "content_block": block}, out);
                }
            }
            Event::Grew(index, text) => {
                if let Some(block) = block(index) {
                    let delta = delta(&block.kind, text);
                    write_event(&object! {"type": "content_block_delta", "index": *index, "delta": delta}, out);
                }
            }
            Event::Closed(index) => write_event(&object! {"type": "content_block_stop", "index": *index}, out),
        }
        Ok(())
    }

    fn end(&mut self, reply: &Reply, out: &mut Vec<u8>) {
        let delta = object! {"stop_reason": stop_reason(reply), "stop_sequence": stop_sequence(reply)};
        write_event(&object! {"type": "message_delta", "delta": delta, "usage": usage(reply)}, out);
        write_event(&object! {"type": "message_stop"}, out);
    }

    fn fail(&mut self, _reply: &Reply, kind: ApiErrorKind, message: &str, out: &mut Vec<u8>) {
        out.extend(ErrorShape::Anthropic.event(kind, message));
    }
}

/// The message around the content, with the reason for its end if that is there.
fn message<'a>(reply: &'a Reply, content: Vec<Json<'a>>, ended: bool) -> Json<'a> {
    object! {
        "id": &reply.id,
        "type": "message",
        "role": "assistant",
        "model": &reply.model,
        "content": content,
        "stop_reason": ended.then(|| stop_reason(reply)),
        "stop_sequence": if ended { stop_sequence(reply) } else { None },
        "usage": usage(reply),
    }
}

fn content<'a>(block: &'a Block, text: &'a str, input: Json<'a>) -> Json<'a> {
    match &block.kind {
        // Nobody signed what a backend thought.
        Kind::Reasoning => object! {"type": "thinking", "thinking": text, "signature": ""},
        Kind::Text => object! {"type": "text", "text": text},
        Kind::Call { id, name } => object! {"type": "tool_use", "id": id, "name": name, "input": input},
    }
}

fn delta<'a>(kind: &Kind, text: &'a str) -> Json<'a> {
    match kind {
        Kind::Reasoning => object! {"type": "thinking_delta", "thinking": text},
        Kind::Text => object! {"type": "text_delta", "text": text},
        Kind::Call { .. } => object! {"type": "input_json_delta", "partial_json": text},
    }
}

fn stop_reason(reply: &Reply) -> &'static str {
    match reply.finish() {
        Finish::Stop if reply.stop.is_some() => "stop_sequence",
        Finish::Stop => "end_turn",
        Finish::Calls => "tool_use",
        Finish::Length => "max_tokens",
        Finish::Filter => "refusal",
    }
}

fn stop_sequence(reply: &Reply) -> Option<&str> {
    reply.stop.as_deref().filter(|_| reply.finish() == Finish::Stop)
}

/// What came from the cache is counted apart from the rest of the input.
fn usage(reply: &Reply) -> Json<'static> {
    let usage = reply.usage;
    object! {
        "input_tokens": (usage.input - usage.cached).max(0),
        "cache_creation_input_tokens": 0_i64,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
    }
}
