//! Requests in the dialects that clients speak, as chat completions take them, and the answers on their way back.
//!
//! It must do no I/O, and must not drop silently what chat completions can't express: that is refused with its place.

use crate::wire::json::{Json, parse, parse_answer, parse_mended};
use crate::wire::sse::Events;
use chat::{Reply, Writer};
use gemini_answer::AsGemini;
use messages_answer::AsMessages;
use responses_answer::AsResponses;
use serde_json::{Map, Value};
use std::sync::Arc;
use value::Node;

mod blocks;
mod chat;
mod error;
mod gemini;
mod gemini_answer;
mod gemini_schema;
mod messages;
mod messages_answer;
mod request;
mod responses;
mod responses_answer;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use error::{error_body, error_event};

/// The dialect that a client speaks when its backend speaks OpenAI chat completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// Anthropic messages.
    Messages,
    /// OpenAI responses.
    Responses,
    /// Gemini's generateContent.
    Gemini,
}

/// Why something has no counterpart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {cause}")]
pub(crate) struct Untranslatable {
    /// Where it stands (`messages[2].content[0]`).
    pub(crate) place: String,
    /// Why.
    pub(crate) cause: String,
}

/// A request as chat completions take it.
#[derive(Debug)]
pub(crate) struct Translated {
    /// Its body. Gemini has the model in its path: there it is for the caller to add.
    pub(crate) body: Map<String, Value>,
    /// How the answer goes back.
    pub(crate) answer: Answer,
}

/// What the path of a Gemini request says: its body has no fields for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GeminiPath {
    /// `:streamGenerateContent`
    pub(crate) streams: bool,
    /// `alt=sse`
    pub(crate) sse: bool,
}

/// A request of a client as chat completions. `gemini` counts for Gemini only.
pub(crate) fn to_chat(client: Client, body: &[u8], gemini: GeminiPath) -> Result<Translated, Untranslatable> {
    let json = parse(body).map_err(|error| chat::refusal("body", &format!("is no JSON: {error}")))?;
    let root = Node::root(&json);
    let (chat, echo) = match client {
        Client::Messages => (messages::to_chat(&root)?, Json::Null),
        Client::Responses => (responses::to_chat(&root)?, responses_answer::echo(&root)),
        Client::Gemini => (gemini::to_chat(&root, gemini.streams)?, Json::Null),
    };
    // Clients that have not asked for thoughts take the first part of an answer for its text.
    let thinks = match client {
        Client::Messages => chat.get("chat_template_kwargs").get("enable_thinking").bool() == Some(true),
        Client::Responses => true,
        Client::Gemini => gemini::includes_thoughts(&json),
    };
    let answer = Answer {
        client,
        thinks,
        streams: chat.get("stream").bool() == Some(true),
        sse: client != Client::Gemini || gemini.sse,
        model: chat.get("model").word().unwrap_or_default(),
        echo: Arc::new(echo),
    };
    Ok(Translated { body: request::body(chat), answer })
}

/// How an answer goes back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    client: Client,
    thinks: bool,
    streams: bool,
    sse: bool,
    model: String,
    echo: Arc<Json<'static>>,
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
        let json = read(chat).map_err(|error| chat::refusal("answer", &format!("is no JSON: {error}")))?;
        let reply = Reply::whole(&json, &self.model, self.thinks)?;
        Ok(value::text_of(&self.writer().whole(&reply)?).into_bytes())
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
        match self.client {
            Client::Messages => Box::new(AsMessages),
            Client::Responses => Box::new(AsResponses::new(Arc::clone(&self.echo))),
            Client::Gemini => Box::new(AsGemini::new(self.sse)),
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
            self.break_off("api", "an event of the backend is too large", &mut out);
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
            out.extend(self.fail("api", "the backend's answer ended before it was whole"));
        }
        out
    }

    /// Ends an answer that can't be whole any more. `kind` is one of those of [`error_body`].
    pub(crate) fn fail(&mut self, kind: &str, message: &str) -> Vec<u8> {
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
            Err(error) => self.break_off("api", &format!("an event of the backend is no JSON: {error}"), out),
        }
    }

    fn take_chunk(&mut self, chunk: &Json<'_>, out: &mut Vec<u8>) {
        match self.reply.take(chunk) {
            Ok(events) => self.tell(&events, out),
            Err(refused) => self.break_off("api", &refused.to_string(), out),
        }
        // The usage comes last, in a chunk of its own. Nobody waits for what is behind it.
        let is_usage = !chunk.get("usage").is_null() && chunk.get("choices").list().is_empty();
        if is_usage && self.reply.is_finished() {
            self.conclude(out);
        }
    }

    fn tell(&mut self, events: &[blocks::Event], out: &mut Vec<u8>) {
        for event in events {
            if let Err(refused) = self.writer.event(&self.reply, event, out) {
                return self.break_off("api", &refused.to_string(), out);
            }
        }
    }

    fn conclude(&mut self, out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        match self.reply.conclude() {
            Ok(events) => self.tell(&events, out),
            Err(refused) => self.break_off("api", &refused.to_string(), out),
        }
        if !self.ended {
            self.writer.end(&self.reply, out);
            self.ended = true;
        }
    }

    fn break_off(&mut self, kind: &str, message: &str, out: &mut Vec<u8>) {
        if !self.ended {
            self.writer.fail(&self.reply, kind, message, out);
            self.ended = true;
        }
    }
}

/// What ends a stream of chat completions.
const DONE: &[u8] = b"[DONE]";

/// JSON of a backend, which may have `NaN` among its logprobs.
fn read(text: &[u8]) -> serde_json::Result<Json<'_>> {
    parse_answer(text).or_else(|_| parse_mended(text).map(|(json, _)| json))
}
