//! Retries of agents: a call that is made again while its answer is on the way gets that answer, and so does one that is
//! made again shortly after. A retry never samples twice.
//!
//! A call that may be joined runs in a task of its own, so that it goes on for a while when its agent hangs up.

use super::call::Call;
use super::settings::{GatewaySettings, Join};
use crate::capture::{Direction, TeeBody};
use crate::error::{ErrorKind, ProxyError};
use crate::forward::response_error;
use crate::trace::SpanId;
use crate::trace::exchange::ResponseHead;
use crate::upstream::{Body, BodyError};
use aws_lc_rs::digest;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;

type Key = [u8; 32];

/// Answers that may be given again. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    by_call: HashMap<Key, Vec<Arc<Entry>>>,
    // Those that are over, the oldest first.
    over: VecDeque<(Key, Arc<Entry>)>,
    bytes: usize,
}

/// A call, and as much of its answer as has come.
struct Entry {
    span_id: SpanId,
    said: Mutex<Said>,
    // Counts every change of `said`.
    news: watch::Sender<u64>,
    readers: watch::Sender<usize>,
}

#[derive(Default)]
struct Said {
    head: Option<(StatusCode, HeaderMap)>,
    frames: Vec<Bytes>,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

/// What a call is.
pub(super) enum Claim {
    /// A retry of this one.
    Joins(Joined),
    /// One that may be retried.
    First(Publisher),
    /// One whose agent would not say if it were a retry.
    Alone,
}

/// The call that another is a retry of.
pub(super) struct Joined(Arc<Entry>);

/// Runs a call that may be retried.
pub(super) struct Publisher {
    answers: Answers,
    key: Key,
    entry: Arc<Entry>,
    window: Duration,
    most_bytes: usize,
}

impl Answers {
    /// What a call is, by its body and by what its agent says.
    pub(super) fn claim(&self, settings: &GatewaySettings, call: &Call) -> Claim {
        let count = call.headers.get(RETRY_COUNT).and_then(|count| count.to_str().ok()?.trim().parse::<u32>().ok());
        let is_retry = match (settings.join, count) {
            (Join::Off, _) | (Join::Header, None) => return Claim::Alone,
            (Join::Header, Some(count)) => count > 0,
            (Join::Digest, _) => true,
        };
        let key = key_of(call);
        let mut kept = self.lock();
        let entries = kept.by_call.entry(key).or_default();
        if let Some(first) = is_retry.then(|| best(entries)).flatten() {
            return Claim::Joins(Joined(first));
        }
        let entry = Arc::new(Entry {
            span_id: call.begun.trace.span_id,
            said: Mutex::default(),
            news: watch::Sender::new(0),
            readers: watch::Sender::new(0),
        });
        entries.push(Arc::clone(&entry));
        let (window, most_bytes) = (settings.join_window, settings.join_memory_bytes);
        Claim::First(Publisher { answers: self.clone(), key, entry, window, most_bytes })
    }

    fn forget(&self, key: &Key, entry: &Arc<Entry>) {
        let mut kept = self.lock();
        if let Some(entries) = kept.by_call.get_mut(key) {
            entries.retain(|known| !Arc::ptr_eq(known, entry));
            if entries.is_empty() {
                kept.by_call.remove(key);
            }
        }
        if let Some(at) = kept.over.iter().position(|(_, known)| Arc::ptr_eq(known, entry)) {
            kept.over.remove(at);
            kept.bytes -= entry.bytes();
        }
    }

    /// An answer is whole: it is kept, and the oldest go if there are too many.
    fn keep(&self, key: Key, entry: &Arc<Entry>, most_bytes: usize) {
        let mut kept = self.lock();
        kept.bytes += entry.bytes();
        kept.over.push_back((key, Arc::clone(entry)));
        let mut gone = Vec::new();
        while kept.bytes > most_bytes
            && let Some((key, oldest)) = kept.over.pop_front()
        {
            kept.bytes -= oldest.bytes();
            gone.push((key, oldest));
        }
        drop(kept);
        gone.iter().for_each(|(key, entry)| self.forget(key, entry));
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The call that a retry most likely means: one whose agent hung up, then one that is over, then one on its way.
fn best(entries: &[Arc<Entry>]) -> Option<Arc<Entry>> {
    let left = entries.iter().find(|entry| entry.end().is_none() && *entry.readers.borrow() == 0);
    let over = || entries.iter().find(|entry| entry.end() == Some(End::Whole));
    let on_its_way = || entries.iter().find(|entry| entry.end().is_none());
    left.or_else(over).or_else(on_its_way).cloned()
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

impl Entry {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> Option<End> {
        self.said().end
    }

    fn bytes(&self) -> usize {
        self.said().frames.iter().map(Bytes::len).sum()
    }

    fn say(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.said());
        self.news.send_modify(|count| *count += 1);
    }

    /// Completes when nobody has wanted the answer for so long.
    async fn abandoned(&self, window: Duration) {
        let mut readers = self.readers.subscribe();
        loop {
            // The sender is ours.
            let _ = readers.wait_for(|count| *count == 0).await;
            let back = tokio::time::timeout(window, readers.wait_for(|count| *count > 0)).await;
            if back.is_err() {
                return;
            }
        }
    }
}

impl Publisher {
    /// Runs a call to its end, and gives its answer.
    pub(super) async fn run(self, answering: impl Future<Output = Response<Body>> + Send + 'static) -> Response<Body> {
        let reader = Reader::of(Arc::clone(&self.entry));
        tokio::spawn(self.publish(answering));
        reader.response().await
    }

    async fn publish(self, answering: impl Future<Output = Response<Body>> + Send + 'static) {
        let Self { answers, key, entry, window, most_bytes } = self;
        let whole = tokio::select! {
            whole = fill(&entry, answering) => whole,
            () = entry.abandoned(window) => false,
        };
        entry.say(|said| said.end = Some(if whole { End::Whole } else { End::Broken }));
        let is_success = entry.said().head.as_ref().is_some_and(|(status, _)| status.is_success());
        if whole && is_success && !window.is_zero() {
            answers.keep(key, &entry, most_bytes);
            tokio::time::sleep(window).await;
        }
        answers.forget(&key, &entry);
    }
}

/// Takes an answer to its end. True: it was whole.
async fn fill(entry: &Entry, answering: impl Future<Output = Response<Body>>) -> bool {
    let (parts, mut body) = answering.await.into_parts();
    entry.say(|said| said.head = Some((parts.status, parts.headers)));
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    entry.say(|said| said.frames.push(data));
                }
            }
            Err(_) => return false,
        }
    }
    true
}

impl Joined {
    /// The first call's answer as that of its retry, whose own span says so.
    pub(super) async fn answer_to(self, call: &Call) -> Response<Body> {
        let recording = &call.begun.recording;
        recording.gateway(|facts| facts.joined = Some((self.0.span_id, self.0.end().is_none())));
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

/// Reads an answer from its beginning, however much of it is there.
struct Reader {
    entry: Arc<Entry>,
    next: usize,
    news: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Reader {
    fn of(entry: Arc<Entry>) -> Self {
        entry.readers.send_modify(|count| *count += 1);
        Self { entry, next: 0, news: None }
    }

    async fn response(self) -> Response<Body> {
        let mut news = self.entry.news.subscribe();
        loop {
            let said = {
                let said = self.entry.said();
                (said.head.clone(), said.end)
            };
            match said {
                (Some((status, headers)), _) => {
                    let mut response = Response::new(self.boxed_unsync());
                    (*response.status_mut(), *response.headers_mut()) = (status, headers);
                    return response;
                }
                (None, Some(_)) => return crate::forward::reply::error(&broken()),
                (None, None) => drop(news.changed().await),
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.entry.readers.send_modify(|count| *count -= 1);
    }
}

impl HttpBody for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            // Subscribed before looking: what comes in between is news.
            let mut coming = this.entry.news.subscribe();
            let (frame, end) = {
                let said = this.entry.said();
                (said.frames.get(this.next).cloned(), said.end)
            };
            match (frame, end) {
                (Some(frame), _) => {
                    this.next += 1;
                    return Poll::Ready(Some(Ok(Frame::data(frame))));
                }
                (None, Some(End::Whole)) => return Poll::Ready(None),
                (None, Some(End::Broken)) => return Poll::Ready(Some(Err(broken().into()))),
                (None, None) => {
                    let news = this.news.get_or_insert_with(|| Box::pin(async move { drop(coming.changed().await) }));
                    ready!(news.as_mut().poll(cx));
                    this.news = None;
                }
            }
        }
    }
}

fn broken() -> ProxyError {
    ProxyError::new(ErrorKind::ConnectionTerminated, "", "the answer of the call that this one repeats broke off")
}

/// How often the SDKs of OpenAI and Anthropic have tried.
const RETRY_COUNT: &str = "x-stainless-retry-count";
