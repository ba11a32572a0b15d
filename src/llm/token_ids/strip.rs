//! Taking out of a response what was only requested on the agent's behalf, as it passes.
//!
//! Pure: bytes in, bytes out. No value is held: of JSON only what is between two values
//! ([`crate::wire::json_strip`]), of an event what stays, at most [`MAX_HELD_BYTES`]. What is no JSON stays as it is.

use crate::wire::json::{Json, parse};
use crate::wire::json_edit::Object;
use crate::wire::json_strip::{Changes, JsonStripper, UsageEvent};
use crate::wire::sse::Events;
use bytes::{Bytes, BytesMut};

/// A response, cut anywhere, without what was added.
#[derive(Debug)]
pub(crate) enum ResponseStripper {
    /// One JSON text.
    Json(JsonStripper),
    /// Server-sent events, each with JSON data.
    Events(EventStripper),
}

impl ResponseStripper {
    /// For a response that is one JSON text.
    pub(crate) fn json(changes: Changes) -> Self {
        Self::Json(JsonStripper::new(changes))
    }

    /// For a stream of server-sent events.
    pub(crate) fn events(changes: Changes) -> Self {
        Self::Events(EventStripper::new(changes))
    }

    /// Takes the next bytes, and gives what is known to stay.
    pub(crate) fn push(&mut self, data: &[u8]) -> Bytes {
        match self {
            Self::Json(stripper) => {
                let mut out = BytesMut::new();
                stripper.push(data, &mut out);
                out.freeze()
            }
            Self::Events(stripper) => stripper.push(data),
        }
    }

    /// What is held and stays: the response has ended, or broken off.
    pub(crate) fn finish(&mut self) -> Bytes {
        match self {
            Self::Json(stripper) => {
                let mut out = BytesMut::new();
                stripper.finish(&mut out);
                out.freeze()
            }
            Self::Events(stripper) => stripper.finish(),
        }
    }

    /// True when no bytes are held.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Json(stripper) => stripper.held_bytes() == 0,
            Self::Events(stripper) => stripper.is_empty(),
        }
    }
}

/// A stream of server-sent events without what was added.
///
/// An event is given out when its blank line has come. Of a long one, of which more than [`MAX_HELD_BYTES`] stay, the
/// beginning is given out before.
#[derive(Debug)]
pub(crate) struct EventStripper {
    // The data of the current event. The rest of its lines passes through as bytes that are foreign to it.
    json: JsonStripper,
    // What stays, and has not been given out; the current event begins at `event`.
    kept: BytesMut,
    event: usize,
    // The beginning of the current event has been given out.
    is_long: bool,
    line: Line,
    // A carriage return has come last; whether a line feed follows is not known yet.
    ends_with_return: bool,
    max_held_bytes: usize,
    usage_event: UsageEvent,
    removes_from_choices: bool,
}

/// Where in a line the next byte is.
#[derive(Clone, Copy, Debug)]
enum Line {
    /// At the beginning of the stream.
    First,
    /// At the beginning.
    Start,
    /// In what may become a field's name: these bytes are missing.
    Name(&'static [u8]),
    /// After the colon of a `data` field.
    Colon,
    /// In the value of a `data` field.
    Data,
    /// In another field, or in a comment.
    Other,
}

impl EventStripper {
    fn new(changes: Changes) -> Self {
        Self {
            usage_event: changes.usage_event,
            removes_from_choices: !changes.choice.is_empty(),
            json: JsonStripper::new(changes),
            kept: BytesMut::new(),
            event: 0,
            is_long: false,
            line: Line::First,
            ends_with_return: false,
            max_held_bytes: MAX_HELD_BYTES,
        }
    }

    fn push(&mut self, data: &[u8]) -> Bytes {
        let mut at = 0;
        if self.ends_with_return && !data.is_empty() {
            at = usize::from(data[0] == b'\n');
            self.end_line(if at == 1 { b"\r\n" } else { b"\r" });
        }
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            let length = memchr::memchr2(b'\n', b'\r', rest);
            let (line, end) = rest.split_at(length.unwrap_or(rest.len()));
            self.push_line(line);
            let end_length = match end {
                [b'\r'] => {
                    self.ends_with_return = true;
                    1
                }
                [b'\r', b'\n', ..] => self.end_line(b"\r\n"),
                [end, ..] => self.end_line(&[*end]),
                [] => 0,
            };
            at += line.len() + end_length;
        }
        if self.kept.len() - self.event > self.max_held_bytes {
            self.is_long = true;
        }
        let complete = if self.is_long { self.kept.len() } else { self.event };
        self.event -= self.event.min(complete);
        self.kept.split_to(complete).freeze()
    }

    fn finish(&mut self) -> Bytes {
        if self.ends_with_return {
            self.end_line(b"\r");
        }
        self.json.finish(&mut self.kept);
        (self.event, self.is_long, self.line) = (0, false, Line::Start);
        self.kept.split().freeze()
    }

    fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.json.held_bytes() == 0 && !self.ends_with_return
    }

    /// True for an event that the agent would not have got: of what was only requested on its behalf nothing is left in it.
    fn was_added(&self, event: &[u8], has_removed: bool) -> bool {
        let has_empty_delta = self.removes_from_choices && EMPTY_DELTA.iter().any(|delta| contains(event, delta));
        let may_be_usage = self.usage_event == UsageEvent::Removed && contains(event, b"\"usage\"");
        if !has_removed && !has_empty_delta && !may_be_usage {
            return false;
        }
        let Some(event) = Events::new(event).next() else { return false };
        let Some(object) = Object::find(&event.data) else { return false };
        let Some(choices) = object.value("choices") else { return false };
        if !is_empty_list(choices) {
            return has_empty_delta && says_nothing(choices);
        }
        // SGLang sends an event for ids alone.
        match object.value("usage") {
            None | Some(b"null") => has_removed,
            Some(_) => may_be_usage,
        }
    }

    /// Takes the next part of a line.
    fn push_line(&mut self, mut part: &[u8]) {
        while let Some(first) = part.first() {
            let expected: &'static [u8] = match self.line {
                Line::First if *first == BOM_DATA[0] => BOM_DATA,
                Line::First | Line::Start => DATA,
                Line::Name(missing) => missing,
                Line::Colon => b" ",
                Line::Data => return self.json.push(part, &mut self.kept),
                Line::Other => return self.json.push_foreign(part, &mut self.kept),
            };
            let same = expected.iter().zip(part).take_while(|(expected, byte)| expected == byte).count();
            let (same, rest) = part.split_at(same);
            self.line = match (self.line, &expected[same.len()..]) {
                (Line::Colon, _) => Line::Data,
                (_, []) => Line::Colon,
                (_, missing) if rest.is_empty() => Line::Name(missing),
                _ => Line::Other,
            };
            self.json.push_foreign(same, &mut self.kept);
            part = rest;
        }
    }

    /// Ends a line, and with a blank one the event. Returns the length of the line's end.
    fn end_line(&mut self, end: &[u8]) -> usize {
        let is_blank = matches!(self.line, Line::First | Line::Start);
        (self.line, self.ends_with_return) = (Line::Start, false);
        if !is_blank {
            self.json.push_foreign(end, &mut self.kept);
            return end.len();
        }
        let has_removed = self.json.has_removed_at_root();
        self.json.finish(&mut self.kept);
        self.kept.extend_from_slice(end);
        let stays = &self.kept[self.event..];
        if !self.is_long && stays.len() <= self.max_held_bytes && self.was_added(stays, has_removed) {
            self.kept.truncate(self.event);
        }
        (self.event, self.is_long) = (self.kept.len(), false);
        end.len()
    }
}

/// True for what is left of an event that was only sent for ids that have been removed, as vLLM sends them for tokens of
/// which it holds the text back: each of its choices says nothing and has not ended.
fn says_nothing(choices: &[u8]) -> bool {
    let Ok(Json::List(choices)) = parse(choices) else { return false };
    let is_empty = |delta: &Json<'_>| matches!(delta, Json::Object(fields) if fields.is_empty());
    !choices.is_empty()
        && choices.iter().all(|choice| is_empty(choice.get("delta")) && choice.get("finish_reason").is_null())
}

fn is_empty_list(list: &[u8]) -> bool {
    let elements = list.strip_prefix(b"[").and_then(|list| list.strip_suffix(b"]"));
    elements.is_some_and(|elements| elements.trim_ascii().is_empty())
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    memchr::memmem::find(text, wanted).is_some()
}

/// How servers write a delta that says nothing.
const EMPTY_DELTA: [&[u8]; 2] = [b"\"delta\":{}", b"\"delta\": {}"];
const DATA: &[u8] = b"data:";
const BOM_DATA: &[u8] = b"\xef\xbb\xbfdata:";
/// The most that is held of an event. One of which more stays is not looked at as a whole.
const MAX_HELD_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests;
