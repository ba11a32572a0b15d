//! Responses of chat completions become responses of another API: whole, or event by event.

use super::blocks::BlockEvent;
use super::chat_response::{ChatResponse, Reasoning, ResponseWriter};
use super::gemini_response::GeminiWriter;
use super::messages_response::MessagesWriter;
use super::responses_response::{AnsweredRequest, ResponsesWriter};
use super::untranslatable::{Untranslatable, untranslatable};
use crate::llm::api::error::ApiErrorKind;
use crate::llm::api::stream_end::DONE;
use crate::llm::json_object::text_of;
use crate::wire::json::{Json, parse_repaired, parse_response};
use crate::wire::sse::Events;
use std::sync::Arc;

/// The format of responses, with what they need of the request.
#[derive(Clone, Debug)]
pub(super) enum ResponseFormat {
    Messages,
    Responses(Arc<AnsweredRequest>),
    /// With or without parts for thoughts.
    Gemini(Reasoning),
}

/// Translates the response to one request.
#[derive(Clone, Debug)]
pub(crate) struct ResponseTranslator {
    pub(super) format: ResponseFormat,
    pub(super) reasoning: Reasoning,
    pub(super) streams: bool,
    // Gemini: events, not a list.
    pub(super) sse: bool,
    // The model that the request names, for responses that name none.
    pub(super) model: String,
}

impl ResponseTranslator {
    /// True when the client requested a stream.
    pub(crate) fn streams(&self) -> bool {
        self.streams
    }

    /// The content type of a streamed response.
    pub(crate) fn content_type(&self) -> &'static str {
        if self.sse { "text/event-stream" } else { "application/json" }
    }

    /// Translates a whole chat completion.
    pub(crate) fn whole(&self, chat: &[u8]) -> Result<Vec<u8>, Untranslatable> {
        let json = parse_chunk(chat).map_err(|error| untranslatable("answer", &format!("is no JSON: {error}")))?;
        let response = ChatResponse::whole(&json, &self.model, self.reasoning)?;
        Ok(text_of(&self.writer().whole(&response)).into_bytes())
    }

    /// Translates a whole chat completion into a stream.
    pub(crate) fn whole_as_stream(&self, chat: &[u8]) -> Result<Vec<u8>, Untranslatable> {
        let json = parse_chunk(chat).map_err(|error| untranslatable("answer", &format!("is no JSON: {error}")))?;
        let (mut stream, mut out) = (self.stream(), Vec::new());
        stream.read_chunk(&json, &mut out);
        stream.complete(&mut out);
        Ok(out)
    }

    /// Begins to translate a stream.
    pub(crate) fn stream(&self) -> StreamTranslator {
        StreamTranslator {
            unread: Vec::new(),
            response: ChatResponse::new(&self.model, self.reasoning),
            writer: self.writer(),
            ended: false,
        }
    }

    fn writer(&self) -> Box<dyn ResponseWriter> {
        match &self.format {
            ResponseFormat::Messages => Box::new(MessagesWriter),
            ResponseFormat::Responses(request) => Box::new(ResponsesWriter::new(Arc::clone(request))),
            ResponseFormat::Gemini(thoughts) => {
                Box::new(if self.sse { GeminiWriter::of_events(*thoughts) } else { GeminiWriter::of_list(*thoughts) })
            }
        }
    }
}

/// Translates a streamed response. Once it has ended, it gives no more bytes.
pub(crate) struct StreamTranslator {
    // Bytes of an event that is not complete.
    unread: Vec<u8>,
    response: ChatResponse,
    writer: Box<dyn ResponseWriter>,
    ended: bool,
}

/// The largest event of a backend; a larger one ends the response with an error.
const MAX_EVENT_BYTES: usize = 16 << 20;

impl StreamTranslator {
    /// True once the client has everything.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes bytes of the backend's stream, cut anywhere, and gives the bytes that they become for the client.
    pub(crate) fn push(&mut self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.unread.extend_from_slice(data);
        let mut unread = std::mem::take(&mut self.unread);
        let mut consumed = 0;
        // Only the end of a line completes an event. Without one, an event that comes in many pieces is not searched again.
        let has_line_end = memchr::memchr2(b'\n', b'\r', data).is_some();
        let events = has_line_end.then(|| Events::new(&unread)).into_iter().flatten();
        for event in events.take_while(|event| event.complete) {
            consumed = event.end;
            self.read_event(&event.data, &mut out);
        }
        if self.ended {
            return out;
        }
        unread.drain(..consumed);
        if unread.len() > MAX_EVENT_BYTES {
            self.abort(ApiErrorKind::Api, "an event of the backend is too large", &mut out);
        } else {
            self.unread = unread;
        }
        out
    }

    /// Ends with the backend's stream. A response that is not complete ends with an error.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let unread = std::mem::take(&mut self.unread);
        // The blank line behind the last event may be missing.
        let last = Events::new(&unread).next().map(|event| event.data);
        if let Some(last) = last.filter(|last| last.trim_ascii() == DONE || parse_chunk(last).is_ok()) {
            self.read_event(&last, &mut out);
        }
        if self.response.has_finish_reason() {
            self.complete(&mut out);
        } else if !self.ended {
            out.extend(self.fail(ApiErrorKind::Api, "the backend's response ended before it was complete"));
        }
        out
    }

    /// Ends with an error.
    pub(crate) fn fail(&mut self, kind: ApiErrorKind, message: &str) -> Vec<u8> {
        let mut out = Vec::new();
        self.abort(kind, message, &mut out);
        out
    }

    fn read_event(&mut self, data: &[u8], out: &mut Vec<u8>) {
        let data = data.trim_ascii();
        if self.ended || data.is_empty() {
            return;
        }
        if data == DONE {
            return self.complete(out);
        }
        match parse_chunk(data) {
            Ok(chunk) => self.read_chunk(&chunk, out),
            Err(error) => {
                self.abort(ApiErrorKind::Api, &format!("an event of the backend is no JSON: {error}"), out);
            }
        }
    }

    fn read_chunk(&mut self, chunk: &Json<'_>, out: &mut Vec<u8>) {
        match self.response.push_chunk(chunk) {
            Ok(events) => self.write(&events, out),
            Err(error) => self.abort(ApiErrorKind::Api, &error.to_string(), out),
        }
        // The usage comes last, in a chunk of its own.
        let is_usage = !chunk.get("usage").is_null() && chunk.get("choices").list().is_empty();
        if is_usage && self.response.has_finish_reason() {
            self.complete(out);
        }
    }

    fn write(&mut self, events: &[BlockEvent], out: &mut Vec<u8>) {
        for event in events {
            self.writer.event(&self.response, event, out);
        }
    }

    fn complete(&mut self, out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        match self.response.complete() {
            Ok(events) => self.write(&events, out),
            Err(error) => self.abort(ApiErrorKind::Api, &error.to_string(), out),
        }
        if !self.ended {
            self.writer.end(&self.response, out);
            self.ended = true;
        }
    }

    fn abort(&mut self, kind: ApiErrorKind, message: &str, out: &mut Vec<u8>) {
        if !self.ended {
            self.writer.fail(&self.response, kind, message, out);
            self.ended = true;
        }
    }
}

/// JSON of a backend, which may have `NaN` among its logprobs.
fn parse_chunk(text: &[u8]) -> serde_json::Result<Json<'_>> {
    parse_response(text).or_else(|_| parse_repaired(text).map(|(json, _)| json))
}
