//! The state of one recording, and its delivery.

use super::body_record::{BodyRecord, RecordedBody};
use super::captured::{BegunCall, Captured, CommitStatus};
use super::counters::CaptureCounters;
use super::held_bytes::HeldBytes;
use super::memory::Memory;
use super::memory_budget::{MemoryShare, MemoryUse};
use super::queue::QueueSlot;
use super::settings::CaptureSettings;
use crate::error::Side;
use crate::llm::api::has_api;
use crate::shared_state::SequenceLease;
use crate::trace::SamplerArrays;
use crate::trace::exchange::{Body, BodyContent, Direction, Exchange, Outcome};
use crate::util::in_flight::InFlightPermit;
use crate::util::panics::{Panicked, is_unwinding};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// How an exchange is recorded.
pub(super) struct RecordingOptions {
    /// When the exchange started.
    pub(super) started: Instant,
    /// The end of the response waits for the commit.
    pub(super) durable: bool,
    /// The spans in the request's body are stored: it is recorded whatever the settings say.
    pub(super) is_absorbed: bool,
    pub(super) settings: Arc<CaptureSettings>,
    pub(super) counters: Arc<CaptureCounters>,
    pub(super) memory: Memory,
}

/// What is known of the exchange so far.
pub(super) struct RecordingState {
    pub(super) exchange: Box<Exchange>,
    pub(super) slot: QueueSlot,
    pub(super) request: BodyRecord,
    pub(super) response: BodyRecord,
    pub(super) messages: MemoryShare,
    pub(super) sequence: SequenceLease,
    // None: it is not counted as in flight.
    pub(super) in_flight: Option<InFlightPermit>,
    // Whether the request may be a call of a model or tool, so that its content is recorded. None before the first byte
    // of its body that is not white space.
    pub(super) is_call: Option<bool>,
    pub(super) final_outcome: Option<Outcome>,
    // True once recording a frame has panicked: no more frames are recorded.
    pub(super) is_faulty: bool,
}

impl RecordingState {
    /// The exchange may be a call: its bodies are held whole if its path is one of an API. `arrays`: see
    /// [`BodyRecord::read_when_long`].
    pub(super) fn record_call(&mut self, arrays: SamplerArrays) {
        if has_api(&self.exchange.request.target) {
            self.request.hold_whole();
            self.response.hold_whole();
            self.response.read_when_long(arrays);
        }
    }
}

/// The record of a body; of nothing yet.
pub(super) fn body_record(options: &RecordingOptions) -> BodyRecord {
    let held = HeldBytes::new(&options.memory, MemoryUse::Capture);
    BodyRecord::new(held, options.memory.share(MemoryUse::Capture), options.settings.max_body_bytes)
}

/// The outcome of an exchange that is dropped before its end: the agent went away, or this program panicked.
pub(super) fn outcome_when_dropped() -> Outcome {
    if is_unwinding() { Outcome::Failed { error: Panicked.into() } } else { Outcome::Aborted { by: Side::Downstream } }
}

/// Delivers an exchange as it stands.
pub(super) fn deliver(
    state: RecordingState,
    options: &RecordingOptions,
    committed: Option<oneshot::Sender<CommitStatus>>,
) {
    let RecordingState { mut exchange, slot, request, response, messages, sequence, in_flight, final_outcome, .. } =
        state;
    // In this order, so that it is counted throughout.
    let unstored = options.counters.unstored.enter();
    drop(in_flight);
    add_content(&mut exchange.request_body, request);
    let begun = add_content(&mut exchange.response_body, response);
    exchange.timing.ended = options.started.elapsed();
    if let Some(outcome) = final_outcome {
        exchange.outcome = outcome;
    }
    let queued_at = Instant::now();
    slot.deliver(Captured { exchange, begun, queued_at, committed, _messages: messages, sequence, unstored });
}

/// Adds what was recorded to its body. Returns the call that was begun to be read from it.
fn add_content(body: &mut Body, record: BodyRecord) -> Option<BegunCall> {
    let RecordedBody { held, begun, share, raw_end } = record.finish();
    body.raw_end = raw_end;
    if !held.is_empty() {
        body.content = Some(Box::new(held));
    }
    begun.map(|(response, held_from)| BegunCall { response, held_from, _memory: share })
}

pub(super) fn body_of(exchange: &mut Exchange, direction: Direction) -> &mut Body {
    match direction {
        Direction::Request => &mut exchange.request_body,
        Direction::Response => &mut exchange.response_body,
    }
}
