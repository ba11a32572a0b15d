//! Responses in the format of OpenAI responses.
//!
//! The agent gets no more than that API has: no token ids, no logprobs.

use super::blocks::{Block, BlockEvent, BlockKind};
use super::chat_response::{ChatResponse, FinishReason, ResponseWriter};
use super::node::Node;
use super::opaque::opaque;
use super::responses_request::{is_compaction, is_warmup};
use super::responses_tools::{ToolKind, ToolNames, custom_input};
use crate::llm::api::error::ApiErrorKind;
use crate::llm::json_object::{field, object, without_nulls, write_event};
use crate::wire::json::Json;
use std::sync::Arc;

/// Writes responses of OpenAI responses.
#[derive(Debug)]
pub(super) struct ResponsesWriter {
    request: Arc<AnsweredRequest>,
    sequence: i64,
}

/// What a response needs to know of its request.
#[derive(Debug)]
pub(super) struct AnsweredRequest {
    /// The fields that the response repeats.
    echo: Json<'static>,
    /// The tools that functions stand for.
    tools: ToolNames,
    encryption: Encryption,
    /// Nothing of the answer is for the client.
    is_warmup: bool,
    /// The answer is one item.
    is_compaction: bool,
}

/// Whether reasoning is also sent as a text that only its reader understands. Clients that keep no reasoning send that back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encryption {
    Asked,
    NotAsked,
}

impl AnsweredRequest {
    /// A request with tools of these names.
    pub(super) fn new(root: &Node<'_>, tools: ToolNames) -> Self {
        let included = root.get("include");
        let mut included = included.json().list().iter();
        let asks = included.any(|included| included.text() == Some("reasoning.encrypted_content"));
        let encryption = if asks { Encryption::Asked } else { Encryption::NotAsked };
        Self { echo: echo(root), tools, encryption, is_warmup: is_warmup(root), is_compaction: is_compaction(root) }
    }
}

fn echo(root: &Node<'_>) -> Json<'static> {
    let field_or = |name: &str, default: Json<'static>| {
        let value = root.get(name);
        if value.is_null() { default } else { value.json().clone().into_owned() }
    };
    object! {
        "instructions": field_or("instructions", Json::Null),
        "max_output_tokens": field_or("max_output_tokens", Json::Null),
        "metadata": field_or("metadata", object! {}),
        "parallel_tool_calls": field_or("parallel_tool_calls", Json::Bool(true)),
        "previous_response_id": field_or("previous_response_id", Json::Null),
        "reasoning": field_or("reasoning", object! {"effort": None::<bool>, "summary": None::<bool>}),
        "store": field_or("store", Json::Bool(true)),
        "temperature": field_or("temperature", Json::Null),
        "text": field_or("text", object! {"format": object! {"type": "text"}}),
        "tool_choice": field_or("tool_choice", Json::Text("auto".into())),
        "tools": field_or("tools", Json::List(Vec::new())),
        "top_p": field_or("top_p", Json::Null),
        "user": field_or("user", Json::Null),
    }
}

impl ResponsesWriter {
    /// Writes responses to a request.
    pub(super) fn new(request: Arc<AnsweredRequest>) -> Self {
        Self { request, sequence: 0 }
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
        let request = Arc::clone(&self.request);
        let item = request.item(chat, index, block, None);
        self.send("response.output_item.added", object! {"output_index": index, "item": item}, out);
        if let Some(part) = part(&block.kind, "") {
            let fields = object! {
                "item_id": request.item_id(chat, index, &block.kind),
                "output_index": index,
                "content_index": 0_i64,
                "part": part,
            };
            self.send("response.content_part.added", fields, out);
        }
    }

    fn closed(&mut self, chat: &ChatResponse, index: usize, block: &Block, out: &mut Vec<u8>) {
        let request = Arc::clone(&self.request);
        let item_id = request.item_id(chat, index, &block.kind);
        let prefix = request.event_prefix(&block.kind);
        let (delta, done) = (format!("{prefix}.delta"), format!("{prefix}.done"));
        if let Some(part) = part(&block.kind, &block.text) {
            let fields = object! {
                "item_id": &item_id, "output_index": index, "content_index": 0_i64, "text": &block.text,
            };
            self.send(&done, fields, out);
            let fields = object! {
                "item_id": &item_id, "output_index": index, "content_index": 0_i64, "part": part,
            };
            self.send("response.content_part.done", fields, out);
        } else if request.is_custom(&block.kind) {
            // It can be read only once it is complete.
            let input = custom_input(&block.text);
            self.send(&delta, object! {"item_id": &item_id, "output_index": index, "delta": &input}, out);
            self.send(&done, object! {"item_id": &item_id, "output_index": index, "input": &input}, out);
        } else {
            let arguments = arguments(&block.text);
            self.send(&done, object! {"item_id": &item_id, "output_index": index, "arguments": arguments}, out);
        }
        let item = request.item(chat, index, block, Some(&block.text));
        self.send("response.output_item.done", object! {"output_index": index, "item": item}, out);
    }
}

impl ResponseWriter for ResponsesWriter {
    fn whole<'a>(&'a self, chat: &'a ChatResponse) -> Json<'a> {
        self.request.response(chat, self.request.status(chat), None)
    }

    fn event(&mut self, chat: &ChatResponse, event: &BlockEvent, out: &mut Vec<u8>) {
        let request = Arc::clone(&self.request);
        if (request.is_warmup || request.is_compaction) && *event != BlockEvent::Started {
            return;
        }
        let block = |index: &usize| chat.blocks().get(*index);
        match event {
            BlockEvent::Started => {
                for kind in ["response.created", "response.in_progress"] {
                    let response = request.response(chat, "in_progress", None);
                    self.send(kind, object! {"response": response}, out);
                }
            }
            BlockEvent::Opened(index) => {
                if let Some(block) = block(index) {
                    self.opened(chat, *index, block, out);
                }
            }
            BlockEvent::Appended(index, text) => {
                if let Some(block) = block(index).filter(|block| !request.is_custom(&block.kind)) {
                    let content_index = (!matches!(block.kind, BlockKind::ToolCall { .. })).then_some(0_i64);
                    let fields = without_nulls(object! {
                        "item_id": request.item_id(chat, *index, &block.kind),
                        "output_index": *index,
                        "content_index": content_index,
                        "delta": text,
                    });
                    self.send(&format!("{}.delta", request.event_prefix(&block.kind)), fields, out);
                }
            }
            BlockEvent::Closed(index) => {
                if let Some(block) = block(index) {
                    self.closed(chat, *index, block, out);
                }
            }
        }
    }

    fn end(&mut self, chat: &ChatResponse, out: &mut Vec<u8>) {
        let request = Arc::clone(&self.request);
        if request.is_compaction {
            for kind in ["response.output_item.added", "response.output_item.done"] {
                self.send(kind, object! {"output_index": 0_i64, "item": compaction(chat)}, out);
            }
        }
        let status = request.status(chat);
        let response = request.response(chat, status, None);
        self.send(&format!("response.{status}"), object! {"response": response}, out);
    }

    fn fail(&mut self, chat: &ChatResponse, kind: ApiErrorKind, message: &str, out: &mut Vec<u8>) {
        let request = Arc::clone(&self.request);
        // No response was created that could fail.
        if self.sequence == 0 {
            return write_event(&error_event(kind, message), out);
        }
        let error = object! {"code": kind.openai_response_code(), "message": message};
        let response = request.response(chat, "failed", Some(error));
        self.send("response.failed", object! {"response": response}, out);
    }
}

impl AnsweredRequest {
    /// The response; without output and usage while it is in progress.
    fn response<'a>(&'a self, chat: &'a ChatResponse, status: &'static str, error: Option<Json<'a>>) -> Json<'a> {
        let in_progress = status == "in_progress";
        let items = chat.blocks().iter().enumerate().filter(|_| !in_progress && !self.is_warmup);
        let items = items.filter(|_| !self.is_compaction);
        let mut output: Vec<Json<'a>> =
            items.map(|(index, block)| self.item(chat, index, block, Some(&block.text))).collect();
        if self.is_compaction && !in_progress {
            output.push(compaction(chat));
        }
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
            field("truncation", "disabled"),
            field("usage", (!in_progress).then(|| usage(chat))),
        ];
        if let Json::Object(fields) = self.echo.clone() {
            response.extend(fields);
        }
        Json::Object(response)
    }

    fn status(&self, chat: &ChatResponse) -> &'static str {
        match chat.finish_reason() {
            FinishReason::Length | FinishReason::ContentFilter if !self.is_warmup => "incomplete",
            _ => "completed",
        }
    }

    /// A block as an item; without text while it is in progress.
    fn item<'a>(&'a self, chat: &ChatResponse, index: usize, block: &'a Block, text: Option<&'a str>) -> Json<'a> {
        let id = self.item_id(chat, index, &block.kind);
        let status = match text {
            None => "in_progress",
            Some(_) if chat.is_truncated(index) => "incomplete",
            Some(_) => "completed",
        };
        let content: Vec<Json<'a>> = text.and_then(|text| part(&block.kind, text)).into_iter().collect();
        match &block.kind {
            BlockKind::Reasoning => {
                let encrypted = text.filter(|_| self.encryption == Encryption::Asked).map(opaque);
                let mut item = vec![
                    field("id", id),
                    field("type", "reasoning"),
                    field("status", status),
                    field("summary", Vec::new()),
                    field("content", content),
                ];
                item.extend(encrypted.map(|encrypted| field("encrypted_content", encrypted)));
                Json::Object(item)
            }
            BlockKind::Text => object! {
                "id": id, "type": "message", "status": status, "role": "assistant", "content": content,
            },
            BlockKind::ToolCall { id: call_id, name } => self.call(id, status, (call_id, name), text),
        }
    }

    /// A call of a tool, as the client knows it.
    fn call<'a>(
        &'a self,
        id: String,
        status: &'static str,
        (call_id, name): (&'a str, &'a str),
        text: Option<&'a str>,
    ) -> Json<'a> {
        let tool = self.tools.get(name);
        let is_custom = tool.is_some_and(|tool| tool.kind == ToolKind::Custom);
        let kind = if is_custom { "custom_tool_call" } else { "function_call" };
        let mut call = vec![field("id", id), field("type", kind), field("status", status), field("call_id", call_id)];
        call.push(field("name", tool.map_or(name, |tool| &tool.name)));
        let namespace = tool.and_then(|tool| tool.namespace.as_ref());
        call.extend(namespace.map(|namespace| field("namespace", namespace)));
        call.push(match text {
            Some(text) if is_custom => field("input", custom_input(text)),
            None if is_custom => field("input", ""),
            text => field("arguments", text.map_or("", arguments)),
        });
        Json::Object(call)
    }

    /// True for a call of a tool that takes a text as its input.
    fn is_custom(&self, kind: &BlockKind) -> bool {
        let BlockKind::ToolCall { name, .. } = kind else { return false };
        self.tools.get(name).is_some_and(|tool| tool.kind == ToolKind::Custom)
    }

    /// The id of an item, made from the response's.
    fn item_id(&self, chat: &ChatResponse, index: usize, kind: &BlockKind) -> String {
        let prefix = match kind {
            BlockKind::Reasoning => "rs",
            BlockKind::Text => "msg",
            BlockKind::ToolCall { .. } if self.is_custom(kind) => "ctc",
            BlockKind::ToolCall { .. } => "fc",
        };
        format!("{prefix}_{}_{index}", chat.id)
    }

    /// The prefix of the event types with a block's text.
    fn event_prefix(&self, kind: &BlockKind) -> &'static str {
        match kind {
            BlockKind::Reasoning => "response.reasoning_text",
            BlockKind::Text => "response.output_text",
            BlockKind::ToolCall { .. } if self.is_custom(kind) => "response.custom_tool_call_input",
            BlockKind::ToolCall { .. } => "response.function_call_arguments",
        }
    }
}

/// The whole answer as an item that takes the place of the conversation.
fn compaction(chat: &ChatResponse) -> Json<'static> {
    let texts = chat.blocks().iter().filter(|block| block.kind == BlockKind::Text);
    let summary: String = texts.map(|block| block.text.as_str()).collect();
    object! {"id": format!("cmp_{}_0", chat.id), "type": "compaction", "encrypted_content": opaque(&summary)}
}

/// The arguments of a call. Clients parse them, also where the model wrote none.
fn arguments(text: &str) -> &str {
    if text.trim().is_empty() { "{}" } else { text }
}

/// The only part of an item's content. A tool call has none.
fn part<'a>(kind: &BlockKind, text: &'a str) -> Option<Json<'a>> {
    match kind {
        BlockKind::Reasoning => Some(object! {"type": "reasoning_text", "text": text}),
        BlockKind::Text => Some(object! {"type": "output_text", "text": text, "annotations": Vec::new()}),
        BlockKind::ToolCall { .. } => None,
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
