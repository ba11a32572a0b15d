//! Responses in the format of Gemini's generateContent.
//!
//! The agent gets no more than that API has: no token ids, no logprobs.

use super::blocks::{Block, BlockEvent, BlockKind};
use super::chat_response::{ChatResponse, FinishReason, ResponseWriter};
use crate::llm::api::error::{ApiErrorKind, google_error};
use crate::llm::json_object::{object, text_of, without_nulls, write_data};
use crate::wire::json::Json;

/// Writes responses of Gemini's generateContent.
#[derive(Debug)]
pub(super) struct GeminiWriter {
    // False: a stream is one list, written element by element.
    sse: bool,
    started: bool,
}

impl GeminiWriter {
    /// Writes streams as server-sent events.
    pub(super) fn of_events() -> Self {
        Self { sse: true, started: false }
    }

    /// Writes streams as one list.
    pub(super) fn of_list() -> Self {
        Self { sse: false, started: false }
    }

    fn send(&mut self, data: &Json<'_>, out: &mut Vec<u8>) {
        if self.sse {
            return write_data(data, out);
        }
        let before = if self.started { ",\r\n" } else { "[" };
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(text_of(data).as_bytes());
        self.started = true;
    }

    fn send_last(&mut self, data: &Json<'_>, out: &mut Vec<u8>) {
        self.send(data, out);
        if !self.sse {
            out.extend_from_slice(b"]");
        }
    }
}

impl ResponseWriter for GeminiWriter {
    fn whole<'a>(&'a self, response: &'a ChatResponse) -> Json<'a> {
        let blocks = response.blocks().iter().enumerate();
        let parts = blocks.map(|(index, block)| part(response, index, block, &block.text));
        generated(response, parts.collect(), Some(response.finish_reason()))
    }

    fn event(&mut self, response: &ChatResponse, event: &BlockEvent, out: &mut Vec<u8>) {
        // Text is sent as it comes, a call when it is complete.
        let (index, text) = match event {
            BlockEvent::Appended(index, text) => (*index, Some(text)),
            BlockEvent::Closed(index) => (*index, None),
            BlockEvent::Started | BlockEvent::Opened(_) => return,
        };
        let Some(block) = response.blocks().get(index) else { return };
        let is_call = matches!(block.kind, BlockKind::ToolCall { .. });
        if is_call == text.is_none() {
            let part = part(response, index, block, text.unwrap_or(&block.text));
            self.send(&generated(response, vec![part], None), out);
        }
    }

    fn end(&mut self, response: &ChatResponse, out: &mut Vec<u8>) {
        self.send_last(&generated(response, vec![object! {"text": ""}], Some(response.finish_reason())), out);
    }

    fn fail(&mut self, _reply: &ChatResponse, kind: ApiErrorKind, message: &str, out: &mut Vec<u8>) {
        self.send_last(&google_error(None, kind, message), out);
    }
}

/// A response with these parts; the last one has the finish reason and the usage.
fn generated<'a>(response: &'a ChatResponse, parts: Vec<Json<'a>>, finish: Option<FinishReason>) -> Json<'a> {
    let word = |reason| match reason {
        FinishReason::Stop | FinishReason::ToolCalls => "STOP",
        FinishReason::Length => "MAX_TOKENS",
        FinishReason::ContentFilter => "SAFETY",
    };
    let candidate = object! {
        "content": object! {"parts": parts, "role": "model"},
        "finishReason": finish.map(word),
        "index": 0_i64,
    };
    without_nulls(object! {
        "candidates": vec![without_nulls(candidate)],
        "usageMetadata": finish.map(|_| usage(response)),
        "modelVersion": &response.model,
        "responseId": &response.id,
    })
}

fn part<'a>(response: &'a ChatResponse, index: usize, block: &'a Block, text: &'a str) -> Json<'a> {
    match &block.kind {
        BlockKind::Reasoning => object! {"text": text, "thought": true},
        BlockKind::Text => object! {"text": text},
        BlockKind::ToolCall { id, name } => {
            object! {"functionCall": object! {"id": id, "name": name, "args": response.arguments(index)}}
        }
    }
}

/// Tokens of reasoning are not part of `candidatesTokenCount`.
fn usage(response: &ChatResponse) -> Json<'static> {
    let usage = response.usage;
    object! {
        "promptTokenCount": usage.input,
        "cachedContentTokenCount": usage.cached,
        "candidatesTokenCount": usage.visible_output(),
        "thoughtsTokenCount": usage.reasoning,
        "totalTokenCount": usage.total(),
    }
}
