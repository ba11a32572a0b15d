//! Taking out of a response what was only requested on the agent's behalf, as it passes.
//!
//! Pure: bytes in, bytes out. No value is held: of JSON only what is between two values
//! ([`crate::wire::json_strip`]), of an event what stays, at most [`MAX_HELD_BYTES`]. What is no JSON stays as it is.

use crate::wire::json_edit::Object;
use crate::wire::json_strip::{Changes, JsonStripper};
use crate::wire::sse::Events;
use bytes::{Bytes, BytesMut};

/// A response, cut anywhere, without what was added.
#[derive(Debug)]
pub(crate) enum ResponseStripper {
    /// One JSON text.
    Json(JsonStripper),
    /// Server-sent events.
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
        if has_removed && !self.is_long && stays.len() <= self.max_held_bytes && is_empty_event(stays) {
            self.kept.truncate(self.event);
        }
        (self.event, self.is_long) = (self.kept.len(), false);
        end.len()
    }
}

/// True for what is left of an event that was only sent for what has been removed, as SGLang's is: it has no choices and
/// no usage.
fn is_empty_event(event: &[u8]) -> bool {
    let Some(event) = Events::new(event).next() else { return false };
    let Some(object) = Object::find(&event.data) else { return false };
    let is_empty_list = |list: &[u8]| {
        let elements = list.strip_prefix(b"[").and_then(|list| list.strip_suffix(b"]"));
        elements.is_some_and(|elements| elements.trim_ascii().is_empty())
    };
    object.value("choices").is_some_and(is_empty_list) && object.value("usage").is_none_or(|usage| usage == b"null")
}

const DATA: &[u8] = b"data:";
const BOM_DATA: &[u8] = b"\xef\xbb\xbfdata:";
/// The most that is held of an event. One of which more stays is not looked at as a whole.
const MAX_HELD_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json_strip::Change::{Null, Remove};
    use crate::wire::json_strip::change;
    use proptest::prelude::*;
    use proptest::sample::Index;

    fn changes() -> Changes {
        Changes {
            root: vec![("prompt_token_ids", Remove), ("sglext", Remove)],
            choice: vec![("token_ids", Remove), ("logprobs", Null)],
        }
    }

    fn stripped(stream: &[u8], cuts: &[Index], max_held_bytes: usize) -> String {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).chain([stream.len()]).collect();
        cuts.sort_unstable();
        let mut stripper = EventStripper { max_held_bytes, ..EventStripper::new(changes()) };
        let (mut out, mut from) = (Vec::new(), 0);
        for cut in cuts {
            out.extend(stripper.push(&stream[from..cut]));
            assert!(stripper.kept.len() <= max_held_bytes);
            from = cut;
        }
        out.extend(stripper.finish());
        assert!(stripper.is_empty());
        String::from_utf8_lossy(&out).into_owned()
    }

    /// What an event with one line of data loses.
    fn expected(event: &str) -> String {
        let Some((before, rest)) = event.split_once("data: ") else { return event.to_owned() };
        let data = rest.trim_end_matches(['\r', '\n']);
        let Some(changed) = change(data.as_bytes(), &changes()) else { return event.to_owned() };
        let left = format!("{before}data: {}{}", String::from_utf8(changed).unwrap(), &rest[data.len()..]);
        if data.contains("sglext") { String::new() } else { left }
    }

    const STREAM: &str = "\u{feff}: hi\r\n\r\ndata: {\"prompt_token_ids\":[1],\"choices\":[{\"token_ids\":[2],\"delta\":{\"content\":\"é\"}}]}\r\n\r\nevent: x\ndata: {\"choices\":[]}\n\ndata: {\"choices\": [],\"usage\":null,\"sglext\":{\"input_ids\":[1]}}\n\ndata: [DONE]\n\ndata: {\"unfinished";

    #[test]
    fn comments_do_not_wait_for_events() {
        let mut stripper = EventStripper::new(Changes::default());
        let mut push = |part: &str| String::from_utf8(stripper.push(part.as_bytes()).to_vec()).unwrap();
        assert_eq!(push(": ping\n"), "");
        assert_eq!(push("\n: pong\r\n\r"), ": ping\n\n");
        assert_eq!(push("\ndata: {\"sglext\":{},"), ": pong\r\n\r\n");
        assert_eq!(
            push("\"choices\": [],\"usage\":null}\n\ndata: 1\n\n"),
            "data: {\"sglext\":{},\"choices\": [],\"usage\":null}\n\ndata: 1\n\n"
        );
    }

    #[test]
    fn a_stream_loses_only_what_was_added() {
        let expected = "\u{feff}: hi\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"é\"}}]}\r\n\r\nevent: x\ndata: {\"choices\":[]}\n\ndata: [DONE]\n\ndata: {\"unfinished";
        assert_eq!(stripped(STREAM.as_bytes(), &[], MAX_HELD_BYTES), expected);
        // A comment in front of an event that goes has a blank line of its own, and stays.
        let after_comment = ": ping\n\ndata: {\"choices\":[],\"sglext\":{}}\n\ndata: 1\n\n";
        assert_eq!(stripped(after_comment.as_bytes(), &[], MAX_HELD_BYTES), ": ping\n\ndata: 1\n\n");
    }

    #[test]
    fn data_of_several_lines_keeps_them() {
        let event = "data: {\"id\":1,\ndata:\"prompt_token_ids\":[\nid: 7\ndata:1\n: 2\ndata: ],\"x\":2}\n\n";
        let expected = "data: {\"id\":1\ndata:\nid: 7\ndata:\n: 2\ndata: ,\"x\":2}\n\n";
        assert_eq!(stripped(event.as_bytes(), &[], MAX_HELD_BYTES), expected);
    }

    #[test]
    fn of_a_long_event_only_what_stays_is_held() {
        let mut stripper = EventStripper::new(changes());
        assert_eq!(stripper.push(b"data: {\"id\":1,\"sglext\":[1"), "");
        let ids = ",1234567890".repeat(1000);
        for _ in 0..1000 {
            assert_eq!(stripper.push(ids.as_bytes()), "");
            assert!(stripper.kept.capacity() < 1000);
        }
        assert_eq!(stripper.push(b"],\"choices\":[]}\n"), "");
        assert_eq!(stripper.push(b"\ndata: {\"x\":\"").len(), 0);
        let text = "a".repeat(MAX_HELD_BYTES);
        assert_eq!(stripper.push(text.as_bytes()).len(), MAX_HELD_BYTES + 12);
        assert_eq!(stripper.push(b"b"), "b");
        assert_eq!(stripper.push(b"\",\"sglext\":1,\"choices\":[]}\n\n"), "\",\"choices\":[]}\n\n");
        assert!(stripper.is_empty());
    }

    proptest! {
        #[test]
        fn any_division_of_a_stream_gives_the_same(
            events in prop::collection::vec(prop::sample::select(EVENTS.to_vec()), 0..8),
            cuts in prop::collection::vec(any::<Index>(), 0..12),
            unfinished in prop::option::of(any::<Index>()),
        ) {
            let stream = events.concat();
            let kept: String = events.iter().map(|event| expected(event)).collect();
            for max_held_bytes in [MAX_HELD_BYTES, SMALL_HELD_BYTES] {
                prop_assert_eq!(&stripped(stream.as_bytes(), &cuts, max_held_bytes), &kept);
                let part = &stream.as_bytes()[..unfinished.map_or(stream.len(), |end| end.index(stream.len() + 1))];
                prop_assert_eq!(stripped(part, &cuts, max_held_bytes), stripped(part, &[], max_held_bytes));
            }
        }

        #[test]
        fn what_is_no_json_passes(
            bytes in prop::collection::vec(prop::sample::select(b"data: \r\n{}[],\":x\\".to_vec()), 0..200),
            cuts in prop::collection::vec(any::<Index>(), 0..12),
        ) {
            for max_held_bytes in [MAX_HELD_BYTES, 10] {
                prop_assert_eq!(stripped(&bytes, &cuts, max_held_bytes).into_bytes(), &bytes[..]);
            }
        }
    }

    /// What is left of SGLang's event fits in.
    const SMALL_HELD_BYTES: usize = 40;
    const EVENTS: &[&str] = &[
        ": hi\r\n\r\n",
        "data: {\"prompt_token_ids\":[1],\"choices\":[{\"token_ids\":[2],\"delta\":{\"content\":\"é\"}}]}\r\n\r\n",
        "event: x\rdata: {\"choices\":[{\"index\":0,\"logprobs\":{\"content\":[\"\\\\\"]} , \"token_ids\":[2]}]}\r\r",
        "event: x\ndata: {\"choices\":[]}\nid: 7\n\n",
        "data: {\"choices\": [],\"usage\":null,\"sglext\":{\"input_ids\":[1,22,333,4444,55555,666666,7777777]}}\n\n",
        "data: [DONE]\n\n",
        "data: {\"text\":\"long long long long long long long long long long\"}\n\n",
    ];
}
