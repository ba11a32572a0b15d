//! Responses in the format of OpenAI responses.
//!
//! The agent gets no more than that API has: no token ids, no logprobs.

use super::blocks::{Block, BlockEvent, BlockKind};
use super::chat_response::{ChatResponse, FinishReason, ResponseWriter};
use super::node::Node;
use super::untranslatable::Untranslatable;
use crate::llm::api::error::ApiErrorKind;
use crate::llm::json_object::{field, object, without_nulls, write_event};
use crate::wire::json::Json;
use std::sync::Arc;

/// Writes responses of OpenAI responses.
#[derive(Debug)]
pub(super) struct ResponsesWriter {
    echo: Arc<Json<'static>>,
    sequence: i64,
}

/// The fields of a request that its response repeats.
pub(super) fn echo(root: &Node<'_>) -> Json<'static> {
    let field_or = |name: &str, default: Json<'static>| {
        let value = root.get(name);
        if value.is_null() { default } else { value.json().clone().into_owned() }
    };
    object! {
        "instructions": field_or("instructions", Json::Null),
        "max_output_tokens": field_or("max_output_tokens", Json::Null),
        "metadata": field_or("metadata", object! {}),
        "parallel_tool_calls": field_or("parallel_tool_calls", Json::Bool(true)),
        "reasoning": field_or("reasoning", object! {"effort": None::<bool>, "summary": None::<bool>}),
        "temperature": field_or("temperature", Json::Null),
        "text": field_or("text", object! {"format": object! {"type": "text"}}),
        "tool_choice": field_or("tool_choice", Json::Text("auto".into())),
        "tools": field_or("tools", Json::List(Vec::new())),
        "top_p": field_or("top_p", Json::Null),
        "user": field_or("user", Json::Null),
    }
}

impl ResponsesWriter {
    /// Writes responses to a request with these repeated fields; see [`echo`].
    pub(super) fn new(echo: Arc<Json<'static>>) -> Self {
        Self { echo, sequence: 0 }
    }

    fn send(&mut self, kind: &str, fields: Json<'_>, out: &mut Vec<u8>) {
        let mut event = vec![field("type", kind), field("sequence_number", self.sequence)];
        if let Json::Object(fields) = fields {
            event.extend(fields);
        }
        self.sequence += 1;
        write_event(&Json::Object(event), out);
    }

    fn opened(&mut self, chat: &ChatResponse, index: usize, block: &Block, out: &mut Vec<u8>) {
        let item = item(chat, index, block, None);
        self.send("response.output_item.added", object! {"output_index": index, "item": item}, out);
        if let Some(part) = part(&block.kind, "") {
            let fields = object! {
                "item_id": item_id(chat, index, &block.kind),
                "output_index": index,
                "content_index": 0_i64,
                "part": part,
            };
            self.send("response.content_part.added", fields, out);
        }
    }

    fn closed(&mut self, chat: &ChatResponse, index: usize, block: &Block, out: &mut Vec<u8>) {
        let item_id = item_id(chat, index, &block.kind);
        let done = format!("{}.done", event_prefix(&block.kind));
        match part(&block.kind, &block.text) {
            Some(part) => {
                let fields = object! {
                    "item_id": &item_id, "output_index": index, "content_index": 0_i64, "text": &block.text,
                };
                self.send(&done, fields, out);
                let fields = object! {
                    "item_id": &item_id, "output_index": index, "content_index": 0_i64, "part": part,
                };
                self.send("response.content_part.done", fields, out);
            }
            None => {
                let fields = object! {"item_id": &item_id, "output_index": index, "arguments": &block.text};
                self.send(&done, fields, out);
            }
        }
        let item = item(chat, index, block, Some(&block.text));
        self.send("response.output_item.done", object! {"output_index": index, "item": item}, out);
    }
}

impl ResponseWriter for ResponsesWriter {
    fn whole<'a>(&self, chat: &'a ChatResponse) -> Result<Json<'a>, Untranslatable> {
        Ok(response((*self.echo).clone(), chat, status(chat), None))
    }

    fn event(&mut self, chat: &ChatResponse, event: &BlockEvent, out: &mut Vec<u8>) -> Result<(), Untranslatable> {
        let block = |index: &usize| chat.blocks().get(*index);
        match event {
            BlockEvent::Started => {
                for kind in ["response.created", "response.in_progress"] {
                    let response = response((*self.echo).clone(), chat, "in_progress", None);
                    self.send(kind, object! {"response": response}, out);
                }
            }
            BlockEvent::Opened(index) => {
                if let Some(block) = block(index) {
                    self.opened(chat, *index, block, out);
                }
            }
            BlockEvent::Appended(index, text) => {
                if let Some(block) = block(index) {
                    let content_index = (!matches!(block.kind, BlockKind::ToolCall { .. })).then_some(0_i64);
                    let fields = without_nulls(object! {
                        "item_id": item_id(chat, *index, &block.kind),
                        "output_index": *index,
                        "content_index": content_index,
                        "delta": text,
                    });
                    self.send(&format!("{}.delta", event_prefix(&block.kind)), fields, out);
                }
            }
            BlockEvent::Closed(index) => {
                if let Some(block) = block(index) {
                    self.closed(chat, *index, block, out);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, chat: &ChatResponse, out: &mut Vec<u8>) {
        let status = status(chat);
        let response = response((*self.echo).clone(), chat, status, None);
        self.send(&format!("response.{status}"), object! {"response": response}, out);
    }

    fn fail(&mut self, chat: &ChatResponse, kind: ApiErrorKind, message: &str, out: &mut Vec<u8>) {
        // No response was created that could fail.
        if self.sequence == 0 {
            return write_event(&error_event(kind, message), out);
        }
        let error = object! {"code": kind.openai_response_code(), "message": message};
        let response = response((*self.echo).clone(), chat, "failed", Some(error));
        self.send("response.failed", object! {"response": response}, out);
    }
}

/// The response; without output and usage while it is in progress.
fn response<'a>(
    echo: Json<'static>,
    chat: &'a ChatResponse,
    status: &'static str,
    error: Option<Json<'a>>,
) -> Json<'a> {
    let in_progress = status == "in_progress";
    let items = chat.blocks().iter().enumerate().filter(|_| !in_progress);
    let output: Vec<Json<'_>> = items.map(|(index, block)| item(chat, index, block, Some(&block.text))).collect();
    let reason = match chat.finish_reason() {
        FinishReason::ContentFilter => "content_filter",
        _ => "max_output_tokens",
    };
    let mut response = vec![
        field("id", &chat.id),
        field("object", "response"),
        field("created_at", chat.created),
        field("status", status),
        field("model", &chat.model),
        field("output", output),
        field("error", error),
        field("incomplete_details", (status == "incomplete").then(|| object! {"reason": reason})),
        field("previous_response_id", Json::Null),
        field("store", false),
        field("truncation", "disabled"),
        field("usage", (!in_progress).then(|| usage(chat))),
    ];
    if let Json::Object(fields) = echo {
        response.extend(fields);
    }
    Json::Object(response)
}

fn status(chat: &ChatResponse) -> &'static str {
    match chat.finish_reason() {
        FinishReason::Stop | FinishReason::ToolCalls => "completed",
        FinishReason::Length | FinishReason::ContentFilter => "incomplete",
    }
}

/// A block as an item; without text while it is in progress.
fn item<'a>(chat: &ChatResponse, index: usize, block: &'a Block, text: Option<&'a str>) -> Json<'a> {
    let id = item_id(chat, index, &block.kind);
    let status = match text {
        None => "in_progress",
        Some(_) if chat.is_truncated(index) => "incomplete",
        Some(_) => "completed",
    };
    let content: Vec<Json<'a>> = text.and_then(|text| part(&block.kind, text)).into_iter().collect();
    match &block.kind {
        BlockKind::Reasoning => object! {
            "id": id, "type": "reasoning", "status": status, "summary": Vec::new(), "content": content,
        },
        BlockKind::Text => object! {
            "id": id, "type": "message", "status": status, "role": "assistant", "content": content,
        },
        BlockKind::ToolCall { id: call_id, name } => object! {
            "id": id,
            "type": "function_call",
            "status": status,
            "call_id": call_id,
            "name": name,
            "arguments": text.unwrap_or_default(),
        },
    }
}

/// The only part of an item's content. A tool call has none.
fn part<'a>(kind: &BlockKind, text: &'a str) -> Option<Json<'a>> {
    match kind {
        BlockKind::Reasoning => Some(object! {"type": "reasoning_text", "text": text}),
        BlockKind::Text => Some(object! {"type": "output_text", "text": text, "annotations": Vec::new()}),
        BlockKind::ToolCall { .. } => None,
    }
}

/// The id of an item, made from the response's.
fn item_id(chat: &ChatResponse, index: usize, kind: &BlockKind) -> String {
    let prefix = match kind {
        BlockKind::Reasoning => "rs",
        BlockKind::Text => "msg",
        BlockKind::ToolCall { .. } => "fc",
    };
    format!("{prefix}_{}_{index}", chat.id)
}

/// The prefix of the event types with a block's text.
fn event_prefix(kind: &BlockKind) -> &'static str {
    match kind {
        BlockKind::Reasoning => "response.reasoning_text",
        BlockKind::Text => "response.output_text",
        BlockKind::ToolCall { .. } => "response.function_call_arguments",
    }
}

fn usage(chat: &ChatResponse) -> Json<'static> {
    let usage = chat.usage;
    object! {
        "input_tokens": usage.input,
        "input_tokens_details": object! {"cached_tokens": usage.cached},
        "output_tokens": usage.output,
        "output_tokens_details": object! {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total(),
    }
}

/// An error as the first event of a stream.
fn error_event<'a>(kind: ApiErrorKind, message: &'a str) -> Json<'a> {
    object! {
        "type": "error",
        "sequence_number": 0_i64,
        "code": kind.openai_response_code(),
        "message": message,
        "param": None::<bool>,
    }
}
