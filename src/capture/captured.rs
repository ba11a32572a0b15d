//! A finished exchange on its way to the pipeline.

use super::memory_budget::MemoryShare;
use crate::llm::formats::BegunResponse;
use crate::shared_state::SequenceLease;
use crate::trace::exchange::{Body, Exchange};
use crate::util::in_flight::InFlightPermit;
use std::io;
use std::time::Instant;
use tokio::sync::oneshot;

/// A finished exchange, and what its storage has to release.
#[derive(Debug)]
pub struct Captured {
    /// What was recorded of request and response. In a box, as it is moved often.
    pub exchange: Box<Exchange>,
    /// The call, if it was read from the response while that passed. `None` for short responses, which are read later.
    pub begun: Option<BegunCall>,
    /// When the exchange ended and entered the queue.
    pub queued_at: Instant,
    /// Set if the end of the response waits for the commit: it receives the outcome.
    pub committed: Option<oneshot::Sender<CommitStatus>>,
    /// The memory of recorded messages, to be dropped with them.
    pub(super) _messages: MemoryShare,
    /// To be dropped once the span is stored or lost.
    pub sequence: SequenceLease,
    /// Likewise: counts the exchange until then.
    pub(crate) unstored: InFlightPermit,
}

impl Captured {
    /// Bytes of its recorded bodies and of the call that was read.
    pub(crate) fn content_bytes(&self) -> u64 {
        let content = |body: &Body| body.content.as_ref().map_or(0, |content| content.len());
        let call = self.begun.as_ref().map_or(0, |begun| begun.response.memory_bytes() as u64);
        content(&self.exchange.request_body) + content(&self.exchange.response_body) + call
    }
}

/// A call that was read from a response while it passed.
#[derive(Debug)]
pub struct BegunCall {
    pub(super) response: Box<BegunResponse>,
    /// Where in the response's content it goes on.
    pub(super) held_from: u64,
    /// The memory of the call, to be dropped with it.
    pub(super) _memory: MemoryShare,
}

impl BegunCall {
    /// The call, read to the end of the response. An error if bytes that were held can't be read back.
    pub(crate) fn finish(mut self, response: &Body) -> (Box<BegunResponse>, io::Result<()>) {
        let rest = response.content.as_ref().filter(|content| content.len() > self.held_from);
        let read =
            rest.map_or(Ok(()), |content| content.read_from(self.held_from, &mut |piece| self.response.push(piece)));
        (self.response, read)
    }
}

/// The state of a span that a response waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitStatus {
    /// It is stored durably.
    Committed,
    /// The store is in trouble, or the span is lost: the response goes on without it.
    NotCommitted,
}
