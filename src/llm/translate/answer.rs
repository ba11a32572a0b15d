//! Responses of chat completions become responses of another API: whole, or event by event.

use super::blocks::Event;
use super::chat::{Reply, Writer};
use super::gemini_answer::AsGemini;
use super::messages_answer::AsMessages;
use super::responses_answer::AsResponses;
use super::source::SourceApi;
use super::untranslatable::{Untranslatable, refusal};
use crate::llm::api::error::ApiErrorKind;
use crate::llm::api::stream_end::DONE;
use crate::llm::json_object::text_of;
use crate::wire::json::{Json, parse_repaired, parse_response};
use crate::wire::sse::Events;
use std::sync::Arc;

/// How an answer goes back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(super) source: SourceApi,
    pub(super) thinks: bool,
    pub(super) streams: bool,
    pub(super) sse: bool,
    pub(super) model: String,
    pub(super) echo: Arc<Json<'static>>,
}

impl Answer {
    /// True when the client asked for a stream.
    pub(crate) fn streams(&self) -> bool {
        self.streams
    }

    /// The content type of a streamed answer.
    pub(crate) fn content_type(&self) -> &'static str {
        if self.sse { "text/event-stream" } else { "application/json" }
    }

    /// A whole chat completion as the client's dialect has it.
    pub(crate) fn whole(&self, chat: &[u8]) -> Result<Vec<u8>, Untranslatable> {
        let json = read(chat).map_err(|error| refusal("answer", &format!("is no JSON: {error}")))?;
        let reply = Reply::whole(&json, &self.model, self.thinks)?;
        Ok(text_of(&self.writer().whole(&reply)?).into_bytes())
    }

    /// Begins a streamed answer.
    pub(crate) fn stream(&self) -> AnswerStream {
        AnswerStream {
            unread: Vec::new(),
            reply: Reply::new(&self.model, self.thinks),
            writer: self.writer(),
            ended: false,
        }
    }

    fn writer(&self) -> Box<dyn Writer> {
        match self.source {
            SourceApi::Messages => Box::new(AsMessages),
            SourceApi::Responses => Box::new(AsResponses::new(Arc::clone(&self.echo))),
            SourceApi::Gemini => Box::new(AsGemini::new(self.sse)),
        }
    }
}

/// A streamed answer on its way.
pub(crate) struct AnswerStream {
    unread: Vec<u8>,
    reply: Reply,
    writer: Box<dyn Writer>,
    ended: bool,
}

/// The largest event of a backend that is waited for.
const MAX_EVENT_BYTES: usize = 16 << 20;

impl AnswerStream {
    /// True once the client has everything.
    #[cfg(test)]
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes bytes of the backend's events, cut anywhere, and gives those that the client gets by them.
    pub(crate) fn push(&mut self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.unread.extend_from_slice(data);
        let mut unread = std::mem::take(&mut self.unread);
        let mut read = 0;
        for event in Events::new(&unread).take_while(|event| event.complete) {
            read = event.end;
            self.take(&event.data, &mut out);
        }
        if self.ended {
            return out;
        }
        unread.drain(..read);
        if unread.len() > MAX_EVENT_BYTES {
            self.break_off(ApiErrorKind::Api, "an event of the backend is too large", &mut out);
        } else {
            self.unread = unread;
        }
        out
    }

    /// The end of the backend's stream. An answer that was not whole ends with an error, so that the client sees it.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let unread = std::mem::take(&mut self.unread);
        // The blank line behind the last event may be missing.
        let last = Events::new(&unread).next().map(|event| event.data);
        if let Some(last) = last.filter(|last| last.trim_ascii() == DONE || read(last).is_ok()) {
            self.take(&last, &mut out);
        }
        if self.reply.is_finished() {
            self.conclude(&mut out);
        } else if !self.ended {
            out.extend(self.fail(ApiErrorKind::Api, "the backend's answer ended before it was whole"));
        }
        out
    }

    /// Ends an answer that can't be whole any more.
    pub(crate) fn fail(&mut self, kind: ApiErrorKind, message: &str) -> Vec<u8> {
        let mut out = Vec::new();
        self.break_off(kind, message, &mut out);
        out
    }

    /// One event of the backend.
    fn take(&mut self, data: &[u8], out: &mut Vec<u8>) {
        let data = data.trim_ascii();
        if self.ended || data.is_empty() {
            return;
        }
        if data == DONE {
            return self.conclude(out);
        }
        match read(data) {
            Ok(chunk) => self.take_chunk(&chunk, out),
            Err(error) => {
                self.break_off(ApiErrorKind::Api, &format!("an event of the backend is no JSON: {error}"), out);
            }
        }
    }

    fn take_chunk(&mut self, chunk: &Json<'_>, out: &mut Vec<u8>) {
        match self.reply.take(chunk) {
            Ok(events) => self.tell(&events, out),
            Err(refused) => self.break_off(ApiErrorKind::Api, &refused.to_string(), out),
        }
        // The usage comes last, in a chunk of its own. Nobody waits for what is behind it.
        let is_usage = !chunk.get("usage").is_null() && chunk.get("choices").list().is_empty();
        if is_usage && self.reply.is_finished() {
            self.conclude(out);
        }
    }

    fn tell(&mut self, events: &[Event], out: &mut Vec<u8>) {
        for event in events {
            if let Err(refused) = self.writer.event(&self.reply, event, out) {
                return self.break_off(ApiErrorKind::Api, &refused.to_string(), out);
            }
        }
    }

    fn conclude(&mut self, out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        match self.reply.conclude() {
            Ok(events) => self.tell(&events, out),
            Err(refused) => self.break_off(ApiErrorKind::Api, &refused.to_string(), out),
        }
        if !self.ended {
            self.writer.end(&self.reply, out);
            self.ended = true;
        }
    }

    fn break_off(&mut self, kind: ApiErrorKind, message: &str, out: &mut Vec<u8>) {
        if !self.ended {
            self.writer.fail(&self.reply, kind, message, out);
            self.ended = true;
        }
    }
}

/// JSON of a backend, which may have `NaN` among its logprobs.
fn read(text: &[u8]) -> serde_json::Result<Json<'_>> {
    parse_response(text).or_else(|_| parse_repaired(text).map(|(json, _)| json))
}
