//! A response that several requests may read: what has arrived so far, and its readers.
//!
//! Bound: all cached responses together hold at most `max_bytes`, in memory as far as the budget allows, else on disk. A
//! response beyond that is only passed through to its reader, which may be [`MAX_AHEAD_BYTES`] behind; a retry can no longer
//! get it.

use super::cached_bytes::CachedBytes;
use super::error_response::ErrorFormat;
use crate::capture::Memory;
use crate::error::{ErrorKind, ProxyError};
use crate::trace::SpanId;
use crate::upstream::{Body, BodyError};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;

/// The response of a call, as far as it has arrived.
pub(super) struct CachedResponse {
    /// The span of the call.
    pub(super) span_id: SpanId,
    /// The agent's retry count of the last request that got this response.
    pub(super) retry_count: AtomicU32,
    progress: Mutex<Progress>,
    /// Incremented with every change of `progress`.
    changes: watch::Sender<u64>,
    readers: watch::Sender<usize>,
    /// True once there was a reader. If there is none now, the agent has disconnected.
    had_reader: AtomicBool,
    /// Bytes of all cached responses together.
    cached_bytes: Arc<AtomicUsize>,
}

pub(super) struct Progress {
    pub(super) head: Option<(StatusCode, HeaderMap)>,
    bytes: CachedBytes,
    /// True once the cache was full: bytes are dropped as they are read, and no retry can get the response.
    pub(super) is_pass_through: bool,
    /// A reader has read the response to its end, or its last event: clients need not read on.
    pub(super) was_delivered: bool,
    /// A reader has read a part of the response.
    pub(super) was_begun: bool,
    /// Where the last event of a stream ends; `None` until it has come.
    events_end: Option<usize>,
    /// How the response ended; `None` while it is still arriving.
    pub(super) end: Option<ResponseEnd>,
}

impl Progress {
    /// False once no retry can get the response. That never changes back.
    pub(super) fn is_joinable(&self) -> bool {
        !self.is_pass_through && self.end != Some(ResponseEnd::Broken)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponseEnd {
    Complete,
    Broken,
}

/// What ends with a piece.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceEnd {
    /// More is expected.
    None,
    /// The events of a stream; its body has not ended yet.
    Events,
    /// The whole response, with its body.
    Response,
}

impl CachedResponse {
    pub(super) fn new(span_id: SpanId, retry_count: u32, memory: &Memory, cached_bytes: Arc<AtomicUsize>) -> Self {
        let bytes = CachedBytes::new(memory);
        let progress = Progress {
            head: None,
            bytes,
            is_pass_through: false,
            was_delivered: false,
            was_begun: false,
            events_end: None,
            end: None,
        };
        Self {
            span_id,
            retry_count: AtomicU32::new(retry_count),
            progress: Mutex::new(progress),
            changes: watch::Sender::new(0),
            readers: watch::Sender::new(0),
            had_reader: AtomicBool::new(false),
            cached_bytes,
        }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the progress and wakes the readers.
    pub(super) fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress());
        self.changes.send_modify(|count| *count += 1);
    }

    /// Appends a piece of the body. If all responses then hold more than `max_bytes`, or neither memory nor disk has room, this
    /// one is only passed through from here on. `end`, if the piece is the last one, is told together with it: a client that
    /// has read the last byte may try again at once.
    pub(super) fn push(&self, data: &[u8], end: PieceEnd, max_bytes: usize) {
        let cached_bytes = self.cached_bytes.fetch_add(data.len(), Ordering::Relaxed) + data.len();
        self.update(|progress| {
            progress.is_pass_through |= cached_bytes > max_bytes;
            if progress.is_pass_through || progress.bytes.keep(data).is_err() {
                progress.is_pass_through = true;
                progress.bytes.pass(data);
            }
            match end {
                PieceEnd::None => {}
                PieceEnd::Events => progress.events_end = Some(progress.bytes.end()),
                PieceEnd::Response => progress.end = Some(ResponseEnd::Complete),
            }
        });
    }

    /// Observes the number of readers.
    pub(super) fn readers(&self) -> watch::Receiver<usize> {
        self.readers.subscribe()
    }

    pub(super) fn has_readers(&self) -> bool {
        *self.readers.borrow() > 0
    }

    /// True if the agent disconnected before it had the whole response.
    pub(super) fn was_left(&self) -> bool {
        self.had_reader.load(Ordering::Relaxed) && !self.has_readers() && !self.progress().was_delivered
    }

    /// Completes when there is a reader.
    pub(super) async fn has_reader(&self) {
        // The sender is ours.
        let _ = self.readers().wait_for(|count| *count > 0).await;
    }

    /// Completes when there has been no reader for as long as `window` says; at once if no retry can get the response.
    pub(super) async fn abandoned(&self, window: impl Fn(&Progress) -> Duration) {
        let mut readers = self.readers();
        loop {
            // The sender is ours.
            let _ = readers.wait_for(|count| *count == 0).await;
            let wait = {
                let progress = self.progress();
                if progress.is_pass_through { Duration::ZERO } else { window(&progress) }
            };
            if tokio::time::timeout(wait, readers.wait_for(|count| *count > 0)).await.is_err() {
                return;
            }
        }
    }

    /// Backpressure while the response is passed through: completes when its only reader is less than [`MAX_AHEAD_BYTES`]
    /// behind.
    pub(super) async fn reader_caught_up(&self) {
        let mut changes = self.changes.subscribe();
        while {
            let progress = self.progress();
            progress.is_pass_through && progress.bytes.len() > MAX_AHEAD_BYTES && *self.readers.borrow() == 1
        } {
            let _ = changes.changed().await;
        }
    }
}

impl Drop for CachedResponse {
    fn drop(&mut self) {
        let progress = self.progress.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.cached_bytes.fetch_sub(progress.bytes.len(), Ordering::Relaxed);
    }
}

/// Reads a response from its beginning, while it arrives or later.
pub(super) struct ResponseReader {
    response: Arc<CachedResponse>,
    offset: usize,
    change: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl ResponseReader {
    /// A reader for the call that the response belongs to.
    pub(super) fn new(response: Arc<CachedResponse>) -> Self {
        response.readers.send_modify(|count| *count += 1);
        response.had_reader.store(true, Ordering::Relaxed);
        Self { response, offset: 0, change: None }
    }

    /// A reader for a retry. `None`: no retry can get the response.
    pub(super) fn for_retry(response: Arc<CachedResponse>) -> Option<Self> {
        // Counted while the progress is locked: no page is dropped between the check and the first read.
        let progress = response.progress();
        let reader = progress.is_joinable().then(|| Self::new(Arc::clone(&response)));
        drop(progress);
        reader
    }

    pub(super) fn response(&self) -> &CachedResponse {
        &self.response
    }

    /// Waits for the head; the body is read as it arrives. If the response ends without a head, the response is an error
    /// in this format.
    pub(super) async fn into_response(self, error_format: ErrorFormat) -> Response<Body> {
        let mut changes = self.response.changes.subscribe();
        loop {
            let (head, end) = {
                let progress = self.response.progress();
                (progress.head.clone(), progress.end)
            };
            match (head, end) {
                (Some((status, headers)), _) => {
                    let mut response = Response::new(self.boxed_unsync());
                    (*response.status_mut(), *response.headers_mut()) = (status, headers);
                    return response;
                }
                (None, Some(_)) => return error_format.response(&broken()),
                (None, None) => drop(changes.changed().await),
            }
        }
    }

    /// The next piece that has arrived; if there is none, how the response ended.
    fn next_piece(&mut self) -> (Option<Bytes>, Option<ResponseEnd>) {
        let mut progress = self.response.progress();
        let piece = match progress.bytes.read(self.offset) {
            Ok(Some(piece)) => piece,
            Ok(None) => {
                progress.was_delivered |= progress.end == Some(ResponseEnd::Complete);
                return (None, progress.end);
            }
            // The disk does not give it back.
            Err(_) => return (None, Some(ResponseEnd::Broken)),
        };
        self.offset += piece.len();
        // The HTTP library does not ask for more than a declared length.
        progress.was_delivered |= progress.end == Some(ResponseEnd::Complete) && self.offset == progress.bytes.end();
        progress.was_delivered |= progress.events_end.is_some_and(|end| self.offset >= end);
        progress.was_begun = true;
        if progress.is_pass_through && *self.response.readers.borrow() == 1 {
            let dropped = progress.bytes.drop_before(self.offset);
            self.response.cached_bytes.fetch_sub(dropped, Ordering::Relaxed);
            drop(progress);
            // Wakes `reader_caught_up`.
            self.response.update(|_| ());
        }
        (Some(piece), None)
    }
}

impl Drop for ResponseReader {
    fn drop(&mut self) {
        self.response.readers.send_modify(|count| *count -= 1);
    }
}

impl HttpBody for ResponseReader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            // Subscribed before the progress is read, so that no change is missed.
            let mut changes = this.response.changes.subscribe();
            match this.next_piece() {
                (Some(piece), _) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                (None, Some(ResponseEnd::Complete)) => return Poll::Ready(None),
                (None, Some(ResponseEnd::Broken)) => return Poll::Ready(Some(Err(broken().into()))),
                (None, None) => {
                    let change =
                        this.change.get_or_insert_with(|| Box::pin(async move { drop(changes.changed().await) }));
                    ready!(change.as_mut().poll(cx));
                    this.change = None;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let progress = self.response.progress();
        progress.end == Some(ResponseEnd::Complete) && self.offset == progress.bytes.end()
    }
}

fn broken() -> ProxyError {
    ProxyError::new(ErrorKind::ConnectionTerminated, "", "the response broke off before its end")
}

/// The bytes of a response that is passed through which may wait for its reader.
const MAX_AHEAD_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::api::ErrorShape;

    fn response() -> Arc<CachedResponse> {
        Arc::new(CachedResponse::new(
            SpanId::from_random(1),
            0,
            &Memory::new(1 << 20, std::env::temp_dir()),
            Arc::default(),
        ))
    }

    #[tokio::test]
    async fn a_retry_never_reads_a_response_whose_beginning_is_gone() {
        let response = response();
        response.update(|progress| progress.head = Some((StatusCode::OK, HeaderMap::new())));
        let mut first = ResponseReader::new(Arc::clone(&response));
        let retry = ResponseReader::for_retry(Arc::clone(&response)).unwrap();
        let text = vec![b'x'; 3 * MAX_AHEAD_BYTES];
        response.push(&text, PieceEnd::None, 1);
        while first.next_piece().0.is_some() {}
        assert!(ResponseReader::for_retry(Arc::clone(&response)).is_none(), "the cache is full");
        response.update(|progress| progress.end = Some(ResponseEnd::Complete));
        drop(first);
        let retried = retry.into_response(ErrorFormat::Detail).await.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(retried, text);
    }

    #[tokio::test]
    async fn a_response_that_ends_without_a_head_is_an_error_in_the_format_of_the_api() {
        let response = response();
        response.update(|progress| progress.end = Some(ResponseEnd::Broken));
        let reader = ResponseReader::new(response);
        let reply = reader.into_response(ErrorFormat::Api(ErrorShape::Anthropic)).await;
        assert_eq!(reply.status(), StatusCode::BAD_GATEWAY);
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["type"], "error");
    }
}
