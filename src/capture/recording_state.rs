//! The state of one recording, and its delivery.

use super::body_record::{BodyRecord, RecordedBody};
use super::captured::{BegunCall, Captured, CommitStatus};
use super::counters::CaptureCounters;
use super::edited_bytes::EditedBytes;
use super::held_bytes::HeldBytes;
use super::memory::Memory;
use super::memory_budget::{MemoryShare, MemoryUse};
use super::queue::QueueSlot;
use super::settings::CaptureSettings;
use crate::error::Side;
use crate::llm::api::{has_api, may_be_call};
use crate::shared_state::SequenceLease;
use crate::trace::SamplerArrays;
use crate::trace::exchange::{Body, BodyContent, Direction, Exchange, Outcome, RecordedForm, RequestHead};
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
    // The whole request, if its record shares what is sent: then `request` has nothing.
    pub(super) shared_request: Option<EditedBytes>,
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
    /// Judges by the beginning of the request's body whether it may be a call of a model or tool.
    pub(super) fn judge_request(&mut self, beginning: &[u8], arrays: SamplerArrays) {
        if self.is_call.is_none() && !beginning.trim_ascii_start().is_empty() {
            let RequestHead { method, headers, .. } = &self.exchange.request;
            let is_call = may_be_call(method, headers, beginning);
            self.is_call = Some(is_call);
            if is_call {
                self.record_call(arrays);
            }
        }
    }

    /// Records this request without content coding in place of an earlier one, as far as its record shares the bytes; false if
    /// it does not.
    pub(super) fn replace_request(&mut self, body: &EditedBytes, options: &RecordingOptions) -> bool {
        self.exchange.request_body = Body { form: RecordedForm::Decoded, ..Body::default() };
        self.request = body_record(options);
        self.shared_request = None;
        // It may be for another API.
        self.is_call = options.is_absorbed.then_some(true);
        let beginning = body.beginning().unwrap_or_default();
        self.judge_request(&beginning, options.settings.sampler_arrays());
        let is_shared = self.share_request(body, options);
        if is_shared {
            (self.exchange.request_body.size_bytes, self.exchange.request_body.complete) = (body.len(), true);
        }
        is_shared
    }

    /// Lets the record of the request share these bytes, which are the whole request; false if it is not to be held whole.
    pub(super) fn share_request(&mut self, body: &EditedBytes, options: &RecordingOptions) -> bool {
        let is_shared = self.request.holds_whole();
        if is_shared {
            self.request = body_record(options);
            self.shared_request = Some(body.clone());
        }
        is_shared
    }

    /// The bytes of the request that are recorded.
    pub(super) fn request_bytes(&self) -> u64 {
        self.shared_request.as_ref().map_or(self.request.held_bytes(), EditedBytes::len)
    }

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
    let RecordingState {
        mut exchange,
        slot,
        request,
        shared_request,
        response,
        messages,
        sequence,
        in_flight,
        final_outcome,
        ..
    } = state;
    // In this order, so that it is counted throughout.
    let unstored = options.counters.unstored.enter();
    drop(in_flight);
    add_content(&mut exchange.request_body, request);
    if let Some(shared) = shared_request {
        exchange.request_body.content = Some(Box::new(shared));
    }
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
