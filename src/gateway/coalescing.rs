//! Retries of agents: a call that is made again while its answer is on the way gets that answer, and so does one that is
//! made again shortly after. A retry never samples twice; and no sample is given to two calls that are not one.
//!
//! A call that may be joined runs in a task of its own, so that it goes on for a while when its agent hangs up. Its end
//! is not read from the backend before somebody is there to take it: an answer that nobody got is not recorded as whole.

use super::handle::{Call, ResponseState};
use super::response_cache::{End, Entry, Reader};
use super::settings::{GatewaySettings, Join};
use crate::capture::{Direction, TeeBody};
use crate::forward::response_error;
use crate::llm::api::ends_stream;
use crate::trace::exchange::ResponseHead;
use crate::upstream::Body;
use aws_lc_rs::digest;
use http::{HeaderValue, Response, Version, header};
use http_body_util::BodyExt;
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

type Key = [u8; 32];

/// Responses that retries can reuse. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct ResponseCache {
    calls: Arc<Mutex<HashMap<Key, CoalescingGroup>>>,
    // Bytes of all answers together.
    held: Arc<AtomicUsize>,
}

/// Calls with one body, of one attempt.
#[derive(Default)]
struct CoalescingGroup {
    entries: Vec<Arc<Entry>>,
    /// Calls that were no retries: samples of their own.
    samples: u32,
}

/// What a call is.
pub(super) enum CoalescingDecision {
    /// A retry of this one.
    Joins(CoalescedCall),
    /// One that may be retried.
    First(Publisher),
    /// One whose agent would not say if it were a retry.
    Alone,
}

/// The call that another is a retry of.
pub(super) struct CoalescedCall(Arc<Entry>);

/// Runs a call that may be retried.
pub(super) struct Publisher {
    kept: KeptEntry,
    window: Duration,
    max_bytes: usize,
}

/// An entry among the others; it goes when this is dropped, and whoever waits for its answer hears that there is none.
struct KeptEntry {
    answers: ResponseCache,
    key: Key,
    entry: Arc<Entry>,
}

impl ResponseCache {
    /// What a call is, by its body and by what its agent says.
    pub(super) async fn claim(&self, settings: &GatewaySettings, call: &Call) -> CoalescingDecision {
        let count = call.headers.get(RETRY_COUNT).and_then(|count| count.to_str().ok()?.trim().parse::<u32>().ok());
        let count = match (settings.join, count) {
            (Join::Off, _) | (Join::Header, None) => return CoalescingDecision::Alone,
            (Join::Header, Some(count)) => count,
            (Join::Digest, _) => u32::MAX,
        };
        let key = key_of(call);
        // A server hears of a client that hung up a moment after its retry, at worst.
        let retry = (count > 0).then(|| tokio::time::Instant::now() + HANG_UP_HEARD);
        loop {
            let left = {
                let mut calls = self.lock();
                let same = calls.entry(key).or_default();
                match retry.map(|_| same.find(count, settings.join)) {
                    Some(Found::One(entry)) => {
                        entry.count.store(count, Ordering::Relaxed);
                        return CoalescingDecision::Joins(CoalescedCall(entry));
                    }
                    Some(Found::Perhaps(entry)) if retry.is_some_and(|until| tokio::time::Instant::now() < until) => {
                        entry.readers.subscribe()
                    }
                    _ => {
                        same.samples += 1;
                        let entry = Arc::new(Entry::new(call.begun.trace.span_id, count, Arc::clone(&self.held)));
                        same.entries.push(Arc::clone(&entry));
                        let kept = KeptEntry { answers: self.clone(), key, entry };
                        let (window, max_bytes) = (settings.join_window, settings.join_memory_bytes);
                        return CoalescingDecision::First(Publisher { kept, window, max_bytes });
                    }
                }
            };
            let mut left = left;
            let gone = left.wait_for(|readers| *readers == 0);
            if let Some(until) = retry {
                drop(tokio::time::timeout_at(until, gone).await);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, CoalescingGroup>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a retry may be a retry of.
enum Found {
    One(Arc<Entry>),
    /// This one, if its agent has hung up, which is not heard yet.
    Perhaps(Arc<Entry>),
    None,
}

impl CoalescingGroup {
    /// The call that a retry repeats: one of fewer tries whose agent hung up; or, if there is but one call that it can
    /// mean, that one also when its answer was sent. What others sample from one prompt is theirs.
    fn find(&self, count: u32, join: Join) -> Found {
        let joinable = |entry: &&Arc<Entry>| {
            let fewer = entry.count.load(Ordering::Relaxed) < count || join == Join::Digest;
            let said = entry.said();
            fewer && !said.is_passing && said.end != Some(End::Broken)
        };
        let mut entries = self.entries.iter().filter(joinable);
        let waits = |entry: &&Arc<Entry>| *entry.readers.borrow() == 0 && !entry.said().delivered;
        if let Some(left) = entries.clone().find(waits) {
            return Found::One(Arc::clone(left));
        }
        if self.samples == 1 || join == Join::Digest {
            return entries.next().map_or(Found::None, |only| Found::One(Arc::clone(only)));
        }
        let on_its_way = entries.find(|entry| entry.said().end.is_none());
        on_its_way.map_or(Found::None, |entry| Found::Perhaps(Arc::clone(entry)))
    }
}

fn key_of(call: &Call) -> Key {
    let identity = &call.begun.identity;
    let mut context = digest::Context::new(&digest::SHA256);
    let path = call.route.api.path();
    for part in [identity.rollout_id.as_str().as_bytes(), identity.attempt_id.as_str().as_bytes(), path.as_bytes()] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.update(&call.body);
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}

impl Drop for KeptEntry {
    fn drop(&mut self) {
        if self.entry.said().end.is_none() {
            self.entry.say(|said| said.end = Some(End::Broken));
        }
        let mut calls = self.answers.lock();
        if let Some(same) = calls.get_mut(&self.key) {
            same.entries.retain(|known| !Arc::ptr_eq(known, &self.entry));
            if same.entries.is_empty() {
                calls.remove(&self.key);
            }
        }
    }
}

impl Publisher {
    /// Runs a call to its end, and gives its answer.
    pub(super) async fn run(
        self,
        told: Arc<ResponseState>,
        answering: impl Future<Output = Response<Body>> + Send + 'static,
    ) -> Response<Body> {
        let reader = Reader::of(Arc::clone(&self.kept.entry));
        tokio::spawn(self.publish(told, answering));
        reader.response().await
    }

    async fn publish(self, told: Arc<ResponseState>, answering: impl Future<Output = Response<Body>> + Send + 'static) {
        // However this ends, the entry goes with it.
        let Self { kept, window, max_bytes } = self;
        let whole = tokio::select! {
            whole = fill(&kept.entry, answering, max_bytes) => whole,
            () = kept.entry.abandoned(window) => false,
        };
        kept.entry.say(|said| said.end = Some(if whole { End::Whole } else { End::Broken }));
        let is_worth_it = {
            let said = kept.entry.said();
            let is_success = said.head.as_ref().is_some_and(|(status, _)| status.is_success());
            whole && is_success && !said.is_passing && !told.is_incomplete()
        };
        drop(told);
        if is_worth_it {
            tokio::time::sleep(window).await;
        }
    }
}

/// Takes an answer to its end. True: it was whole.
async fn fill(entry: &Entry, answering: impl Future<Output = Response<Body>>, max_bytes: usize) -> bool {
    let (parts, mut body) = answering.await.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let mut is_near_its_end = !kind.starts_with(b"text/event-stream");
    entry.say(|said| said.head = Some((parts.status, parts.headers)));
    loop {
        if is_near_its_end {
            entry.wanted().await;
        }
        entry.read_by_its_reader().await;
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    is_near_its_end |= ends_stream(&data);
                    entry.push(&data, max_bytes);
                }
            }
            Some(Err(_)) => return false,
            None => return true,
        }
    }
}

impl CoalescedCall {
    /// The first call's answer as that of its retry, whose own span says so.
    pub(super) async fn answer_to(self, call: &Call) -> Response<Body> {
        let recording = &call.begun.recording;
        let in_flight = self.0.said().end.is_none();
        recording.gateway(|facts| facts.joined = Some((self.0.span_id, in_flight)));
        let (parts, body) = Reader::of(self.0).response().await.into_parts();
        recording.response(ResponseHead {
            status: parts.status,
            version: Version::HTTP_11,
            headers: parts.headers.clone(),
        });
        let tee = TeeBody::new(body, recording.clone(), Direction::Response, response_error, |_| false);
        Response::from_parts(parts, tee.boxed_unsync())
    }
}

/// How often the SDKs of OpenAI and Anthropic have tried.
const RETRY_COUNT: &str = "x-stainless-retry-count";
/// How long it may take to hear that a client has hung up.
const HANG_UP_HEARD: Duration = Duration::from_millis(250);
