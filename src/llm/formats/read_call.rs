//! A call that was read, with the progress of its response.

use crate::llm::call::LlmCall;
use std::time::Duration;

/// A call, and the progress of its streamed response. Both lists have one element for each event that advanced the
/// answer.
#[derive(Debug)]
pub struct ReadCall {
    /// What was read of request and response.
    pub call: LlmCall,
    /// Where the event ends in the decoded body, in bytes; ascending.
    pub event_ends: Vec<usize>,
    /// How many tokens of the first choice had come by then.
    pub token_counts: Vec<usize>,
}

/// The times between consecutive events.
pub(crate) fn gaps(times: &[Duration]) -> Vec<Duration> {
    times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect()
}
