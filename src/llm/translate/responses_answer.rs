//! Answers as OpenAI responses has them.
//!
//! It must not show the agent more than that API does: no token ids, no logprobs.

use super::blocks::{Block, Event, Kind};
use super::chat::{Finish, Reply, Writer};
use super::node::Node;
use super::untranslatable::Untranslatable;
use crate::llm::api::error::ApiErrorKind;
use crate::llm::json_object::{field, lean, object, write_event};
use crate::wire::json::Json;
use std::sync::Arc;

/// Writes them.
#[derive(Debug)]
pub(super) struct AsResponses {
    echo: Arc<Json<'static>>,
    sequence: i64,
}

/// What of a request its response repeats.
pub(super) fn echo(root: &Node<'_>) -> Json<'static> {
    let asked = |name: &str, default: Json<'static>| {
        let value = root.get(name);
        if value.is_null() { default } else { value.json().clone().into_owned() }
    };
    object! {
        "instructions": asked("instructions", Json::Null),
        "max_output_tokens": asked("max_output_tokens", Json::Null),
        "metadata": asked("metadata", object! {}),
        "parallel_tool_calls": asked("parallel_tool_calls", Json::Bool(true)),
        "reasoning": asked("reasoning", object! {"effort": None::<bool>, "summary": None::<bool>}),
        "temperature": asked("temperature", Json::Null),
        "text": asked("text", object! {"format": object! {"type": "text"}}),
        "tool_choice": asked("tool_choice", Json::Text("auto".into())),
        "tools": asked("tools", Json::List(Vec::new())),
        "top_p": asked("top_p", Json::Null),
        "user": asked("user", Json::Null),
    }
}

impl AsResponses {
    /// Answers to a request of which `echo` is repeated.
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

    fn opened(&mut self, reply: &Reply, index: usize, block: &Block, out: &mut Vec<u8>) {
        let item = item(reply, index, block, None);
        self.send("response.output_item.added", object! {"output_index": index, "item": item}, out);
        if let Some(part) = part(&block.kind, "") {
            let fields = object! {
                "item_id": item_id(reply, index, &block.kind),
                "output_index": index,
                "content_index": 0_i64,
                "part": part,
            };
            self.send("response.content_part.added", fields, out);
        }
    }

    fn closed(&mut self, reply: &Reply, index: usize, block: &Block, out: &mut Vec<u8>) {
        let item_id = item_id(reply, index, &block.kind);
        let done = format!("{}.done", name(&block.kind));
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
        let item = item(reply, index, block, Some(&block.text));
        self.send("response.output_item.done", object! {"output_index": index, "item": item}, out);
    }
}

impl Writer for AsResponses {
    fn whole<'a>(&self, reply: &'a Reply) -> Result<Json<'a>, Untranslatable> {
        Ok(response((*self.echo).clone(), reply, status(reply), None))
    }

    fn event(&mut self, reply: &Reply, event: &Event, out: &mut Vec<u8>) -> Result<(), Untranslatable> {
        let block = |index: &usize| reply.blocks().get(*index);
        match event {
            Event::Began => {
                for kind in ["response.created", "response.in_progress"] {
                    let response = response((*self.echo).clone(), reply, "in_progress", None);
                    self.send(kind, object! {"response": response}, out);
                }
            }
            Event::Opened(index) => {
                if let Some(block) = block(index) {
                    self.opened(reply, *index, block, out);
                }
            }
            Event::Grew(index, text) => {
                if let Some(block) = block(index) {
                    let content_index = (!matches!(block.kind, Kind::Call { .. })).then_some(0_i64);
                    let fields = lean(object! {
                        "item_id": item_id(reply, *index, &block.kind),
                        "output_index": *index,
                        "content_index": content_index,
                        "delta": text,
                    });
                    self.send(&format!("{}.delta", name(&block.kind)), fields, out);
                }
            }
            Event::Closed(index) => {
                if let Some(block) = block(index) {
                    self.closed(reply, *index, block, out);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, reply: &Reply, out: &mut Vec<u8>) {
        let status = status(reply);
        let response = response((*self.echo).clone(), reply, status, None);
        self.send(&format!("response.{status}"), object! {"response": response}, out);
    }

    fn fail(&mut self, reply: &Reply, kind: ApiErrorKind, message: &str, out: &mut Vec<u8>) {
        // There is no response that could fail before one began.
        if self.sequence == 0 {
            return write_event(&responses_event(kind, message), out);
        }
        let error = object! {"code": kind.openai_response_code(), "message": message};
        let response = response((*self.echo).clone(), reply, "failed", Some(error));
        self.send("response.failed", object! {"response": response}, out);
    }
}

/// The response as it is; while it is in progress, without what it is going to say.
fn response<'a>(echo: Json<'static>, reply: &'a Reply, status: &'static str, error: Option<Json<'a>>) -> Json<'a> {
    let begins = status == "in_progress";
    let items = reply.blocks().iter().enumerate().filter(|_| !begins);
    let output: Vec<Json<'_>> = items.map(|(index, block)| item(reply, index, block, Some(&block.text))).collect();
    let reason = match reply.finish() {
        Finish::Filter => "content_filter",
        _ => "max_output_tokens",
    };
    let mut response = vec![
        field("id", &reply.id),
        field("object", "response"),
        field("created_at", reply.created),
        field("status", status),
        field("model", &reply.model),
        field("output", output),
        field("error", error),
        field("incomplete_details", (status == "incomplete").then(|| object! {"reason": reason})),
        field("previous_response_id", Json::Null),
        field("store", false),
        field("truncation", "disabled"),
        field("usage", (!begins).then(|| usage(reply))),
    ];
    if let Json::Object(fields) = echo {
        response.extend(fields);
    }
    Json::Object(response)
}

fn status(reply: &Reply) -> &'static str {
    match reply.finish() {
        Finish::Stop | Finish::Calls => "completed",
        Finish::Length | Finish::Filter => "incomplete",
    }
}

/// A block as an item: with its text, or without one as it begins.
fn item<'a>(reply: &Reply, index: usize, block: &'a Block, text: Option<&'a str>) -> Json<'a> {
    let id = item_id(reply, index, &block.kind);
    let status = match text {
        None => "in_progress",
        Some(_) if reply.is_cut(index) => "incomplete",
        Some(_) => "completed",
    };
    let content: Vec<Json<'a>> = text.and_then(|text| part(&block.kind, text)).into_iter().collect();
    match &block.kind {
        Kind::Reasoning => object! {
            "id": id, "type": "reasoning", "status": status, "summary": Vec::new(), "content": content,
        },
        Kind::Text => object! {
            "id": id, "type": "message", "status": status, "role": "assistant", "content": content,
        },
        Kind::Call { id: call_id, name } => object! {
            "id": id,
            "type": "function_call",
            "status": status,
            "call_id": call_id,
            "name": name,
            "arguments": text.unwrap_or_default(),
        },
    }
}

/// The only part of an item's content. A call has none.
fn part<'a>(kind: &Kind, text: &'a str) -> Option<Json<'a>> {
    match kind {
        Kind::Reasoning => Some(object! {"type": "reasoning_text", "text": text}),
        Kind::Text => Some(object! {"type": "output_text", "text": text, "annotations": Vec::new()}),
        Kind::Call { .. } => None,
    }
}

/// An id of its own, made of the answer's.
fn item_id(reply: &Reply, index: usize, kind: &Kind) -> String {
    let prefix = match kind {
        Kind::Reasoning => "rs",
        Kind::Text => "msg",
        Kind::Call { .. } => "fc",
    };
    format!("{prefix}_{}_{index}", reply.id)
}

/// What the events are called in which a block grows.
fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Reasoning => "response.reasoning_text",
        Kind::Text => "response.output_text",
        Kind::Call { .. } => "response.function_call_arguments",
    }
}

fn usage(reply: &Reply) -> Json<'static> {
    let usage = reply.usage;
    object! {
        "input_tokens": usage.input,
        "input_tokens_details": object! {"cached_tokens": usage.cached},
        "output_tokens": usage.output,
        "output_tokens_details": object! {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }
}

/// An error in a stream of OpenAI responses, before anything else.
fn responses_event<'a>(kind: ApiErrorKind, message: &'a str) -> Json<'a> {
    object! {
        "type": "error",
        "sequence_number": 0_i64,
        "code": kind.openai_response_code(),
        "message": message,
        "param": None::<bool>,
    }
}
