//! A socket that judges HTTP/1 framing before the HTTP library reads the bytes.
//!
//! The library repairs ambiguous messages silently; behind this guard it never sees them. A request with a faulty head
//! is replaced by an empty request, and the fault is reported through the [`FramingGuard`]. A faulty response becomes an
//! error of the socket. Bytes behind a request for another protocol are held until the response decides which protocol they
//! belong to (CVE-2026-2833). The guard holds at most one message head plus one read.

use super::io::{BoxedIo, flush_through, write_through};
use crate::error::FramingFault;
use crate::wire::framing::head::ResponseTo;
use crate::wire::framing::target::{RawTarget, RewrittenHead};
use crate::wire::framing::{Next, Scanner};
use bytes::{Buf, BytesMut};
use http::Method;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

/// The handle of a [`GuardedIo`] for the code that answers or sends its messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct FramingGuard(Arc<Mutex<GuardState>>);

/// The protocol of a connection's bytes after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterResponse {
    /// HTTP goes on.
    Http,
    /// The response switched to another protocol, or opened a tunnel.
    OtherProtocol,
}

#[derive(Debug, Default)]
struct GuardState {
    // Requests handed to the answering code, and those of them that have a response.
    begun: u64,
    responded: u64,
    // The number of the replaced head, counted from 1, and its fault.
    fault: Option<(u64, FramingFault)>,
    // The number of the last request with a response, and what follows that response.
    decided: Option<(u64, AfterResponse)>,
    // The targets of requests that came in another form, by the numbers of the requests.
    targets: VecDeque<(u64, RawTarget)>,
    // What the next response answers.
    response_to: ResponseTo,
    // True once that response has ended with TLS, without close_notify.
    cut: Arc<AtomicBool>,
    // The reason phrase of that response, if the HTTP library would drop it.
    reason: Option<Vec<u8>>,
    waker: Option<Waker>,
}

impl FramingGuard {
    /// Returns the fault of the next request, or `None` if it is sound. Call it once for each request, in order.
    pub(crate) fn begin_request(&self) -> Option<FramingFault> {
        let mut state = self.lock();
        state.begun += 1;
        let number = state.begun;
        state.fault.filter(|(faulty, _)| *faulty == number).map(|(_, fault)| fault)
    }

    /// Takes the target of the request begun last, if the HTTP library got it in another form.
    pub(crate) fn take_target(&self) -> Option<RawTarget> {
        let mut state = self.lock();
        let begun = state.begun;
        state.targets.pop_front_if(|(number, _)| *number == begun).map(|(_, target)| target)
    }

    /// Reports that the request begun last has a response, and the protocol of the bytes behind the request.
    pub(crate) fn responded(&self, after: AfterResponse) {
        let mut state = self.lock();
        state.responded = state.begun;
        state.decided = Some((state.begun, after));
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Sets the method of the request that the next response answers: a response to HEAD has no body.
    pub(crate) fn expect_response_to(&self, method: &Method) {
        let mut state = self.lock();
        state.response_to = if method == Method::HEAD { ResponseTo::Head } else { ResponseTo::Other };
        state.reason = None;
        state.cut = Arc::default();
    }

    /// True once the response expected last has ended with TLS, without close_notify.
    pub(crate) fn cut(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.lock().cut)
    }

    /// Takes the reason phrase of the last response, if it has bytes beyond ASCII.
    pub(crate) fn take_reason(&self) -> Option<Vec<u8>> {
        self.lock().reason.take()
    }

    /// True while one of the first `heads` requests has no response yet.
    fn owes_a_response(&self, heads: u64) -> bool {
        self.lock().responded < heads
    }

    fn poll_decided(&self, number: u64, cx: &Context<'_>) -> Poll<AfterResponse> {
        let mut state = self.lock();
        match state.decided {
            Some((decided, after)) if decided == number => Poll::Ready(after),
            _ => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn response_to(&self) -> ResponseTo {
        self.lock().response_to
    }

    fn report(&self, number: u64, fault: FramingFault) {
        self.lock().fault = Some((number, fault));
    }

    fn lock(&self) -> MutexGuard<'_, GuardState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that judges what is read from it. Writes pass unchanged.
pub(crate) struct GuardedIo {
    inner: BoxedIo,
    scanner: Scanner,
    guard: FramingGuard,
    direction: Direction,
    // Read and not passed yet; the first `ready` bytes may pass.
    held: BytesMut,
    ready: usize,
    // True while the response to the last head must decide the protocol of the held bytes.
    undecided: bool,
    end: Option<End>,
    // Runs from the end of the socket until the end is reported.
    grace: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Requests,
    Responses,
}

enum End {
    // Nothing more is read, and the socket looks open: the HTTP library would drop the response after an end.
    Silent,
    Fault(FramingFault),
}

impl GuardedIo {
    /// Guards a socket that requests come from.
    pub(crate) fn of_requests(inner: BoxedIo) -> (Self, FramingGuard) {
        Self::new(inner, Scanner::of_requests(), Direction::Requests)
    }

    /// Guards a socket that responses come from.
    pub(crate) fn of_responses(inner: BoxedIo) -> (Self, FramingGuard) {
        Self::new(inner, Scanner::of_responses(), Direction::Responses)
    }

    fn new(inner: BoxedIo, scanner: Scanner, direction: Direction) -> (Self, FramingGuard) {
        let guard = FramingGuard::default();
        let io = Self {
            inner,
            scanner,
            guard: guard.clone(),
            direction,
            held: BytesMut::new(),
            ready: 0,
            undecided: false,
            end: None,
            grace: None,
        };
        (io, guard)
    }

    /// Reports the end of the socket. A client may close its sending side and still wait for a response (RFC 9112 §9.6),
    /// but most that close have gone: the end is reported after a grace period, which is longer for a client that
    /// announced its last request.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let last = self.scanner.is_finished();
        if self.direction == Direction::Responses || !(last || self.guard.owes_a_response(self.scanner.heads())) {
            return Poll::Ready(Ok(()));
        }
        let period = if last { GRACE_AFTER_LAST_REQUEST } else { GRACE };
        let grace = self.grace.get_or_insert_with(|| Box::pin(tokio::time::sleep(period)));
        grace.as_mut().poll(cx).map(|()| Ok(()))
    }

    /// Acts on what follows the bytes that may pass.
    fn follow(&mut self, next: Next) {
        match next {
            Next::More => {}
            Next::Rewritten(length, RewrittenHead { head, target }) => {
                self.guard.lock().targets.push_back((self.scanner.heads(), target));
                let rest = self.held.split_off(self.ready + length);
                self.held.truncate(self.ready);
                self.held.extend_from_slice(&head);
                self.ready = self.held.len();
                self.held.extend_from_slice(&rest);
                self.judge_held();
            }
            // A response decides by itself; the bytes that came with it may pass.
            Next::Switch if self.direction == Direction::Responses => {
                self.scanner.switched();
                self.judge_held();
            }
            Next::Switch => self.undecided = true,
            Next::BadHead(fault) if self.direction == Direction::Requests => {
                self.guard.report(self.scanner.heads(), fault);
                self.held.truncate(self.ready);
                self.held.extend_from_slice(REPLACEMENT);
                self.ready = self.held.len();
                self.end = Some(End::Silent);
            }
            Next::BadHead(fault) | Next::BadBody(fault) => {
                self.held.truncate(self.ready);
                self.end = Some(End::Fault(fault));
            }
        }
    }

    /// Judges the held bytes that were not found sound yet.
    fn judge_held(&mut self) {
        let scan = self.scanner.scan(&self.held[self.ready..], self.guard.response_to());
        self.ready += scan.pass;
        self.report_reason();
        self.follow(scan.next);
    }

    fn report_reason(&mut self) {
        if let Some(reason) = self.scanner.take_reason() {
            self.guard.lock().reason = Some(reason);
        }
    }

    fn decided(&mut self, after: AfterResponse) {
        self.undecided = false;
        match after {
            AfterResponse::OtherProtocol => self.scanner.switched(),
            AfterResponse::Http => self.scanner.not_switched(),
        }
    }

    /// Reads from the socket. Many servers end TLS without close_notify, and clients take that for the end of a response
    /// without a length. So it is here, but marked.
    fn poll_inner(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.inner).poll_read(cx, buf)) {
            Err(error)
                if error.kind() == io::ErrorKind::UnexpectedEof
                    && self.direction == Direction::Responses
                    && self.scanner.is_until_close() =>
            {
                self.guard.cut().store(true, Ordering::Relaxed);
                Poll::Ready(Ok(()))
            }
            read => Poll::Ready(read),
        }
    }

    /// Reads into `buf` and judges the bytes there, so that sound bytes are not copied. Ready(false) at the socket's end.
    fn poll_fresh(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        if buf.remaining() > READ_BYTES {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(READ_BYTES));
            ready!(self.poll_inner(cx, &mut part))?;
            let read = part.filled().len();
            buf.advance(read);
        } else {
            ready!(self.poll_inner(cx, buf))?;
        }
        let fresh = &buf.filled()[before..];
        if fresh.is_empty() {
            return Poll::Ready(Ok(false));
        }
        if self.held.is_empty() && !self.undecided {
            let scan = self.scanner.scan(fresh, self.guard.response_to());
            self.held.extend_from_slice(&fresh[scan.pass..]);
            buf.set_filled(before + scan.pass);
            self.report_reason();
            self.follow(scan.next);
        } else {
            self.held.extend_from_slice(fresh);
            buf.set_filled(before);
            if !self.undecided {
                self.judge_held();
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for GuardedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        loop {
            if this.ready > 0 {
                let length = this.ready.min(buf.remaining());
                buf.put_slice(&this.held[..length]);
                this.held.advance(length);
                this.ready -= length;
                return Poll::Ready(Ok(()));
            }
            match this.end {
                Some(End::Silent) => return Poll::Pending,
                Some(End::Fault(fault)) => return Poll::Ready(Err(fault.into())),
                None => {}
            }
            if this.undecided && this.held.is_empty() {
                // Nothing is held yet, but the end of the socket must be noticed.
                match this.guard.poll_decided(this.scanner.heads(), cx) {
                    Poll::Ready(after) => this.decided(after),
                    Poll::Pending => {
                        if !ready!(this.poll_fresh(cx, buf))? {
                            return Poll::Ready(Ok(()));
                        }
                    }
                }
                continue;
            }
            if this.undecided {
                let after = ready!(this.guard.poll_decided(this.scanner.heads(), cx));
                this.decided(after);
                this.judge_held();
                continue;
            }
            if this.grace.is_some() || !ready!(this.poll_fresh(cx, buf))? {
                return this.poll_end(cx);
            }
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

write_through!(GuardedIo);

/// Bytes of one read, as many as a TLS record has. The HTTP library keeps a buffer of twice the largest read for as long
/// as the connection lives.
const READ_BYTES: usize = 16 * 1024;
/// How long a client that has closed its sending side may still wait for a response.
const GRACE: Duration = Duration::from_secs(1);
const GRACE_AFTER_LAST_REQUEST: Duration = Duration::from_secs(15);
/// Takes the place of a request that must not be read. The semantic conventions use this method for an unknown one.
const REPLACEMENT: &[u8] = b"_OTHER / HTTP/1.1\r\nHost: invalid\r\nConnection: close\r\n\r\n";

#[cfg(test)]
mod tests;
