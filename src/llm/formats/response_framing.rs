//! How a response is divided into events, and the lines of one that arrives in pieces.

use crate::trace::SamplerArrays;
use crate::wire::json_builder::JsonBuilder;
use crate::wire::json_stream;
use crate::wire::sse_reader::{EventData, LONG_BYTES};

/// How a response is divided. Its bytes decide, since content types are not reliable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    Whole,
    Events,
    Lines,
    List,
    Messages,
}

/// The framing of a response that begins with `body`.
pub(super) fn framing_of(body: &[u8]) -> Framing {
    let start = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    match start.first() {
        None => Framing::None,
        // A whole response is one object; several objects are one a line.
        Some(b'{') => match json_stream::lines(start).nth(1) {
            Some(second) if second.text.starts_with(b"{") => Framing::Lines,
            _ => Framing::Whole,
        },
        Some(b'[') => Framing::List,
        Some(0) => Framing::Messages,
        Some(b':') => Framing::Events,
        Some(_) if EVENT_FIELDS.iter().any(|field| start.starts_with(field)) => Framing::Events,
        Some(_) => Framing::Whole,
    }
}

const EVENT_FIELDS: [&[u8]; 4] = [b"data:", b"event:", b"id:", b"retry:"];

/// Lines of JSON that arrive in pieces. A long one is built from its pieces.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    /// The arrays that are kept of a long line.
    arrays: SamplerArrays,
    line: Vec<u8>,
    long: Option<JsonBuilder>,
}

impl LineReader {
    /// A reader that keeps these arrays of the lines of a model.
    pub(super) fn keeping(arrays: SamplerArrays) -> Self {
        Self { arrays, ..Self::default() }
    }

    /// Reads the next bytes and gives the lines that end in them, without blank ones, each with the index behind it.
    pub(super) fn push(&mut self, bytes: &[u8], on_line: &mut dyn FnMut(EventData, usize)) {
        let mut at = 0;
        while let Some(length) = memchr::memchr(b'\n', &bytes[at..]) {
            self.hold(&bytes[at..at + length]);
            at += length + 1;
            if let Some(data) = self.take() {
                on_line(data, at);
            }
        }
        self.hold(&bytes[at..]);
    }

    /// Gives the last line, which has no end.
    pub(super) fn finish(mut self, on_line: &mut dyn FnMut(EventData)) {
        if let Some(data) = self.take() {
            on_line(data);
        }
    }

    /// An estimate of the bytes of memory in use.
    pub(super) fn memory_bytes(&self) -> usize {
        self.line.capacity() + self.long.as_ref().map_or(0, JsonBuilder::memory_bytes)
    }

    fn hold(&mut self, piece: &[u8]) {
        if let Some(builder) = &mut self.long {
            builder.push_last(piece);
            return;
        }
        self.line.extend_from_slice(piece);
        if self.line.len() > LONG_BYTES {
            let mut builder = JsonBuilder::keeping(self.arrays);
            builder.push_last(&std::mem::take(&mut self.line));
            self.long = Some(builder);
        }
    }

    fn take(&mut self) -> Option<EventData> {
        if let Some(builder) = self.long.take() {
            return Some(EventData::Value(builder));
        }
        let line = std::mem::take(&mut self.line);
        let text = line.trim_ascii();
        if text.is_empty() { None } else { Some(EventData::Text(text.to_vec())) }
    }
}
