//! One direction's body: sizes, times, and its recorded bytes.

use super::body_buffer::BodyBuffer;
use http::HeaderMap;
use std::time::Duration;

/// The direction in which bytes pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the agent to the endpoint.
    Request,
    /// From the endpoint to the agent.
    Response,
}

/// A body in one direction.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// The recorded bytes, as transferred (compressed). Empty when bodies are not recorded.
    pub buffer: BodyBuffer,
    /// Bytes that passed, as transferred.
    pub size_bytes: u64,
    /// Data frames that passed.
    pub frames: u64,
    /// Why `buffer` holds less than passed. None if it holds all, or bodies are not recorded.
    pub truncated: Option<Truncation>,
    /// True once the end of the body was seen.
    pub complete: bool,
    /// Trailer fields, if the body ended with some.
    pub trailers: Option<HeaderMap>,
    /// When the first frames of a recorded response arrived; `capture` limits their number.
    pub arrivals: Vec<Arrival>,
}

/// When a frame arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Length of the recorded body, this frame included.
    pub end: usize,
    /// Time since the start of the exchange.
    pub at: Duration,
}

/// Why less is recorded of a body than passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// It is longer than `capture.max_body_bytes`.
    BodyLimit,
    /// `capture.memory_budget_bytes` was used up.
    MemoryBudget,
}

impl Truncation {
    /// The word used in attributes and counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BodyLimit => "max_body_bytes",
            Self::MemoryBudget => "memory_budget_bytes",
        }
    }
}
