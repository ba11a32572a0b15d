//! An answer that may be read more than once: its pieces as they come, and whoever reads them.
//!
//! Nothing is kept beyond a limit of all answers together; what comes then is passed to its one reader and forgotten.

use crate::error::{ErrorKind, ProxyError};
use crate::trace::SpanId;
use crate::upstream::{Body, BodyError};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;

/// A call, and as much of its answer as has come.
pub(super) struct Entry {
    pub(super) span_id: SpanId,
    /// The agent's count of its tries, of the last that had this answer.
    pub(super) count: AtomicU32,
    said: Mutex<Said>,
    /// Counts every change of `said`.
    news: watch::Sender<u64>,
    pub(super) readers: watch::Sender<usize>,
    held: Arc<AtomicUsize>,
}

#[derive(Default)]
pub(super) struct Said {
    pub(super) head: Option<(StatusCode, HeaderMap)>,
    bytes: Pages,
    /// There was no room to keep it: it can't be joined any more.
    pub(super) is_passing: bool,
    pub(super) delivered: bool,
    pub(super) end: Option<End>,
}

/// Bytes that are added at one end and forgotten at the other. Whoever reads them gets copies: a piece of its own for each
/// small frame would take more room than what is in it.
#[derive(Default)]
struct Pages {
    /// All but the last are full.
    pages: VecDeque<Vec<u8>>,
    gone_pages: usize,
}

impl Pages {
    fn push(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.pages.back().is_none_or(|page| page.len() == PAGE_BYTES) {
                self.pages.push_back(Vec::with_capacity(PAGE_BYTES));
            }
            let Some(page) = self.pages.back_mut() else { return };
            let (now, later) = data.split_at(data.len().min(PAGE_BYTES - page.len()));
            page.extend_from_slice(now);
            data = later;
        }
    }

    /// What there is from an index on, as far as it is in one page.
    fn read(&self, from: usize) -> Option<Bytes> {
        let page = self.pages.get((from / PAGE_BYTES).checked_sub(self.gone_pages)?)?;
        let rest = page.get(from % PAGE_BYTES..).filter(|rest| !rest.is_empty())?;
        Some(Bytes::copy_from_slice(rest))
    }

    /// Forgets the pages before an index; gives how many bytes that were.
    fn forget(&mut self, before: usize) -> usize {
        let mut bytes = 0;
        while self.gone_pages < before / PAGE_BYTES
            && let Some(page) = self.pages.pop_front()
        {
            self.gone_pages += 1;
            bytes += page.len();
        }
        bytes
    }

    fn len(&self) -> usize {
        self.pages.iter().map(Vec::len).sum()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    Broken,
}

impl Entry {
    pub(super) fn new(span_id: SpanId, count: u32, held: Arc<AtomicUsize>) -> Self {
        let (news, readers) = (watch::Sender::new(0), watch::Sender::new(0));
        Self { span_id, count: AtomicU32::new(count), said: Mutex::default(), news, readers, held }
    }

    pub(super) fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn say(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.said());
        self.news.send_modify(|count| *count += 1);
    }

    /// Adds a piece of the answer. Beyond `max_bytes` of all answers it is only passed on.
    pub(super) fn push(&self, data: &[u8], max_bytes: usize) {
        let held = self.held.fetch_add(data.len(), Ordering::Relaxed) + data.len();
        self.say(|said| {
            said.is_passing |= held > max_bytes;
            said.bytes.push(data);
        });
    }

    /// Completes when somebody wants the answer.
    pub(super) async fn wanted(&self) {
        // The sender is ours.
        let _ = self.readers.subscribe().wait_for(|count| *count > 0).await;
    }

    /// Completes when nobody has wanted the answer for so long.
    pub(super) async fn abandoned(&self, window: Duration) {
        let mut readers = self.readers.subscribe();
        loop {
            // The sender is ours.
            let _ = readers.wait_for(|count| *count == 0).await;
            let window = if self.said().is_passing { Duration::ZERO } else { window };
            if tokio::time::timeout(window, readers.wait_for(|count| *count > 0)).await.is_err() {
                return;
            }
        }
    }

    /// Completes when the only reader has read most of what was kept for it.
    pub(super) async fn read_by_its_reader(&self) {
        let mut news = self.news.subscribe();
        while {
            let said = self.said();
            said.is_passing && said.bytes.len() > MAX_AHEAD_BYTES && *self.readers.borrow() == 1
        } {
            let _ = news.changed().await;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let said = self.said.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.held.fetch_sub(said.bytes.len(), Ordering::Relaxed);
    }
}

/// Reads an answer from its beginning, however much of it is there.
pub(super) struct Reader {
    entry: Arc<Entry>,
    next: usize,
    news: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Reader {
    pub(super) fn of(entry: Arc<Entry>) -> Self {
        entry.readers.send_modify(|count| *count += 1);
        Self { entry, next: 0, news: None }
    }

    pub(super) async fn response(self) -> Response<Body> {
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

    /// The next piece, if it is there.
    fn take(&mut self) -> (Option<Bytes>, Option<End>) {
        let mut said = self.entry.said();
        let Some(piece) = said.bytes.read(self.next) else {
            said.delivered |= said.end == Some(End::Whole);
            return (None, said.end);
        };
        self.next += piece.len();
        if said.is_passing && *self.entry.readers.borrow() == 1 {
            // Nobody else will come for it.
            let forgotten = said.bytes.forget(self.next);
            self.entry.held.fetch_sub(forgotten, Ordering::Relaxed);
            drop(said);
            self.entry.say(|_| ());
        }
        (Some(piece), None)
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
            match this.take() {
                (Some(frame), _) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
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
    ProxyError::new(ErrorKind::ConnectionTerminated, "", "the answer broke off")
}

/// What is made room for at once.
const PAGE_BYTES: usize = 8 * 1024;
/// What waits for a slow reader whose answer is not kept.
const MAX_AHEAD_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pages_give_back_what_was_added(pieces in prop::collection::vec((0..20_000_usize, any::<bool>()), 0..12)) {
            let (mut pages, mut whole, mut read) = (Pages::default(), Vec::new(), Vec::new());
            for (length, reads) in pieces {
                let piece: Vec<u8> = (0..length).map(|at| (at + whole.len()) as u8).collect();
                pages.push(&piece);
                whole.extend_from_slice(&piece);
                while let Some(piece) = pages.read(read.len()).filter(|_| reads) {
                    read.extend_from_slice(&piece);
                    pages.forget(read.len());
                }
            }
            while let Some(piece) = pages.read(read.len()) {
                read.extend_from_slice(&piece);
            }
            prop_assert_eq!(read, whole);
        }
    }
}
