//! A response that several requests may read: what has arrived so far, and its readers.
//!
//! Bound: all cached responses together hold at most `max_bytes`, and [`MAX_AHEAD_BYTES`] more for each that is beyond it.
//! Such a response is passed on to its reader and forgotten; a retry can no longer get it.

use super::error_response::ErrorFormat;
use crate::error::{ErrorKind, ProxyError};
use crate::trace::SpanId;
use crate::upstream::{Body, BodyError};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
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
    /// Bytes of all cached responses together.
    cached_bytes: Arc<AtomicUsize>,
}

#[derive(Default)]
pub(super) struct Progress {
    pub(super) head: Option<(StatusCode, HeaderMap)>,
    bytes: PagedBuffer,
    /// The cache is full: bytes are dropped once they are read, and no retry can get the response.
    pub(super) is_pass_through: bool,
    /// A reader has read the response to its end.
    pub(super) was_delivered: bool,
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

/// Bytes that are appended at one end and dropped at the other, in pages: an allocation for each small frame would take more
/// memory than its content. Reads copy.
#[derive(Default)]
struct PagedBuffer {
    /// All but the last are full.
    pages: VecDeque<Vec<u8>>,
    dropped_pages: usize,
}

impl PagedBuffer {
    fn push(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.pages.back().is_none_or(|page| page.len() == PAGE_BYTES) {
                self.pages.push_back(Vec::new());
            }
            let Some(page) = self.pages.back_mut() else { return };
            let (fits, rest) = data.split_at(data.len().min(PAGE_BYTES - page.len()));
            page.extend_from_slice(fits);
            data = rest;
        }
    }

    /// The bytes from an offset to the end of its page; `None` if there are none yet.
    fn read(&self, offset: usize) -> Option<Bytes> {
        let page = self.pages.get((offset / PAGE_BYTES).checked_sub(self.dropped_pages)?)?;
        let rest = page.get(offset % PAGE_BYTES..).filter(|rest| !rest.is_empty())?;
        Some(Bytes::copy_from_slice(rest))
    }

    /// Drops the pages before an offset; returns how many bytes they held.
    fn drop_before(&mut self, offset: usize) -> usize {
        let mut dropped = 0;
        while self.dropped_pages < offset / PAGE_BYTES
            && let Some(page) = self.pages.pop_front()
        {
            self.dropped_pages += 1;
            dropped += page.len();
        }
        dropped
    }

    fn len(&self) -> usize {
        self.pages.iter().map(Vec::len).sum()
    }
}

impl CachedResponse {
    pub(super) fn new(span_id: SpanId, retry_count: u32, cached_bytes: Arc<AtomicUsize>) -> Self {
        Self {
            span_id,
            retry_count: AtomicU32::new(retry_count),
            progress: Mutex::default(),
            changes: watch::Sender::new(0),
            readers: watch::Sender::new(0),
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

    /// Appends a piece of the body. If all responses then hold more than `max_bytes`, this one is only passed through.
    pub(super) fn push(&self, data: &[u8], max_bytes: usize) {
        let cached_bytes = self.cached_bytes.fetch_add(data.len(), Ordering::Relaxed) + data.len();
        self.update(|progress| {
            progress.is_pass_through |= cached_bytes > max_bytes;
            progress.bytes.push(data);
        });
    }

    /// Observes the number of readers.
    pub(super) fn readers(&self) -> watch::Receiver<usize> {
        self.readers.subscribe()
    }

    pub(super) fn has_readers(&self) -> bool {
        *self.readers.borrow() > 0
    }

    /// Completes when there is a reader.
    pub(super) async fn has_reader(&self) {
        // The sender is ours.
        let _ = self.readers().wait_for(|count| *count > 0).await;
    }

    /// Completes when there has been no reader for a whole `window`; at once if no retry can get the response.
    pub(super) async fn abandoned(&self, window: Duration) {
        let mut readers = self.readers();
        loop {
            // The sender is ours.
            let _ = readers.wait_for(|count| *count == 0).await;
            let window = if self.progress().is_pass_through { Duration::ZERO } else { window };
            if tokio::time::timeout(window, readers.wait_for(|count| *count > 0)).await.is_err() {
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
    /// The reader for the call whose response it is.
    pub(super) fn new(response: Arc<CachedResponse>) -> Self {
        response.readers.send_modify(|count| *count += 1);
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
        let Some(piece) = progress.bytes.read(self.offset) else {
            progress.was_delivered |= progress.end == Some(ResponseEnd::Complete);
            return (None, progress.end);
        };
        self.offset += piece.len();
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
}

fn broken() -> ProxyError {
    ProxyError::new(ErrorKind::ConnectionTerminated, "", "the response broke off before its end")
}

/// The most that a page holds. It grows to that by doubling, so that short responses take little memory.
const PAGE_BYTES: usize = 8 * 1024;
/// What may wait for the reader of a response that is passed through.
const MAX_AHEAD_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::api::ErrorShape;
    use proptest::prelude::*;

    fn response() -> Arc<CachedResponse> {
        Arc::new(CachedResponse::new(SpanId::from_random(1), 0, Arc::default()))
    }

    #[tokio::test]
    async fn a_retry_never_reads_a_response_whose_beginning_is_gone() {
        let response = response();
        response.update(|progress| progress.head = Some((StatusCode::OK, HeaderMap::new())));
        let mut first = ResponseReader::new(Arc::clone(&response));
        let retry = ResponseReader::for_retry(Arc::clone(&response)).unwrap();
        let text = vec![b'x'; 3 * PAGE_BYTES];
        response.push(&text, 1);
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

    proptest! {
        #[test]
        fn a_buffer_returns_what_was_added(pieces in prop::collection::vec((0..20_000_usize, any::<bool>()), 0..12)) {
            let (mut buffer, mut written, mut read) = (PagedBuffer::default(), Vec::new(), Vec::new());
            for (length, reads) in pieces {
                let piece: Vec<u8> = (0..length).map(|at| (at + written.len()) as u8).collect();
                buffer.push(&piece);
                written.extend_from_slice(&piece);
                while let Some(piece) = buffer.read(read.len()).filter(|_| reads) {
                    read.extend_from_slice(&piece);
                    buffer.drop_before(read.len());
                }
            }
            while let Some(piece) = buffer.read(read.len()) {
                read.extend_from_slice(&piece);
            }
            prop_assert_eq!(read, written);
        }
    }
}
