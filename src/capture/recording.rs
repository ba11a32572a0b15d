//! One exchange being recorded: shared by its two body tees and the code that forwards it, delivered exactly once.

use super::budget::Held;
use super::recorder::{Captured, Counters, Recorder};
use super::tee::Direction;
use super::{Absorb, is_trace_export};
use crate::error::{ErrorKind, ProxyError, Side};
use crate::llm::api::{may_be_call, websocket_calls};
use crate::trace::exchange::{
    Arrival, Body, ConnectionFacts, Exchange, ExchangeKind, GatewayFacts, Injection, Message, Outcome, RequestHead,
    ResponseHead, Truncation,
};
use bytes::Bytes;
use http::HeaderMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::oneshot;

/// A handle on an exchange being recorded. When the last one is dropped the exchange is delivered as it stands.
#[derive(Clone)]
pub struct Recording {
    shared: Option<Arc<Shared>>,
}

struct Shared {
    started: Instant,
    durable: bool,
    commit_timeout: Duration,
    keep_bodies: bool,
    keep_messages: bool,
    max_body_bytes: u64,
    max_messages: usize,
    counters: Arc<Counters>,
    // Locked for moments only, by the tasks of one exchange; never over an await.
    state: Mutex<Option<State>>,
}

struct State {
    exchange: Exchange,
    permit: OwnedPermit<Captured>,
    held: Held,
    // Whether the request began like a call of a model or tool, whose content is what all this is for; not known before
    // its first byte that is no white space.
    is_call: Option<bool>,
    ends_as: Option<Outcome>,
}

/// The wait for a commit; see [`Recording::finish`].
pub(super) struct CommitWait {
    pub(super) committed: oneshot::Receiver<bool>,
    pub(super) limit: Duration,
    counters: Arc<Counters>,
}

impl CommitWait {
    /// The wait is over; anything but a commit is counted.
    pub(super) fn over(&self, committed: bool) {
        if !committed {
            self.counters.commit_missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

const MAX_INFORMATIONAL: usize = 100;

impl Recording {
    /// Records nothing.
    pub fn off() -> Self {
        Self { shared: None }
    }

    pub(super) fn new(
        exchange: Exchange,
        permit: OwnedPermit<Captured>,
        recorder: &Recorder,
        started: Instant,
        durable: bool,
    ) -> Self {
        let settings = recorder.settings();
        let request = &exchange.request;
        let absorbs = settings.absorb_telemetry != Absorb::Off && is_trace_export(&request.method, &request.target);
        // Known before its first byte.
        let is_call = absorbs.then_some(true);
        let shared = Shared {
            started,
            durable,
            commit_timeout: settings.commit_timeout,
            keep_bodies: settings.include_bodies || exchange.keeps_bodies,
            keep_messages: settings.include_bodies || websocket_calls(&exchange.request.target).is_some(),
            max_body_bytes: settings.max_body_bytes,
            max_messages: settings.max_messages,
            counters: Arc::clone(recorder.counters()),
            state: Mutex::new(Some(State { exchange, permit, held: recorder.budget().hold(), is_call, ends_as: None })),
        };
        Self { shared: Some(Arc::new(shared)) }
    }

    /// True when something is recorded.
    pub fn is_on(&self) -> bool {
        self.shared.is_some()
    }

    /// True when the end of the answer waits for the commit.
    pub fn is_durable(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.durable)
    }

    /// The final response head has come.
    pub fn response(&self, head: ResponseHead) {
        self.update(|exchange, elapsed| {
            exchange.timing.response_headers = Some(elapsed);
            exchange.response = Some(head);
        });
    }

    /// The response that had begun broke off before anybody saw it; there will be another.
    pub fn unanswered(&self) {
        self.update(|exchange, _| exchange.response = None);
    }

    /// An interim response has come. An endpoint that floods us with them is noted so far.
    pub fn informational(&self, status: u16) {
        self.update(|exchange, _| {
            if exchange.informational.len() < MAX_INFORMATIONAL {
                exchange.informational.push(status);
            }
        });
    }

    /// More is known of the connections.
    pub fn connection(&self, update: impl FnOnce(&mut ConnectionFacts)) {
        self.update(|exchange, _| update(&mut exchange.connection));
    }

    /// The upstream connection was made for this exchange and took this long.
    pub fn connected(&self, connect: Option<Duration>, tls: Option<Duration>) {
        self.update(|exchange, _| (exchange.timing.connect, exchange.timing.tls) = (connect, tls));
    }

    /// It turned out to be another sort of exchange.
    pub fn kind(&self, kind: ExchangeKind) {
        self.update(|exchange, _| exchange.kind = kind);
    }

    /// Something was added to the request on the agent's behalf.
    pub fn injected(&self, injection: Injection) {
        self.update(|exchange, _| exchange.injection = injection);
    }

    /// What was added can't be taken out of the answer: the agent sees what came of it.
    pub fn unstripped(&self) {
        self.update(|exchange, _| exchange.injection.strips = false);
    }

    /// The gateway did something with it.
    pub fn gateway(&self, update: impl FnOnce(&mut GatewayFacts)) {
        self.update(|exchange, _| update(exchange.gateway.get_or_insert_default()));
    }

    /// It ended for the agent as `outcome` says, whatever becomes of the bytes.
    pub fn ends_as(&self, outcome: Outcome) {
        let Some(shared) = &self.shared else { return };
        let mut guard = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = guard.as_mut() {
            state.ends_as = Some(outcome);
        }
    }

    /// From here on, another version of the policy answers; `instead`: no byte is that of the one before.
    pub fn policy_version(&self, version: i64, instead: bool) {
        self.update(|exchange, _| {
            let kept = exchange.response_body.kept.len();
            let versions = &mut exchange.gateway.get_or_insert_default().versions;
            if instead {
                versions.retain(|(_, from)| *from < kept);
            }
            versions.push((version, kept));
        });
    }

    /// The request turned out to go elsewhere.
    pub fn request(&self, update: impl FnOnce(&mut RequestHead)) {
        self.update(|exchange, _| update(&mut exchange.request));
    }

    /// The whole body of the request, where no tee sees it pass; in place of the one before.
    pub fn request_body(&self, body: &Bytes) {
        self.update(|exchange, _| exchange.request_body = Body::default());
        if !body.is_empty() {
            self.frame(Direction::Request, body, 0);
        }
        self.body_complete(Direction::Request);
    }

    /// Bytes passed that no tee saw, as in a tunnel.
    pub fn passed(&self, direction: Direction, bytes: u64) {
        self.update(|exchange, _| body_of(exchange, direction).size_bytes = bytes);
    }

    /// Bytes kept of one message's payload.
    pub fn message_bytes(&self) -> usize {
        let kept = self.shared.as_ref().filter(|shared| shared.keep_messages).map_or(0, |shared| shared.max_body_bytes);
        usize::try_from(kept).unwrap_or(usize::MAX)
    }

    /// A WebSocket message has passed; its time is set here. Beyond `capture.max_messages` they are only counted.
    pub fn message(&self, mut message: Message) {
        let Some(shared) = &self.shared else { return };
        let mut guard = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(State { exchange, held, .. }) = guard.as_mut() else { return };
        exchange.messages.count += 1;
        if exchange.messages.kept.len() < shared.max_messages {
            if !shared.keep_messages || !held.take(message.payload.len() as u64) {
                // The code of a close is no content.
                message.payload.truncate(if message.opcode == "close" { 2 } else { 0 });
            }
            message.at = shared.started.elapsed();
            exchange.messages.kept.push(message);
        }
    }

    /// What passed was not WebSocket.
    pub fn message_fault(&self, fault: &'static str) {
        self.update(|exchange, _| exchange.messages.fault = Some(fault));
    }

    /// How it ends, unless somebody says otherwise before it is delivered.
    pub fn outcome(&self, outcome: Outcome) {
        self.update(|exchange, _| exchange.outcome = outcome);
    }

    /// It failed: delivered at once.
    pub fn fail(&self, error: &ProxyError) {
        self.failing(error);
        drop(self.finish());
    }

    /// It fails, unless somebody says otherwise before it is delivered.
    pub(super) fn failing(&self, error: &ProxyError) {
        self.outcome(match error.kind {
            // Nothing failed but the agent's patience.
            ErrorKind::HttpRequestIncomplete => Outcome::Aborted { by: Side::Downstream },
            _ => Outcome::Failed { error: error.clone() },
        });
    }

    /// Data passed; `following` bytes will, as far as they are declared.
    pub(super) fn frame(&self, direction: Direction, data: &Bytes, following: u64) {
        let Some(shared) = &self.shared else { return };
        let mut guard = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(State { exchange, held, is_call, .. }) = guard.as_mut() else { return };
        if direction == Direction::Response && exchange.timing.first_body_byte.is_none() {
            exchange.timing.first_body_byte = Some(shared.started.elapsed());
        }
        let body = body_of(exchange, direction);
        body.size_bytes += data.len() as u64;
        body.frames += 1;
        if direction == Direction::Request && is_call.is_none() && !data.trim_ascii_start().is_empty() {
            *is_call = Some(may_be_call(&exchange.request.method, &exchange.request.headers, data));
        }
        if !shared.keep_bodies && *is_call != Some(true) {
            return;
        }
        let body = body_of(exchange, direction);
        if body.truncated.is_none()
            && let Some(why) = keep(body, held, data, following, shared.max_body_bytes)
        {
            body.truncated = Some(why);
            shared.counters.truncated.fetch_add(1, Ordering::Relaxed);
        }
        if direction == Direction::Response && body.arrivals.len() < MAX_ARRIVALS {
            body.arrivals.push(Arrival { end: body.kept.len(), at: shared.started.elapsed() });
        }
    }

    pub(super) fn trailers(&self, direction: Direction, trailers: &HeaderMap) {
        self.update(|exchange, _| body_of(exchange, direction).trailers = Some(trailers.clone()));
    }

    pub(super) fn body_complete(&self, direction: Direction) {
        self.update(|exchange, _| body_of(exchange, direction).complete = true);
    }

    /// Delivers the exchange now. The first call does; later ones find nothing left. With a durable exchange the wait
    /// for its commit comes back.
    pub(super) fn finish(&self) -> Option<CommitWait> {
        let shared = self.shared.as_ref()?;
        let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        if !shared.durable {
            deliver(state, shared.started, None);
            return None;
        }
        let (sender, committed) = oneshot::channel();
        deliver(state, shared.started, Some(sender));
        Some(CommitWait { committed, limit: shared.commit_timeout, counters: Arc::clone(&shared.counters) })
    }

    /// Delivers an exchange without response body, and waits for its commit if it is durable.
    pub async fn finish_now(&self) {
        if let Some(mut wait) = self.finish() {
            let committed = tokio::time::timeout(wait.limit, &mut wait.committed).await;
            wait.over(matches!(committed, Ok(Ok(true))));
        }
    }

    fn update(&self, update: impl FnOnce(&mut Exchange, Duration)) {
        let Some(shared) = &self.shared else { return };
        let mut guard = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = guard.as_mut() {
            update(&mut state.exchange, shared.started.elapsed());
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(state) = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            deliver(state, self.started, None);
        }
    }
}

fn deliver(mut state: State, started: Instant, committed: Option<oneshot::Sender<bool>>) {
    state.exchange.timing.ended = started.elapsed();
    if let Some(outcome) = state.ends_as {
        state.exchange.outcome = outcome;
    }
    // A permit's send reaches the queue even when the receiver is closing.
    state.permit.send(Captured { exchange: state.exchange, queued_at: Instant::now(), committed, held: state.held });
}

fn body_of(exchange: &mut Exchange, direction: Direction) -> &mut Body {
    match direction {
        Direction::Request => &mut exchange.request_body,
        Direction::Response => &mut exchange.response_body,
    }
}

/// Keeps a copy of `data`, or says why not. Not a clone: that would keep the reader's whole buffer for the bytes in it,
/// and have a new one made for the next.
fn keep(body: &mut Body, held: &mut Held, data: &[u8], following: u64, max_body_bytes: u64) -> Option<Truncation> {
    let kept = body.size_bytes - data.len() as u64;
    let room = usize::try_from(max_body_bytes.saturating_sub(kept)).unwrap_or(usize::MAX);
    let part = &data[..data.len().min(room)];
    if !held.take(part.len() as u64) {
        return Some(Truncation::MemoryBudget);
    }
    if body.kept.is_empty() && part.len() == data.len() {
        // Of what is only declared no more than costs little.
        body.kept
            .reserve_exact(part.len() + usize::try_from(following).unwrap_or(usize::MAX).min(MAX_IN_ADVANCE_BYTES));
    }
    body.kept.push(part);
    // Many small frames: a stream that may go on for long.
    let is_slow = body.frames >= PACKED_FRAMES && body.size_bytes / body.frames < PACKED_FRAME_BYTES;
    if is_slow && body.kept.unpacked_bytes() >= PACKED_AT_BYTES {
        held.give_back(body.kept.pack() as u64);
    }
    (part.len() < data.len()).then_some(Truncation::BodyLimit)
}

/// Frames whose arrival is noted.
const MAX_ARRIVALS: usize = 16 * 1024;
/// From when on a body is packed: so many frames of less than so many bytes, in blocks of so many.
const PACKED_FRAMES: u64 = 64;
const PACKED_FRAME_BYTES: u64 = 4096;
const PACKED_AT_BYTES: usize = 32 * 1024;
const MAX_IN_ADVANCE_BYTES: usize = 64 * 1024;
