//! Reads a response in pieces, as they arrive or at once: its framing, and each event in the API's format.
//!
//! What was read is kept in packed form and its text is dropped: a response takes as much memory as its token ids, its
//! logprobs and its messages. A short one is held as text until its end, since that is faster.

use super::any_json::{any_json, built_json};
use super::bedrock::inner_event;
use super::read::ReadCall;
use super::response_framing::{Framing, LineReader, framing_of};
use crate::llm::api::detect::{ApiCall, sole_api};
use crate::llm::api::stream_end::DONE;
use crate::llm::api::table::ApiSpec;
use crate::llm::call::{Choice, LlmCall, UnreadPart};
use crate::llm::engine::table::Engine;
use crate::llm::provider;
use crate::wire::json::{self, Json};
use crate::wire::json_builder::JsonBuilder;
use crate::wire::sse_reader::{EventData, ReadEvent, SseReader};
use crate::wire::{event_stream, json_stream, sse};

/// A response that is being read.
#[derive(Debug)]
pub(crate) struct ResponseReader {
    state: State,
    events: EventReader,
    /// A response up to this size is held as text.
    held_bytes: usize,
}

#[derive(Debug)]
enum State {
    /// The beginning, which does not show yet how the response is divided.
    Held(Vec<u8>),
    /// One JSON value, or the first of several lines.
    Value(JsonBuilder),
    Events(SseReader),
    Lines(LineReader),
    /// The elements of a list; the builder has the one that is open.
    List(JsonBuilder),
    /// Binary messages; those that are not complete.
    Messages(Vec<u8>),
    /// What follows can't be read.
    Broken,
}

/// What the events of a response become.
#[derive(Debug)]
struct EventReader {
    api: &'static ApiSpec,
    call: LlmCall,
    event_ends: Vec<usize>,
    token_counts: Vec<usize>,
    /// Bytes of the response that were read.
    position: usize,
}

impl ResponseReader {
    /// Reads the response to a request for `path` that is not read yet. `None`: the response can only be read with its
    /// request.
    pub(crate) fn for_path(path: &str) -> Option<Self> {
        let ApiCall { api, endpoint, .. } = sole_api(path)?;
        api.format?;
        Some(Self::of_call(api, LlmCall { api: api.name, operation: endpoint.operation, ..LlmCall::default() }))
    }

    /// Reads the response of a call.
    pub(super) fn of_call(api: &'static ApiSpec, call: LlmCall) -> Self {
        let events = EventReader { api, call, event_ends: Vec::new(), token_counts: Vec::new(), position: 0 };
        Self { state: State::Held(Vec::new()), events, held_bytes: MAX_HELD_BYTES }
    }

    /// Reads the next bytes, without their content coding.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if let State::Held(held) = &mut self.state {
            held.extend_from_slice(bytes);
            if held.len() > self.held_bytes {
                let held = std::mem::take(held);
                self.begin(&held);
            }
            return;
        }
        self.push_divided(bytes);
    }

    /// An estimate of the bytes of memory in use.
    pub(crate) fn memory_bytes(&self) -> usize {
        let open = match &self.state {
            State::Held(held) | State::Messages(held) => held.capacity(),
            State::Value(builder) | State::List(builder) => builder.memory_bytes(),
            State::Events(events) => events.memory_bytes(),
            State::Lines(lines) => lines.memory_bytes(),
            State::Broken => 0,
        };
        let progress = self.events.event_ends.capacity() + self.events.token_counts.capacity();
        open + self.events.call.response_bytes() + progress * size_of::<usize>()
    }

    /// Ends the response. The call has no provider yet.
    pub(super) fn finish(mut self, status: Option<u16>) -> ReadCall {
        let events = &mut self.events;
        match self.state {
            State::Held(held) => events.read_whole(&held, status),
            State::Value(builder) => {
                let body = built_json(builder, UnreadPart::Response, &mut events.call);
                events.read_response(&body, status);
            }
            State::Events(reader) => reader.finish(&mut |event| events.read_sse(event, IsCut::Yes)),
            State::Lines(lines) => lines.finish(&mut |data| events.read_data("", data)),
            State::List(builder) if !builder.is_empty() => events.read_data("", EventData::Value(builder)),
            State::Messages(rest) if !rest.is_empty() => events.call.mark_unread(UnreadPart::ResponseEvent),
            State::List(_) | State::Messages(_) | State::Broken => {}
        }
        let EventReader { mut call, event_ends, token_counts, .. } = self.events;
        call.choices.iter_mut().for_each(Choice::close);
        call.chunks = event_ends.len() as u64;
        ReadCall { call, event_ends, token_counts }
    }

    /// Begins to read what was held.
    fn begin(&mut self, held: &[u8]) {
        let framing = framing_of(held);
        self.events.call.streamed = !matches!(framing, Framing::None | Framing::Whole);
        self.state = match framing {
            Framing::None => State::Held(Vec::new()),
            Framing::Whole => State::Value(JsonBuilder::default()),
            Framing::Events => State::Events(SseReader::default()),
            Framing::Lines => State::Lines(LineReader::default()),
            Framing::List => State::List(JsonBuilder::default()),
            Framing::Messages => State::Messages(Vec::new()),
        };
        let bytes = match framing {
            Framing::Whole | Framing::List => {
                let start = held.strip_prefix(BOM).unwrap_or(held).trim_ascii_start();
                self.events.position = held.len() - start.len() + usize::from(framing == Framing::List);
                start.get(usize::from(framing == Framing::List)..).unwrap_or_default()
            }
            _ => held,
        };
        self.push_divided(bytes);
    }

    fn push_divided(&mut self, bytes: &[u8]) {
        let events = &mut self.events;
        match &mut self.state {
            State::Held(_) | State::Broken => {}
            State::Events(reader) => reader.push(bytes, &mut |event| events.read_sse(event, IsCut::No)),
            State::Lines(lines) => {
                let start = events.position;
                lines.push(bytes, &mut |data, end| {
                    events.position = start + end;
                    events.read_data("", data);
                });
                events.position = start + bytes.len();
            }
            State::Value(builder) => {
                let read = builder.push(bytes);
                let rest = bytes[read..].trim_ascii_start();
                events.position += bytes.len() - rest.len();
                if rest.starts_with(b"{") {
                    // Several objects are one a line.
                    events.call.streamed = true;
                    events.read_data("", EventData::Value(std::mem::take(builder)));
                    self.state = State::Lines(LineReader::default());
                    self.push_divided(rest);
                } else if !rest.is_empty() {
                    events.call.mark_unread(UnreadPart::Response);
                    self.state = State::Broken;
                }
            }
            State::List(_) => self.push_list(bytes),
            State::Messages(held) => {
                held.extend_from_slice(bytes);
                let (start, mut complete) = (events.position, 0);
                let mut is_broken = held.len() > event_stream::MAX_BYTES * 2;
                while let Some(message) = event_stream::messages(&held[complete..]).next() {
                    let Ok(message) = message else {
                        is_broken |= !event_stream::may_continue(&held[complete..]);
                        break;
                    };
                    complete += message.end;
                    events.position = start + complete;
                    events.read_message(&message);
                }
                held.drain(..complete);
                if is_broken {
                    events.call.mark_unread(UnreadPart::ResponseEvent);
                    self.state = State::Broken;
                }
            }
        }
    }

    fn push_list(&mut self, mut bytes: &[u8]) {
        let events = &mut self.events;
        while let State::List(builder) = &mut self.state {
            if builder.is_empty() {
                let is_between = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
                let between = bytes.iter().take_while(|byte| is_between(byte)).count();
                bytes = &bytes[between..];
                events.position += between;
                if bytes.first() == Some(&b']') {
                    self.state = State::Broken;
                    return;
                }
            }
            if bytes.is_empty() {
                return;
            }
            let read = builder.push(bytes);
            bytes = &bytes[read..];
            events.position += read;
            if builder.is_complete() {
                events.read_data("", EventData::Value(std::mem::take(builder)));
            }
        }
    }

    /// Reads a response that is held only up to `held_bytes`.
    #[cfg(test)]
    pub(super) fn holding(mut self, held_bytes: usize) -> Self {
        self.held_bytes = held_bytes;
        self
    }
}

/// Whether an event ended with its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IsCut {
    Yes,
    No,
}

impl EventReader {
    /// Reads a response of which all text is there.
    fn read_whole(&mut self, body: &[u8], status: Option<u16>) {
        let framing = framing_of(body);
        self.call.streamed = !matches!(framing, Framing::None | Framing::Whole);
        match framing {
            Framing::None => {}
            Framing::Whole => {
                let json = any_json(body, UnreadPart::Response, &mut self.call);
                self.read_response(&json, status);
            }
            Framing::Events => {
                for event in sse::Events::new(body) {
                    self.position = event.end;
                    let name = std::str::from_utf8(event.name).unwrap_or_default();
                    let is_cut = if event.complete { IsCut::No } else { IsCut::Yes };
                    self.read_sse_text(name, &event.data, is_cut);
                }
            }
            Framing::Lines => {
                for line in json_stream::lines(body) {
                    self.position = line.end;
                    self.read_text("", line.text);
                }
            }
            Framing::List => {
                for element in json_stream::elements(body) {
                    self.position = element.end;
                    self.read_text("", element.text);
                }
            }
            Framing::Messages => {
                for message in event_stream::messages(body) {
                    match message {
                        Ok(message) => {
                            self.position = message.end;
                            self.read_message(&message);
                        }
                        Err(_) => self.call.mark_unread(UnreadPart::ResponseEvent),
                    }
                }
            }
        }
    }

    fn read_response(&mut self, body: &Json<'_>, status: Option<u16>) {
        let call = &mut self.call;
        if let Some(error) = error_of(body) {
            call.error = Some(error);
            call.ended = true;
            return;
        }
        if status >= Some(400) {
            let message = body.get("message").text().unwrap_or_default().to_owned();
            call.error = Some((String::new(), message));
            call.ended = true;
            return;
        }
        if !body.is_null() {
            call.ended = true;
            note_server(body, call);
            if let Some(format) = self.api.format {
                format.response(body, call);
            }
            if call.operation.samples() && call.choices.is_empty() && !body.get("choices").is_empty_list() {
                call.mark_unread(UnreadPart::ResponseShape);
            }
        }
    }

    fn read_sse(&mut self, event: ReadEvent<'_>, is_cut: IsCut) {
        self.position = event.end;
        let name = std::str::from_utf8(event.name).unwrap_or_default();
        match event.data {
            EventData::Text(text) => self.read_sse_text(name, &text, is_cut),
            data @ EventData::Value(_) => self.read_data(name, data),
        }
    }

    fn read_sse_text(&mut self, name: &str, data: &[u8], is_cut: IsCut) {
        if data == DONE {
            self.call.ended = true;
        } else if !data.iter().all(u8::is_ascii_whitespace) {
            // MCP streams may open with an empty one.
            self.read_text(name, if is_cut == IsCut::Yes { data.trim_ascii_end() } else { data });
        }
    }

    fn read_message(&mut self, message: &event_stream::EventStreamMessage<'_>) {
        let kind = std::str::from_utf8(message.kind).unwrap_or_default();
        if message.is_error {
            let data = json::parse(message.payload).unwrap_or(Json::Null);
            let text = data.any(&["message", "Message"]).text().unwrap_or_default().to_owned();
            self.call.error = Some((kind.to_owned(), text));
            return;
        }
        match inner_event(message.payload) {
            Some(inner) => self.read_text("", &inner),
            None => self.read_text(kind, message.payload),
        }
    }

    fn read_data(&mut self, name: &str, data: EventData) {
        match data {
            EventData::Text(text) => self.read_text(name, &text),
            EventData::Value(builder) => {
                let data = built_json(builder, UnreadPart::ResponseEvent, &mut self.call);
                self.read_event(name, &data);
            }
        }
    }

    fn read_text(&mut self, name: &str, text: &[u8]) {
        let data = any_json(text, UnreadPart::ResponseEvent, &mut self.call);
        self.read_event(name, &data);
    }

    fn read_event(&mut self, name: &str, data: &Json<'_>) {
        if data.is_null() {
            return;
        }
        let call = &mut self.call;
        if let Some(error) = error_of(data).filter(|_| call.error.is_none()) {
            call.error = Some(error);
            return;
        }
        note_server(data, call);
        let kind = data.get("type").text().unwrap_or(name);
        call.ended |= self.api.stream_end.is_end_event(kind);
        if self.api.format.is_some_and(|format| format.event(name, data, call)) {
            self.event_ends.push(self.position);
            self.token_counts.push(call.choices.first().map_or(0, |choice| choice.tokens.count()));
        }
    }
}

/// Notes what a response, or an event, shows of the server: its provider, and the version of its weights. An event may
/// have the response, or its message, in a field.
fn note_server(data: &Json<'_>, call: &mut LlmCall) {
    for body in [data, data.get("response"), data.get("message")].into_iter().filter(|body| !body.is_null()) {
        call.shown_provider = call.shown_provider.or_else(|| provider::of_response(body));
        Engine::for_each_weight_version(body, |version| call.add_weight_version(version));
    }
}

/// The type and message of an error, in whatever API's shape. `None`: it is no error.
fn error_of(json: &Json<'_>) -> Option<(String, String)> {
    let object = if json.get("object").text() == Some("error")
        || json.get("type").text() == Some("error") && json.has("message")
    {
        json
    } else {
        let error = json.get("error");
        match error {
            Json::Text(message) => return Some((String::new(), message.clone().into_owned())),
            Json::Object(_) => error,
            _ => return None,
        }
    };
    let kind = object.any(&["type", "status", "code"]);
    let kind = kind.text().map(str::to_owned).or_else(|| kind.int().map(|code| code.to_string()));
    Some((kind.unwrap_or_default(), object.get("message").text().unwrap_or_default().to_owned()))
}

const BOM: &[u8] = b"\xef\xbb\xbf";
/// The longest response that is held as text.
const MAX_HELD_BYTES: usize = 64 * 1024;
