//! A socket whose HTTP/1 bytes are judged before the HTTP library reads them.
//!
//! The library mends what is ambiguous and says nothing; behind this guard it never sees it. A request whose head is at
//! fault is replaced by an empty one, and the fault is told to whoever answers it; a response at fault is an error of
//! the socket. Bytes behind a request for another protocol are held until that is decided (CVE-2026-2833).

use super::BoxedIo;
use crate::error::FramingFault;
use crate::wire::framing::{Next, Scanner};
use bytes::{Buf, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

/// The other end of a [`GuardedIo`], for whoever answers or sends its messages.
#[derive(Clone, Debug, Default)]
pub struct Guard(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    // Requests that were asked for, and those that have a response.
    answered: u64,
    responded: u64,
    // The number of the head that was replaced, counted from 1.
    fault: Option<(u64, FramingFault)>,
    // What became of the request with this number.
    switched: Option<(u64, bool)>,
    to_head: bool,
    waker: Option<Waker>,
}

impl Guard {
    /// The fault of the next request, if it has one. To be asked once for each request, in order.
    pub fn next_request(&self) -> Option<FramingFault> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shared.answered += 1;
        let number = shared.answered;
        shared.fault.filter(|(faulty, _)| *faulty == number).map(|(_, fault)| fault)
    }

    /// Says that the request asked for last has a response, and what became of it, if it wanted another protocol: the
    /// bytes behind it belong to that, or to HTTP.
    pub fn switch(&self, switched: bool) {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shared.responded = shared.answered;
        shared.switched = Some((shared.answered, switched));
        if let Some(waker) = shared.waker.take() {
            waker.wake();
        }
    }

    /// Says what the next response answers.
    pub fn expect(&self, to_head: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).to_head = to_head;
    }

    /// True while one of the `heads` that were read has no response yet.
    fn owes_a_response(&self, heads: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).responded < heads
    }

    fn poll_switched(&self, number: u64, cx: &Context<'_>) -> Poll<bool> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match shared.switched {
            Some((decided, switched)) if decided == number => Poll::Ready(switched),
            _ => {
                shared.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn to_head(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).to_head
    }

    fn refuse(&self, number: u64, fault: FramingFault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fault = Some((number, fault));
    }
}

/// A socket with its reads judged. Writes go straight through.
pub struct GuardedIo {
    inner: BoxedIo,
    scanner: Scanner,
    guard: Guard,
    requests: bool,
    // Read and not passed yet; the first `ready` bytes may pass.
    held: BytesMut,
    ready: usize,
    switching: bool,
    end: Option<End>,
    // Runs from the socket's end to ours.
    grace: Option<Pin<Box<Sleep>>>,
}

enum End {
    // Nothing more is read. No end is told either: for the HTTP library it would mean that nobody waits for the answer.
    Silent,
    Fault(FramingFault),
}

impl GuardedIo {
    /// Guards a socket that requests come from.
    pub fn of_requests(inner: BoxedIo) -> (Self, Guard) {
        Self::new(inner, Scanner::of_requests(), true)
    }

    /// Guards a socket that responses come from.
    pub fn of_responses(inner: BoxedIo) -> (Self, Guard) {
        Self::new(inner, Scanner::of_responses(), false)
    }

    fn new(inner: BoxedIo, scanner: Scanner, requests: bool) -> (Self, Guard) {
        let guard = Guard::default();
        let shared = guard.clone();
        let held = BytesMut::new();
        (
            Self { inner, scanner, guard: shared, requests, held, ready: 0, switching: false, end: None, grace: None },
            guard,
        )
    }

    /// An end of the socket. A client may close its side and still wait for its answer (RFC 9112 §9.6), though most that
    /// close have gone: the end is told after a while, which is longer for one that said it would send no more.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let last = self.scanner.is_over();
        if !self.requests || !(last || self.guard.owes_a_response(self.scanner.heads())) {
            return Poll::Ready(Ok(()));
        }
        let patience = if last { PATIENCE_AFTER_LAST } else { TIMEOUT };
        let grace = self.grace.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        grace.as_mut().poll(cx).map(|()| Ok(()))
    }

    /// Takes note of what follows the bytes that may pass.
    fn follow(&mut self, next: Next) {
        match next {
            Next::More => {}
            // Toward endpoints the response itself decides; what came along with it may pass already.
            Next::Switch if !self.requests => {
                self.scanner.switch(true);
                self.judge_held();
            }
            Next::Switch => self.switching = true,
            Next::BadHead(fault) if self.requests => {
                self.guard.refuse(self.scanner.heads(), fault);
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

    /// Judges what is held and not yet found to be good.
    fn judge_held(&mut self) {
        let scan = self.scanner.scan(&self.held[self.ready..], self.guard.to_head());
        self.ready += scan.pass;
        self.follow(scan.next);
    }

    /// Reads into `buf` and judges it there: bytes in one piece are not copied. Ready(false) when nothing came.
    fn poll_fresh(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let fresh = &buf.filled()[before..];
        if fresh.is_empty() {
            return Poll::Ready(Ok(false));
        }
        if self.held.is_empty() && !self.switching {
            let scan = self.scanner.scan(fresh, self.guard.to_head());
            self.held.extend_from_slice(&fresh[scan.pass..]);
            buf.set_filled(before + scan.pass);
            self.follow(scan.next);
        } else {
            self.held.extend_from_slice(fresh);
            buf.set_filled(before);
            if !self.switching {
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
            if this.switching && this.held.is_empty() {
                // Nothing to decide on yet, but an end of the socket must be seen.
                match this.guard.poll_switched(this.scanner.heads(), cx) {
                    Poll::Ready(switched) => {
                        this.switching = false;
                        this.scanner.switch(switched);
                    }
                    Poll::Pending => {
                        if !ready!(this.poll_fresh(cx, buf))? {
                            return Poll::Ready(Ok(()));
                        }
                    }
                }
                continue;
            }
            if this.switching {
                let switched = ready!(this.guard.poll_switched(this.scanner.heads(), cx));
                this.switching = false;
                this.scanner.switch(switched);
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

/// How long a client that has closed its side may still wait for its answer.
const TIMEOUT: Duration = Duration::from_secs(1);
const PATIENCE_AFTER_LAST: Duration = Duration::from_secs(15);
/// Stands for a request that must not be read. Its method is the word of the semantic conventions for one unknown.
const REPLACEMENT: &[u8] = b"_OTHER / HTTP/1.1\r\nHost: invalid\r\nConnection: close\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn read(io: &mut GuardedIo) -> Vec<u8> {
        let mut buffer = [0; 1024];
        let length = io.read(&mut buffer).await.unwrap();
        buffer[..length].to_vec()
    }

    #[tokio::test]
    async fn a_head_at_fault_is_replaced_and_told() {
        let (mut agent, ours) = tokio::io::duplex(1024);
        let (mut io, guard) = GuardedIo::of_requests(Box::new(ours));
        let good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        agent.write_all(&[good.as_slice(), b"GET /secret HTTP/1.1\r\n\r\nmore"].concat()).await.unwrap();
        assert_eq!(read(&mut io).await, good);
        assert_eq!(read(&mut io).await, REPLACEMENT);
        let more = tokio::time::timeout(Duration::from_millis(20), read(&mut io)).await;
        assert!(more.is_err(), "nothing behind it is read");
        assert_eq!(guard.next_request(), None);
        assert!(guard.next_request().is_some());
    }

    #[tokio::test]
    async fn bytes_behind_an_upgrade_wait_for_its_answer() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
        for switched in [true, false] {
            let (mut agent, ours) = tokio::io::duplex(1024);
            let (mut io, guard) = GuardedIo::of_requests(Box::new(ours));
            agent.write_all(&[head.as_slice(), b"\0raw\r\n\r\n"].concat()).await.unwrap();
            assert_eq!(read(&mut io).await, head);
            let early = tokio::time::timeout(Duration::from_millis(20), read(&mut io)).await;
            assert!(early.is_err(), "nothing before the decision");
            assert_eq!(guard.next_request(), None);
            guard.switch(switched);
            let expected: &[u8] = if switched { b"\0raw\r\n\r\n" } else { REPLACEMENT };
            assert_eq!(read(&mut io).await, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_told_late_to_whom_an_answer_is_owed() {
        for (field, answered, within, after) in [
            ("", false, TIMEOUT / 2, TIMEOUT * 2),
            ("", true, Duration::ZERO, Duration::from_millis(1)),
            ("Connection: close\r\n", false, PATIENCE_AFTER_LAST / 2, PATIENCE_AFTER_LAST * 2),
        ] {
            let (mut agent, ours) = tokio::io::duplex(1024);
            let (mut io, guard) = GuardedIo::of_requests(Box::new(ours));
            agent.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n").as_bytes()).await.unwrap();
            read(&mut io).await;
            assert_eq!(guard.next_request(), None);
            if answered {
                guard.switch(false);
            }
            agent.shutdown().await.unwrap();
            let early = tokio::time::timeout(within, read(&mut io)).await;
            assert_eq!(early.is_ok(), answered);
            assert_eq!(tokio::time::timeout(after, read(&mut io)).await.unwrap(), b"");
        }
    }

    #[tokio::test]
    async fn an_end_is_seen_while_an_upgrade_is_undecided() {
        let (mut agent, ours) = tokio::io::duplex(1024);
        let (mut io, _guard) = GuardedIo::of_requests(Box::new(ours));
        let head = b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n";
        agent.write_all(head).await.unwrap();
        assert_eq!(read(&mut io).await, head);
        drop(agent);
        assert_eq!(read(&mut io).await, b"");
    }

    #[tokio::test]
    async fn bytes_that_come_along_with_a_switch_are_not_kept_back() {
        let (mut endpoint, ours) = tokio::io::duplex(1024);
        let (mut io, _guard) = GuardedIo::of_responses(Box::new(ours));
        let head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
        endpoint.write_all(&[head.as_slice(), b"raw"].concat()).await.unwrap();
        let mut all = vec![0; head.len() + 3];
        io.read_exact(&mut all).await.unwrap();
        assert!(all.ends_with(b"raw"));
    }

    #[tokio::test]
    async fn a_response_at_fault_is_an_error_that_says_why() {
        let (mut endpoint, ours) = tokio::io::duplex(1024);
        let (mut io, _guard) = GuardedIo::of_responses(Box::new(ours));
        endpoint.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx").await.unwrap();
        let error = io.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(FramingFault::behind(&error).unwrap().cause, "several Content-Length fields");
    }
}
