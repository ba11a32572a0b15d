//! How streamed responses end.
//!
//! [`StreamEnd`] is part of an API's row. Everything here costs the same for a frame of any size.

/// How an agent knows that a streamed response is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// An event with the data [`DONE`]. Some servers leave it out: the response is complete as well if its body ends as HTTP
    /// frames it, once every choice has its finish reason.
    Done,
    /// An event of one of these types.
    Events(&'static [&'static str]),
    /// The content of the last event, such as a finish reason; its format reads it.
    Content,
}

/// The data that ends a stream of OpenAI's completions.
pub(crate) const DONE: &[u8] = b"[DONE]";

impl StreamEnd {
    /// True if a stream can be complete without the event that ends it.
    pub(crate) fn may_be_left_out(self) -> bool {
        self == Self::Done
    }

    /// True for the type of an event that ends the response.
    pub(crate) fn is_end_event(self, kind: &str) -> bool {
        matches!(self, Self::Events(kinds) if kinds.contains(&kind))
    }

    /// The types of the events that end a stream.
    pub(super) fn events(self) -> &'static [&'static str] {
        if let Self::Events(kinds) = self { kinds } else { &[] }
    }
}

/// What a frame of a stream begins with.
pub(super) struct StreamHead<'a>(Option<&'a [u8]>);

impl<'a> StreamHead<'a> {
    /// The name of the first event, if it begins near the beginning.
    pub(super) fn of(frame: &'a [u8]) -> Self {
        let head = &frame[..frame.len().min(HEAD_BYTES)];
        Self(memchr::memmem::find(head, EVENT).map(|at| &head[at + EVENT.len()..]))
    }

    pub(super) fn names(&self, kind: &str) -> bool {
        self.0.is_some_and(|name| name.starts_with(kind.as_bytes()))
    }
}

/// What a frame of a stream ends with.
pub(super) struct StreamTail<'a>(&'a [u8]);

impl<'a> StreamTail<'a> {
    pub(super) fn of(frame: &'a [u8]) -> Self {
        Self(&frame[frame.len().saturating_sub(TAIL_BYTES)..])
    }

    pub(super) fn is_done(&self) -> bool {
        memchr::memmem::find(self.0, b"data: [DONE]").is_some()
    }

    /// True for `"KIND"`, which is the `type` of an event.
    pub(super) fn names(&self, kind: &str) -> bool {
        let is_quoted = |at: usize| at > 0 && self.0[at - 1] == b'"' && self.0.get(at + kind.len()) == Some(&b'"');
        memchr::memmem::find_iter(self.0, kind.as_bytes()).any(is_quoted)
    }
}

const EVENT: &[u8] = b"event: ";
const TAIL_BYTES: usize = 96;
const HEAD_BYTES: usize = 64;
