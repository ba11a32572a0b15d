//! Answers as Gemini's generateContent has them.
//!
//! It must not show the agent more than that API does: no token ids, no logprobs.

use super::blocks::{Block, Event, Kind};
use super::chat::{Finish, Reply, Writer};
use super::untranslatable::Untranslatable;
use crate::llm::api::error::{ApiErrorKind, google_error};
use crate::llm::json_object::{lean, object, text_of, write_data};
use crate::wire::json::Json;

/// Writes them.
#[derive(Debug)]
pub(super) struct AsGemini {
    // Else a stream is one list that is written piece by piece.
    sse: bool,
    begun: bool,
}

impl AsGemini {
    /// Answers; streams of them as events, or as a list.
    pub(super) fn new(sse: bool) -> Self {
        Self { sse, begun: false }
    }

    fn send(&mut self, data: &Json<'_>, out: &mut Vec<u8>) {
        if self.sse {
            return write_data(data, out);
        }
        let before = if self.begun { ",\r\n" } else { "[" };
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(text_of(data).as_bytes());
        self.begun = true;
    }

    fn send_last(&mut self, data: &Json<'_>, out: &mut Vec<u8>) {
        self.send(data, out);
        if !self.sse {
            out.extend_from_slice(b"]");
        }
    }
}

impl Writer for AsGemini {
    fn whole<'a>(&self, reply: &'a Reply) -> Result<Json<'a>, Untranslatable> {
        let blocks = reply.blocks().iter().enumerate();
        let parts = blocks.map(|(index, block)| part(reply, index, block, &block.text));
        Ok(answer(reply, parts.collect::<Result<_, _>>()?, true))
    }

    fn event(&mut self, reply: &Reply, event: &Event, out: &mut Vec<u8>) -> Result<(), Untranslatable> {
        // Texts come as they are written, calls when they are whole.
        let (index, text) = match event {
            Event::Grew(index, text) => (*index, Some(text)),
            Event::Closed(index) => (*index, None),
            Event::Began | Event::Opened(_) => return Ok(()),
        };
        let Some(block) = reply.blocks().get(index) else { return Ok(()) };
        let is_call = matches!(block.kind, Kind::Call { .. });
        if is_call == text.is_none() {
            let part = part(reply, index, block, text.unwrap_or(&block.text))?;
            self.send(&answer(reply, vec![part], false), out);
        }
        Ok(())
    }

    fn end(&mut self, reply: &Reply, out: &mut Vec<u8>) {
        self.send_last(&answer(reply, vec![object! {"text": ""}], true), out);
    }

    fn fail(&mut self, _reply: &Reply, kind: ApiErrorKind, message: &str, out: &mut Vec<u8>) {
        self.send_last(&google_error(None, kind, message), out);
    }
}

/// Parts of the answer; its end has the reason and the usage.
fn answer<'a>(reply: &'a Reply, parts: Vec<Json<'a>>, ended: bool) -> Json<'a> {
    let reason = match reply.finish() {
        Finish::Stop | Finish::Calls => "STOP",
        Finish::Length => "MAX_TOKENS",
        Finish::Filter => "SAFETY",
    };
    let candidate = object! {
        "content": object! {"parts": parts, "role": "model"},
        "finishReason": ended.then_some(reason),
        "index": 0_i64,
    };
    lean(object! {
        "candidates": vec![lean(candidate)],
        "usageMetadata": ended.then(|| usage(reply)),
        "modelVersion": &reply.model,
        "responseId": &reply.id,
    })
}

fn part<'a>(reply: &'a Reply, index: usize, block: &'a Block, text: &'a str) -> Result<Json<'a>, Untranslatable> {
    Ok(match &block.kind {
        Kind::Reasoning => object! {"text": text, "thought": true},
        Kind::Text => object! {"text": text},
        Kind::Call { id, name } => {
            object! {"functionCall": object! {"id": id, "name": name, "args": reply.arguments(index)?}}
        }
    })
}

/// What was thought is counted apart from the rest of the output.
fn usage(reply: &Reply) -> Json<'static> {
    let usage = reply.usage;
    object! {
        "promptTokenCount": usage.input,
        "cachedContentTokenCount": usage.cached,
        "candidatesTokenCount": (usage.output - usage.reasoning).max(0),
        "thoughtsTokenCount": usage.reasoning,
        "totalTokenCount": usage.input + usage.output,
    }
}
