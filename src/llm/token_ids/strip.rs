//! Taking out of a response what was only requested on the agent's behalf.
//!
//! Pure: bytes in, bytes out. An event is given out when the blank line behind it has come, and nothing is held longer;
//! text that is no JSON, or is cut short, stays as it is.

use crate::wire::json::parse;
use crate::wire::json_edit::Object;
use crate::wire::json_strip::{Changes, change};
use crate::wire::sse::Events;
use bytes::{Bytes, BytesMut};

/// A whole response without what was added.
pub(crate) fn strip_whole(body: Bytes, changes: &Changes) -> Bytes {
    change(&body, changes).map_or(body, Bytes::from)
}

/// A stream of server-sent events, cut anywhere, without what was added.
#[derive(Debug)]
pub(crate) struct EventStripper {
    changes: Changes,
    unfinished: BytesMut,
    // Where the line begins that has no end yet, and from where its end is looked for.
    line: usize,
    searched: usize,
}

impl EventStripper {
    pub(crate) fn new(changes: Changes) -> Self {
        Self { changes, unfinished: BytesMut::new(), line: 0, searched: 0 }
    }

    /// Takes the next bytes and gives the events and comments that are complete by now. An event above
    /// [`MAX_EVENT_BYTES`] is given as it is.
    pub(crate) fn push(&mut self, data: &[u8]) -> Bytes {
        self.unfinished.extend_from_slice(data);
        let complete = self.find_blank_line();
        let raw = self.unfinished.split_to(complete);
        (self.line, self.searched) = (self.line - complete, self.searched - complete);
        let mut out = BytesMut::with_capacity(raw.len());
        let mut from = 0;
        for event in Events::new(&raw) {
            strip_event(&raw[from..event.end], &event.data, &self.changes, &mut out);
            from = event.end;
        }
        out.extend_from_slice(&raw[from..]);
        if out.is_empty() && self.unfinished.len() > MAX_EVENT_BYTES {
            return self.rest();
        }
        out.freeze()
    }

    /// The bytes that are held, as they are: the stream has ended, or broken off.
    pub(crate) fn rest(&mut self) -> Bytes {
        (self.line, self.searched) = (0, 0);
        self.unfinished.split().freeze()
    }

    /// True when no bytes are held.
    pub(crate) fn is_empty(&self) -> bool {
        self.unfinished.is_empty()
    }

    /// The index behind the last blank line. Every byte is looked at once.
    fn find_blank_line(&mut self) -> usize {
        let bytes = &self.unfinished[..];
        let mut complete = 0;
        while let Some(end) = memchr::memchr2(b'\n', b'\r', &bytes[self.searched..]).map(|at| self.searched + at) {
            let after = match (bytes[end], bytes.get(end + 1)) {
                // Whether a line feed follows is not known yet.
                (b'\r', None) => {
                    self.searched = end;
                    return complete;
                }
                (b'\r', Some(b'\n')) => end + 2,
                _ => end + 1,
            };
            if end == self.line {
                complete = after;
            }
            (self.line, self.searched) = (after, after);
        }
        self.searched = bytes.len();
        complete
    }
}

/// One event, with its data changed and everything else as it was.
fn strip_event(raw: &[u8], data: &[u8], changes: &Changes, out: &mut BytesMut) {
    let Some(changed) = change(data, changes) else { return out.extend_from_slice(raw) };
    if is_only_addition(&changed, data) {
        return;
    }
    match memchr::memmem::find(raw, data) {
        Some(at) => {
            out.extend_from_slice(&raw[..at]);
            out.extend_from_slice(&changed);
            out.extend_from_slice(&raw[at + data.len()..]);
        }
        // Data of several lines has no place of its own.
        None => out.extend_from_slice(raw),
    }
}

/// True for an event that was only sent for what was taken out of it: SGLang's, without choices and usage.
fn is_only_addition(changed: &[u8], data: &[u8]) -> bool {
    Object::find(data).is_some_and(|object| object.has("sglext"))
        && parse(changed).is_ok_and(|event| event.get("choices").is_empty_list() && event.get("usage").is_null())
}

/// The largest event that is held until its end.
const MAX_EVENT_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json_strip::Change::Remove;
    use proptest::prelude::*;

    fn stripped(parts: &[&[u8]]) -> String {
        let mut stripper = EventStripper::new(Changes {
            root: vec![("prompt_token_ids", Remove), ("sglext", Remove)],
            choice: vec![("token_ids", Remove)],
        });
        let mut out: Vec<u8> = parts.iter().flat_map(|part| stripper.push(part)).collect();
        out.extend(stripper.rest());
        assert!(stripper.is_empty());
        String::from_utf8(out).unwrap()
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
        assert_eq!(stripped(&[STREAM.as_bytes()]), expected);
    }

    proptest! {
        #[test]
        fn any_division_of_a_stream_gives_the_same(cuts in prop::collection::vec(0..STREAM.len(), 0..12)) {
            let (mut cuts, mut parts, mut from) = (cuts, Vec::new(), 0);
            cuts.sort_unstable();
            for cut in cuts.into_iter().chain([STREAM.len()]) {
                parts.push(&STREAM.as_bytes()[from..cut]);
                from = cut;
            }
            prop_assert_eq!(stripped(&parts), stripped(&[STREAM.as_bytes()]));
        }
    }
}
