//! Reads a response in pieces, as they arrive or at once: its framing, and each event in the API's format.
//!
//! What was read is kept in packed form and its text is dropped: a response takes as much memory as its token ids, its
//! logprobs and its messages. A short one is held as text until its end, since that is faster.

use super::any_json::built_json;
use super::event_reader::{EventReader, IsCut};
use super::read_call::ReadCall;
use super::response_framing::{Framing, LineReader, framing_of};
use crate::llm::api::detect::{ApiCall, sole_api};
use crate::llm::api::spec::ApiSpec;
use crate::llm::call::{Choice, LlmCall, UnreadPart};
use crate::trace::SamplerArrays;
use crate::wire::event_stream;
use crate::wire::json_builder::JsonBuilder;
use crate::wire::sse_reader::{EventData, SseReader};

/// A response that is being read.
#[derive(Debug)]
pub(crate) struct ResponseReader {
    state: State,
    events: EventReader,
    /// A response up to this size is held as text.
    held_bytes: usize,
    /// The arrays that are kept of a longer one.
    arrays: SamplerArrays,
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

impl ResponseReader {
    /// Reads the response to a request for `path` that is not read yet. `None`: the response can only be read with its
    /// request.
    pub(crate) fn for_path(path: &str, arrays: SamplerArrays) -> Option<Self> {
        let ApiCall { api, endpoint, .. } = sole_api(path)?;
        api.format?;
        let call = LlmCall { api: api.name, operation: endpoint.operation, ..LlmCall::default() };
        Some(Self::of_call(api, call, arrays))
    }

    /// Reads the response of a call, with these arrays if they come.
    pub(super) fn of_call(api: &'static ApiSpec, call: LlmCall, arrays: SamplerArrays) -> Self {
        let (state, events) = (State::Held(Vec::new()), EventReader::new(api, call));
        Self { state, events, held_bytes: MAX_HELD_BYTES, arrays }
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

    /// True if the response is read by the format of this API.
    pub(super) fn is_of(&self, api: &ApiSpec) -> bool {
        self.events.api == api
    }

    /// Notes that bytes are missing behind those that were read.
    pub(super) fn note_damage(&mut self) {
        self.events.call.mark_unread(UnreadPart::Response);
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
        let EventReader { api, mut call, event_ends, token_counts, .. } = self.events;
        call.may_lack_end = api.stream_end.may_be_left_out();
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
            Framing::Whole => State::Value(JsonBuilder::keeping(self.arrays)),
            Framing::Events => State::Events(SseReader::keeping(self.arrays)),
            Framing::Lines => State::Lines(LineReader::keeping(self.arrays)),
            Framing::List => State::List(JsonBuilder::keeping(self.arrays)),
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
                    self.state = State::Lines(LineReader::keeping(self.arrays));
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

const BOM: &[u8] = b"\xef\xbb\xbf";
/// The longest response that is held as text.
const MAX_HELD_BYTES: usize = 64 * 1024;
