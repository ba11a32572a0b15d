//! One exchange that is being recorded: shared by its two body tees and the code that forwards it, delivered exactly once.

use super::body_record::{Loss, RawBytes};
use super::captured::CommitStatus;
use super::counters::CaptureCounters;
use super::edited_bytes::EditedBytes;
use super::memory_budget::MemoryUse;
use super::queue::QueueSlot;
use super::recording_state::{RecordingOptions, RecordingState, body_of, body_record, deliver, outcome_when_dropped};
use crate::error::{ErrorKind, ProxyError, Side};
use crate::llm::api::websocket_calls;
use crate::shared_state::SequenceLease;
use crate::trace::exchange::{
    Arrival, Body, ConnectionFacts, Direction, Exchange, ExchangeKind, GatewayFacts, Injection, Message, MessageOpcode,
    Outcome, PolicyVersionStart, RequestHead, ResponseHead, Truncation,
};
use crate::util::panics::{Panicked, catch, is_unwinding};
use bytes::Bytes;
use http::HeaderMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// A handle on an exchange that is being recorded. When the last one is dropped the exchange is delivered as it stands.
#[derive(Clone)]
pub struct Recording {
    // None: nothing is recorded.
    shared: Option<Arc<Shared>>,
}

/// Which bytes of a response a version of the policy answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionChange {
    /// Those from now on, behind the earlier version's.
    Follows,
    /// Those from now on, in place of versions that have not sent a byte.
    Replaces,
}

struct Shared {
    options: RecordingOptions,
    records_bodies: bool,
    records_messages: bool,
    // Locked by the tasks of one exchange, for as long as a frame is recorded: if memory is short, while it is written to the
    // spill file. Never across an await. None once it is delivered.
    state: Mutex<Option<RecordingState>>,
}

/// A response's wait for its commit; see [`Recording::finish`].
pub(super) struct CommitWait {
    pub(super) committed: oneshot::Receiver<CommitStatus>,
    pub(super) timeout: Duration,
    counters: Arc<CaptureCounters>,
}

impl CommitWait {
    /// Ends the wait. Anything but a commit is counted; `None` is a timeout, or a pipeline that is gone.
    pub(super) fn end(&self, status: Option<CommitStatus>) {
        if status != Some(CommitStatus::Committed) {
            self.counters.commit_missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Recording {
    /// A handle that records nothing.
    pub fn off() -> Self {
        Self { shared: None }
    }

    pub(super) fn new(
        exchange: Box<Exchange>,
        slot: QueueSlot,
        sequence: SequenceLease,
        options: RecordingOptions,
    ) -> Self {
        let include_bodies = options.settings.include_bodies;
        let records_bodies = include_bodies || exchange.records_bodies;
        let in_flight = match exchange.kind {
            ExchangeKind::Connect(_) => None,
            ExchangeKind::Http | ExchangeKind::Upgrade => Some(options.counters.in_flight.enter()),
        };
        let records_messages = include_bodies || websocket_calls(&exchange.request.target).is_some();
        let state = RecordingState {
            exchange,
            slot,
            request: body_record(&options),
            shared_request: None,
            response: body_record(&options),
            messages: options.memory.share(MemoryUse::WebSocket),
            sequence,
            in_flight,
            is_call: options.is_absorbed.then_some(true),
            final_outcome: None,
            is_faulty: false,
        };
        let shared = Shared { options, records_bodies, records_messages, state: Mutex::new(Some(state)) };
        Self { shared: Some(Arc::new(shared)) }
    }

    /// True when the exchange is recorded.
    pub fn is_on(&self) -> bool {
        self.shared.is_some()
    }

    /// True when the end of the response waits for the commit.
    pub fn is_durable(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.options.durable)
    }

    /// Records the head of the final response.
    pub fn response(&self, head: ResponseHead) {
        self.update(|exchange, elapsed| {
            exchange.timing.response_headers = Some(elapsed);
            exchange.response = Some(head);
        });
    }

    /// Forgets the response: it broke off before the agent saw any of it, and another will follow.
    pub fn discard_response(&self) {
        self.change(|state, options| {
            state.exchange.response = None;
            state.exchange.response_body = Body::default();
            state.exchange.timing.first_body_byte = None;
            state.response = body_record(options);
            if state.is_call == Some(true) {
                state.record_call(options.settings.sampler_arrays());
            }
        });
    }

    /// Records the status of an interim response; at most `MAX_INFORMATIONAL` of one exchange.
    pub fn interim_response(&self, status: u16) {
        self.update(|exchange, _| {
            if exchange.informational.len() < MAX_INFORMATIONAL {
                exchange.informational.push(status);
            }
        });
    }

    /// Changes what is known of the connections.
    pub fn connection(&self, update: impl FnOnce(&mut ConnectionFacts)) {
        self.update(|exchange, _| update(&mut exchange.connection));
    }

    /// Records how long the upstream connection took that was made for this exchange.
    pub fn connected(&self, connect: Option<Duration>, tls: Option<Duration>) {
        self.update(|exchange, _| (exchange.timing.connect, exchange.timing.tls) = (connect, tls));
    }

    /// Changes the sort of exchange.
    pub fn kind(&self, kind: ExchangeKind) {
        self.update(|exchange, _| exchange.kind = kind);
    }

    /// Records what was added to the request on the agent's behalf.
    pub fn injected(&self, injection: Injection) {
        self.update(|exchange, _| exchange.injection = injection);
    }

    /// Records that the response keeps the fields that were requested on the agent's behalf.
    pub fn not_stripped(&self) {
        self.update(|exchange, _| exchange.injection.strips = false);
    }

    /// Changes what is known of the gateway's work.
    pub fn gateway(&self, update: impl FnOnce(&mut GatewayFacts)) {
        self.update(|exchange, _| update(exchange.gateway.get_or_insert_default()));
    }

    /// Sets the outcome for the agent: it wins over every other one, earlier or later.
    pub fn set_final_outcome(&self, outcome: Outcome) {
        let Some(shared) = &self.shared else { return };
        let mut guard = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = guard.as_mut() {
            state.final_outcome = Some(outcome);
        }
    }

    /// Records that another version of the policy answers.
    pub fn policy_version(&self, version: i64, change: VersionChange) {
        self.update(|exchange, _| {
            let from = usize::try_from(exchange.response_body.size_bytes).unwrap_or(usize::MAX);
            let versions = &mut exchange.gateway.get_or_insert_default().versions;
            if change == VersionChange::Replaces {
                versions.retain(|earlier| earlier.from < from);
            }
            versions.push(PolicyVersionStart { version, from });
        });
    }

    /// Changes the request's head: it goes elsewhere than the agent meant.
    pub fn request(&self, update: impl FnOnce(&mut RequestHead)) {
        self.update(|exchange, _| update(&mut exchange.request));
    }

    /// Records the whole body of a request that passes no tee, in place of an earlier one. It has no content coding, whatever
    /// the request had as it came.
    pub(crate) fn request_body(&self, body: &EditedBytes) {
        let mut is_shared = false;
        self.change(|state, options| is_shared = state.replace_request(body, options));
        if !is_shared && body.read(&mut |chunk| self.frame(Direction::Request, chunk)).is_ok() {
            self.body_complete(Direction::Request);
        }
    }

    /// Lets the record share the bytes of a request that has passed, if it has all of them: then they are in memory once.
    pub(crate) fn share_request(&self, body: &EditedBytes) {
        self.change(|state, options| {
            if state.request.held_bytes() == body.len() {
                state.share_request(body, options);
            }
        });
    }

    /// True when the request's body has passed and all of it is recorded.
    pub fn has_whole_request(&self) -> bool {
        let Some(shared) = &self.shared else { return false };
        let guard = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().is_some_and(|state| {
            let body = &state.exchange.request_body;
            body.complete && body.truncated.is_none() && state.request_bytes() == body.size_bytes
        })
    }

    /// Sets the number of bytes that passed without a tee, as in a tunnel.
    pub fn relayed_bytes(&self, direction: Direction, bytes: u64) {
        self.update(|exchange, _| body_of(exchange, direction).size_bytes = bytes);
    }

    /// Maximum recorded bytes of a WebSocket message's payload.
    pub fn max_message_bytes(&self) -> usize {
        let shared = self.shared.as_ref().filter(|shared| shared.records_messages);
        shared.map_or(0, |shared| usize::try_from(shared.options.settings.max_body_bytes).unwrap_or(usize::MAX))
    }

    /// Records a WebSocket message that has just passed. Above `capture.max_messages` it is only counted. Without memory
    /// for its payload it is recorded without, and counted as truncated.
    pub fn message(&self, mut message: Message) {
        let Some(shared) = &self.shared else { return };
        let mut guard = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(RecordingState { exchange, messages: memory, .. }) = guard.as_mut() else { return };
        exchange.messages.count += 1;
        if exchange.messages.recorded.len() < shared.options.settings.max_messages {
            if !shared.records_messages || !memory.try_grow(message.payload.len() as u64) {
                // The status code of a close frame is not content.
                let kept = if message.opcode == MessageOpcode::Close { 2 } else { 0 };
                if shared.records_messages && message.payload.len() > kept {
                    shared.options.counters.truncated.fetch_add(1, Ordering::Relaxed);
                }
                message.payload.truncate(kept);
                message.payload.shrink_to_fit();
            }
            message.at = shared.options.started.elapsed();
            exchange.messages.recorded.push(message);
        }
    }

    /// Records a violation of WebSocket. The first one stays.
    pub fn message_fault(&self, fault: &'static str) {
        self.update(|exchange, _| exchange.messages.fault = exchange.messages.fault.or(Some(fault)));
    }

    /// Sets the outcome. A later one replaces it until the exchange is delivered.
    pub fn outcome(&self, outcome: Outcome) {
        self.update(|exchange, _| exchange.outcome = outcome);
    }

    /// Records that it failed, and delivers it.
    pub fn fail(&self, error: &ProxyError) {
        self.failing(error);
        drop(self.finish());
    }

    /// Sets the outcome of a failure. A later one replaces it until the exchange is delivered.
    pub(super) fn failing(&self, error: &ProxyError) {
        self.outcome(match error.kind {
            // The agent went away.
            ErrorKind::HttpRequestIncomplete => Outcome::Aborted { by: Side::Downstream },
            _ => Outcome::Failed { error: error.clone() },
        });
    }

    /// Records a data frame.
    pub(super) fn frame(&self, direction: Direction, data: &Bytes) {
        let Some(shared) = &self.shared else { return };
        let mut guard = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = guard.as_mut() else { return };
        let elapsed = || shared.options.started.elapsed();
        let exchange = &mut state.exchange;
        if direction == Direction::Response && exchange.timing.first_body_byte.is_none() {
            exchange.timing.first_body_byte = Some(elapsed());
        }
        let body = body_of(exchange, direction);
        body.size_bytes += data.len() as u64;
        body.frames += 1;
        let position = usize::try_from(body.size_bytes).unwrap_or(usize::MAX);
        if direction == Direction::Request {
            state.judge_request(data, shared.options.settings.sampler_arrays());
        }
        if state.is_faulty || (!shared.records_bodies && state.is_call != Some(true)) {
            return;
        }
        let raw = if shared.records_bodies { RawBytes::Keep } else { RawBytes::Drop };
        let heads = (&state.exchange.request, state.exchange.response.as_ref());
        let record = match direction {
            Direction::Request => &mut state.request,
            Direction::Response => &mut state.response,
        };
        // Traffic goes on whatever the record makes of it.
        let lost = catch(|| record.push(data, heads, raw)).unwrap_or_else(|Panicked| {
            *record = body_record(&shared.options);
            state.is_faulty = true;
            Some(Loss::Content(Truncation::Fault))
        });
        let body = body_of(&mut state.exchange, direction);
        if let Some(loss) = lost {
            if let Loss::Content(why) = loss {
                body.truncated = Some(why);
            }
            shared.options.counters.truncated.fetch_add(1, Ordering::Relaxed);
        }
        if direction == Direction::Response && body.arrivals.len() < MAX_ARRIVALS {
            body.arrivals.push(Arrival { end: position, at: elapsed() });
        }
    }

    pub(super) fn trailers(&self, direction: Direction, trailers: &HeaderMap) {
        self.update(|exchange, _| body_of(exchange, direction).trailers = Some(trailers.clone()));
    }

    /// Records that the end of a body was seen.
    pub(crate) fn body_complete(&self, direction: Direction) {
        self.update(|exchange, _| body_of(exchange, direction).complete = true);
    }

    /// Delivers the exchange. Only the first call does something. If the exchange is durable it returns the wait for the
    /// commit.
    pub(super) fn finish(&self) -> Option<CommitWait> {
        let shared = self.shared.as_ref()?;
        let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let RecordingOptions { durable, settings, counters, .. } = &shared.options;
        if !durable {
            deliver(state, &shared.options, None);
            return None;
        }
        let (sender, committed) = oneshot::channel();
        deliver(state, &shared.options, Some(sender));
        Some(CommitWait { committed, timeout: settings.commit_timeout, counters: Arc::clone(counters) })
    }

    /// Delivers an exchange without a response body, and waits for its commit if it is durable.
    pub async fn finish_and_wait(&self) {
        if let Some(mut wait) = self.finish() {
            let status = tokio::time::timeout(wait.timeout, &mut wait.committed).await;
            wait.end(status.ok().and_then(Result::ok));
        }
    }

    fn update(&self, update: impl FnOnce(&mut Exchange, Duration)) {
        self.change(|state, options| update(&mut state.exchange, options.started.elapsed()));
    }

    fn change(&self, change: impl FnOnce(&mut RecordingState, &RecordingOptions)) {
        let Some(shared) = &self.shared else { return };
        let mut guard = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = guard.as_mut() {
            change(state, &shared.options);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(mut state) = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            if is_unwinding() {
                state.exchange.outcome = outcome_when_dropped();
            }
            deliver(state, &self.options, None);
        }
    }
}

/// Maximum recorded interim responses of one exchange: an endpoint may send any number.
const MAX_INFORMATIONAL: usize = 100;
/// Maximum frames with a recorded time of arrival.
const MAX_ARRIVALS: usize = 4 * 1024;
