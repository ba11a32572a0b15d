//! One direction's body: sizes, times, and its recorded bytes.

use http::HeaderMap;
use std::fmt::Debug;
use std::io;
use std::time::Duration;

/// The direction in which bytes pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the agent to the endpoint.
    Request,
    /// From the endpoint to the agent.
    Response,
}

/// The recorded bytes of a body, wherever they are.
pub trait BodyContent: Debug + Send {
    /// The number of recorded bytes.
    fn len(&self) -> u64;

    /// True when there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives the bytes from this offset on, piece by piece. An error if they can't be read to their end.
    fn read_from(&self, offset: u64, on_piece: &mut dyn FnMut(&[u8])) -> io::Result<()>;
}

impl BodyContent for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn read_from(&self, offset: u64, on_piece: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        on_piece(usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default());
        Ok(())
    }
}

/// A body in one direction.
#[derive(Debug, Default)]
pub struct Body {
    /// The recorded bytes. `None` when none are recorded, and once they were taken.
    pub content: Option<Box<dyn BodyContent>>,
    /// Whether the recorded bytes still have their content coding.
    pub form: RecordedForm,
    /// Where in `content` the bytes end that are recorded as such. What follows is only for the call in the body. `None`:
    /// with `content`.
    pub raw_end: Option<RawEnd>,
    /// Bytes that passed, as transferred.
    pub size_bytes: u64,
    /// Data frames that passed.
    pub frames: u64,
    /// Why less is recorded than passed. None if all is, or bodies are not recorded.
    pub truncated: Option<Truncation>,
    /// True once the end of the body was seen.
    pub complete: bool,
    /// Trailer fields, if the body ended with some.
    pub trailers: Option<HeaderMap>,
    /// When the first frames of a recorded response arrived; `capture` limits their number.
    pub arrivals: Vec<Arrival>,
}

/// Whether the recorded bytes of a body have the content coding that the header of their message names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordedForm {
    /// They are as they were transferred: the header says how to decode them.
    #[default]
    AsTransferred,
    /// The content coding is removed, whatever the header says: it is that of the message as it came.
    Decoded,
}

/// Where the bytes end that are recorded as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawEnd {
    /// The number of bytes before the end.
    pub at: u64,
    /// Why there are not more.
    pub why: Truncation,
}

/// When a frame arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Bytes of the body that had passed, this frame included.
    pub end: usize,
    /// Time since the start of the exchange.
    pub at: Duration,
}

/// Why less is recorded of a body than passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// It is longer than `capture.max_body_bytes`.
    BodyLimit,
    /// `capture.memory_budget_bytes` was used up, and the disk did not take the rest.
    Spill,
    /// Recording it panicked.
    Fault,
}

impl Truncation {
    /// The word used in attributes and counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BodyLimit => "max_body_bytes",
            Self::Spill => "disk",
            Self::Fault => "fault",
        }
    }
}
