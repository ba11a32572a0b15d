//! Request coalescing: an agent's retry gets the response of the call that it repeats, while that call is in flight and for
//! `join_window_ms` after it. A retry never samples again, and two different calls never share a sample.
//!
//! A call that may be retried runs in a task of its own, so that it continues for `join_window_ms` when its agent hangs up.
//! The last piece of its response is not read from the backend before there is a reader, so that a response that no agent got
//! is not recorded as complete.
//!
//! Bounds: the responses of [`MAX_RESPONSES`] calls; a call beyond that is sent without a record of it, so a retry of it
//! samples again. `/metrics` counts those as `tracewire_gateway_uncoalesced_total`. The bytes of all responses are bounded by
//! `join_memory_bytes`: see [`CachedResponse`].

use super::backend_response::is_event_stream;
use super::cached_response::{CachedResponse, PieceEnd, ResponseEnd, ResponseReader};
use super::call::{GatewayCall, ResponseState};
use super::retry_sign::RetrySign;
use super::routing::{CallMode, Route};
use super::settings::GatewaySettings;
use crate::capture::{Memory, TeeBody};
use crate::forward::response_error;
use crate::llm::api::ends_stream;
use crate::net::task::spawn;
use crate::trace::exchange::{BodyContent, Direction, Identity, JoinedCall, ResponseHead};
use crate::upstream::Body;
use aws_lc_rs::digest;
use http::{Response, Version};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// SHA-256 of what makes two requests the same: rollout, attempt, the rest of the URL, and body.
type RequestDigest = [u8; 32];

/// The responses that retries can get. Cheap to clone; clones are the same cache.
#[derive(Clone)]
pub(super) struct ResponseCache(Arc<Cache>);

struct Cache {
    memory: Memory,
    groups: Mutex<Groups>,
    /// Bytes of all responses together.
    cached_bytes: Arc<AtomicUsize>,
    uncoalesced: AtomicU64,
}

#[derive(Default)]
struct Groups {
    by_request: HashMap<RequestDigest, Group>,
    /// Responses in all groups together.
    responses: usize,
}

/// The calls of one attempt that have the same request: samples of one prompt.
#[derive(Default)]
struct Group {
    /// The responses, by the number of their sample; the first is 0.
    responses: BTreeMap<u64, Arc<CachedResponse>>,
    /// The number of samples since the group began. Retries are not counted.
    samples: u64,
}

/// What to do with a call.
pub(super) enum CoalescingDecision {
    /// It is a retry of an earlier call: it gets that response.
    Join(EarlierCall),
    /// It is sent, and retries of it can get its response.
    Publish(Publisher),
    /// It is sent, and no later call gets its response: coalescing is off, or the cache is full.
    SendAlone,
}

/// The call that another is a retry of, as a reader of its response.
pub(super) struct EarlierCall(ResponseReader);

/// Runs a call that may be retried.
pub(super) struct Publisher {
    published: Published,
    window: Duration,
    max_bytes: usize,
    sign: RetrySign,
}

/// A response in the cache. Dropping this removes it, and ends its readers if it is not complete.
struct Published {
    cache: ResponseCache,
    request: RequestDigest,
    sample: u64,
    response: Arc<CachedResponse>,
}

impl ResponseCache {
    pub(super) fn new(memory: Memory) -> Self {
        let (groups, cached_bytes, uncoalesced) = Default::default();
        Self(Arc::new(Cache { memory, groups, cached_bytes, uncoalesced }))
    }

    /// Decides by the body of a call and its agent's retry count. A retry may arrive before the hang-up of the call that it
    /// repeats: it waits up to [`HANG_UP_DELAY`] for that.
    pub(super) async fn decide(&self, settings: &GatewaySettings, call: &GatewayCall) -> CoalescingDecision {
        let Some(sign) = RetrySign::of(settings.join, call) else { return CoalescingDecision::SendAlone };
        let Ok(request) = digest_of(&call.exchange.identity, &call.route, &*call.body) else {
            return CoalescingDecision::SendAlone;
        };
        let wait_until = Instant::now() + HANG_UP_DELAY;
        loop {
            let mut readers = {
                let mut groups = self.lock();
                let earlier = groups.by_request.get(&request);
                match earlier.map_or(Match::None, |group| group.find(sign)) {
                    Match::Certain(response) => {
                        let Some(reader) = ResponseReader::for_retry(Arc::clone(&response)) else { continue };
                        response.retry_count.store(sign.count(), Ordering::Relaxed);
                        return CoalescingDecision::Join(EarlierCall(reader));
                    }
                    Match::IfDisconnected(response) if Instant::now() < wait_until => response.readers(),
                    Match::IfDisconnected(_) | Match::None => {
                        let span_id = call.exchange.trace.span_id;
                        let response = || {
                            let cached_bytes = Arc::clone(&self.0.cached_bytes);
                            CachedResponse::new(span_id, sign.count(), &self.0.memory, cached_bytes)
                        };
                        let Some((sample, response)) = groups.add(request, response) else {
                            self.0.uncoalesced.fetch_add(1, Ordering::Relaxed);
                            return CoalescingDecision::SendAlone;
                        };
                        let published = Published { cache: self.clone(), request, sample, response };
                        let (window, max_bytes) = (settings.join_window, settings.join_memory_bytes);
                        return CoalescingDecision::Publish(Publisher { published, window, max_bytes, sign });
                    }
                }
            };
            drop(tokio::time::timeout_at(wait_until, readers.wait_for(|count| *count == 0)).await);
        }
    }

    /// Calls that could not be published because the cache was full.
    pub(super) fn uncoalesced(&self) -> &AtomicU64 {
        &self.0.uncoalesced
    }

    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.0.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Groups {
    /// Adds a response; returns the number of its sample. `None`: there are [`MAX_RESPONSES`].
    fn add(
        &mut self,
        request: RequestDigest,
        response: impl FnOnce() -> CachedResponse,
    ) -> Option<(u64, Arc<CachedResponse>)> {
        if self.responses >= MAX_RESPONSES {
            return None;
        }
        self.responses += 1;
        let group = self.by_request.entry(request).or_default();
        let (sample, response) = (group.samples, Arc::new(response()));
        group.samples += 1;
        group.responses.insert(sample, Arc::clone(&response));
        Some((sample, response))
    }

    fn remove(&mut self, request: &RequestDigest, sample: u64) {
        let Some(group) = self.by_request.get_mut(request) else { return };
        if group.responses.remove(&sample).is_some() {
            self.responses -= 1;
        }
        if group.responses.is_empty() {
            self.by_request.remove(request);
        }
    }
}

/// The call that a retry may repeat.
enum Match {
    Certain(Arc<CachedResponse>),
    /// It repeats this one if the agent of that one has disconnected. The disconnect may not have been noticed yet.
    IfDisconnected(Arc<CachedResponse>),
    None,
}

impl Group {
    /// Finds the call that a request repeats:
    ///
    /// - Without a count, it is a call with an agent that disconnected before it had anything of the response.
    /// - With the retry count 0, which some agents send with every try, it is a call with a disconnected agent.
    /// - With a higher count, it is a call with a lower count and a disconnected agent.
    /// - If there is none, and the group has had only one sample, it is that one, also if its response was delivered. With more
    ///   samples a delivered response is never given to another call.
    fn find(&self, sign: RetrySign) -> Match {
        let was_left = |response: &&Arc<CachedResponse>| response.was_left();
        let mut joinable = self.responses.values().filter(|response| response.progress().is_joinable());
        let retry_count = match sign {
            RetrySign::HangUp => {
                let unread = joinable.find(|response| response.was_left() && !response.progress().was_begun);
                return unread.map_or(Match::None, |left| Match::Certain(Arc::clone(left)));
            }
            RetrySign::Count(0) => {
                return joinable.find(was_left).map_or(Match::None, |left| Match::Certain(Arc::clone(left)));
            }
            RetrySign::Count(count) => count,
            RetrySign::SameBody => u32::MAX,
        };
        let is_candidate = |response: &&Arc<CachedResponse>| {
            let is_earlier = response.retry_count.load(Ordering::Relaxed) < retry_count || sign == RetrySign::SameBody;
            is_earlier && response.progress().is_joinable()
        };
        let mut candidates = self.responses.values().filter(is_candidate);
        if let Some(left) = candidates.clone().find(was_left) {
            return Match::Certain(Arc::clone(left));
        }
        if self.samples == 1 || sign == RetrySign::SameBody {
            return candidates.next().map_or(Match::None, |only| Match::Certain(Arc::clone(only)));
        }
        let in_flight = candidates.find(|response| response.progress().end.is_none());
        in_flight.map_or(Match::None, |response| Match::IfDisconnected(Arc::clone(response)))
    }
}

fn digest_of(identity: &Identity, route: &Route, body: &dyn BodyContent) -> io::Result<RequestDigest> {
    let mut context = digest::Context::new(&digest::SHA256);
    let (path, mode) = (route.api.path(), route.mode.map_or("", CallMode::as_str));
    context.update(&[route.surface as u8]);
    for part in [identity.rollout_id.as_str(), identity.attempt_id.as_str(), mode, &path, &route.query] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    body.read_from(0, &mut |piece| context.update(piece))?;
    let mut request = [0; 32];
    request.copy_from_slice(context.finish().as_ref());
    Ok(request)
}

impl Drop for Published {
    fn drop(&mut self) {
        if self.response.progress().end.is_none() {
            self.response.update(|progress| progress.end = Some(ResponseEnd::Broken));
        }
        self.cache.lock().remove(&self.request, self.sample);
    }
}

impl Publisher {
    /// Sends the call in a task of its own, and returns its response.
    pub(super) async fn run(
        self,
        state: Arc<ResponseState>,
        respond: impl Future<Output = Response<Body>> + Send + 'static,
    ) -> Response<Body> {
        let reader = ResponseReader::new(Arc::clone(&self.published.response));
        let error_format = state.error_format;
        drop(spawn(self.publish(state, respond)));
        reader.into_response(error_format).await
    }

    async fn publish(self, state: Arc<ResponseState>, respond: impl Future<Output = Response<Body>> + Send + 'static) {
        // The response is in the cache until this function returns.
        let Self { published, window, max_bytes, sign } = self;
        let response = &published.response;
        let end = tokio::select! {
            end = copy(response, respond, max_bytes) => end,
            () = response.abandoned(|progress| sign.wait_for_retry(progress).min(window)) => ResponseEnd::Broken,
        };
        response.update(|progress| progress.end = Some(end));
        let is_reusable = {
            let progress = response.progress();
            let is_success = progress.head.as_ref().is_some_and(|(status, _)| status.is_success());
            // Without a count, no other call gets what was delivered.
            let may_be_joined = !progress.was_delivered || sign != RetrySign::HangUp;
            end == ResponseEnd::Complete
                && is_success
                && may_be_joined
                && !progress.is_pass_through
                && !state.is_incomplete()
        };
        drop(state);
        if is_reusable {
            tokio::time::sleep(window).await;
        }
    }
}

/// Reads a response to its end into the cache.
async fn copy(cached: &CachedResponse, respond: impl Future<Output = Response<Body>>, max_bytes: usize) -> ResponseEnd {
    let (parts, mut body) = respond.await.into_parts();
    let mut is_near_end = !is_event_stream(&parts.headers);
    cached.update(|progress| progress.head = Some((parts.status, parts.headers)));
    loop {
        if is_near_end {
            cached.has_reader().await;
        }
        cached.reader_caught_up().await;
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    let ends = ends_stream(&data);
                    is_near_end |= ends;
                    let end = match body.is_end_stream() {
                        true => PieceEnd::Response,
                        false if ends => PieceEnd::Events,
                        false => PieceEnd::None,
                    };
                    cached.push(&data, end, max_bytes);
                }
            }
            Some(Err(_)) => return ResponseEnd::Broken,
            None => return ResponseEnd::Complete,
        }
    }
}

impl EarlierCall {
    /// Responds to a retry; its span names the earlier call.
    pub(super) async fn respond_to(self, retry: &GatewayCall) -> Response<Body> {
        let (recording, Self(reader)) = (&retry.exchange.recording, self);
        let was_in_flight = reader.response().progress().end.is_none();
        let earlier = JoinedCall { span_id: reader.response().span_id, was_in_flight };
        recording.gateway(|facts| facts.joined = Some(earlier));
        let (parts, body) = reader.into_response(retry.error_format).await.into_parts();
        recording.response(ResponseHead {
            status: parts.status,
            version: Version::HTTP_11,
            headers: parts.headers.clone(),
        });
        let tee = TeeBody::new(body, recording.clone(), Direction::Response, response_error, |_| false);
        Response::from_parts(parts, tee.boxed_unsync())
    }
}

/// How long a retry waits until the hang-up of the call that it repeats is noticed: both arrive at the same time, on two
/// connections.
const HANG_UP_DELAY: Duration = Duration::from_millis(250);
/// The most responses in the cache.
const MAX_RESPONSES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::SpanId;
    use crate::trace::exchange::IdentitySource;
    use std::collections::HashSet;

    #[test]
    fn only_requests_with_the_same_url_and_body_are_the_same() {
        let source = IdentitySource::Url;
        let identity =
            Identity { rollout_id: "r".into(), attempt_id: "a".into(), sequence_id: 1, source, conflict: None };
        let digest_with = |target: &str, body: &str| {
            digest_of(&identity, &Route::parse(target).unwrap(), &body.as_bytes().to_vec()).unwrap()
        };
        let digest = |target: &str| digest_with(target, "{}");
        let targets = [
            "/v1beta/models/g:streamGenerateContent",
            "/v1beta/models/g:streamGenerateContent?alt=sse",
            "/v1/chat/completions",
            "/proxy/rollout/r/attempt/a/mode/train/openai/v1/chat/completions",
            "/proxy/rollout/r/attempt/a/mode/val/openai/v1/chat/completions",
        ];
        assert_eq!(targets.map(digest).into_iter().collect::<HashSet<_>>().len(), targets.len());
        assert_eq!(digest(targets[0]), digest(targets[0]));
        assert_ne!(digest(targets[2]), digest_with(targets[2], "{ }"));
    }

    #[test]
    fn the_cache_is_bounded_and_removes_a_response_without_a_scan() {
        let mut groups = Groups::default();
        let memory = Memory::new(0, std::env::temp_dir());
        let response = || CachedResponse::new(SpanId::from_random(1), 0, &memory, Arc::default());
        let request = |at: usize| {
            let mut request = RequestDigest::default();
            request[..8].copy_from_slice(&at.to_be_bytes());
            request
        };
        // Half of them are samples of one prompt.
        let added: Vec<_> = (0..MAX_RESPONSES)
            .map(|at| {
                let request = if at % 2 == 0 { request(0) } else { request(at) };
                (request, groups.add(request, response).unwrap().0)
            })
            .collect();
        assert!(groups.add(request(1), response).is_none());
        groups.remove(&added[0].0, added[0].1);
        assert_eq!(groups.add(request(0), response).unwrap().0, MAX_RESPONSES as u64 / 2, "samples are counted on");
        for (request, sample) in &added[1..] {
            groups.remove(request, *sample);
        }
        assert_eq!((groups.responses, groups.by_request.len()), (1, 1));
    }
}
