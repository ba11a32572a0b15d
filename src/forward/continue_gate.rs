//! `Expect: 100-continue`, end to end: the agent is asked for its body when the endpoint asks for it.
//!
//! hyper sends the 100 to the agent when the request body is first polled, and its client polls at once. The gate holds
//! the body back until the endpoint's 100, or for as long as a client would wait (RFC 9110 §10.1.1).

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Sleep;

/// A body that is not polled before the gate opens.
pub(super) struct ContinueGate<B> {
    inner: B,
    /// `None` once it is open.
    closed: Option<Closed>,
}

struct Closed {
    /// `None` once the endpoint cannot ask for the body any more: it has answered, or the request failed.
    go: Option<oneshot::Receiver<()>>,
    timeout: Pin<Box<Sleep>>,
}

impl Closed {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(go) = &mut self.go {
            match Pin::new(go).poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(()),
                // It must not be polled again.
                Poll::Ready(Err(_)) => self.go = None,
                Poll::Pending => {}
            }
        }
        self.timeout.as_mut().poll(cx)
    }
}

impl<B> ContinueGate<B> {
    /// A gate that is open from the start.
    pub(super) fn open(inner: B) -> Self {
        Self { inner, closed: None }
    }

    /// A gate that opens with `go`, or after [`CONTINUE_TIMEOUT`].
    pub(super) fn closed(inner: B, go: oneshot::Receiver<()>) -> Self {
        let timeout = Box::pin(tokio::time::sleep(CONTINUE_TIMEOUT));
        Self { inner, closed: Some(Closed { go: Some(go), timeout }) }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ContinueGate<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(closed) = &mut self.closed {
            std::task::ready!(closed.poll_open(cx));
            self.closed = None;
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// curl waits as long.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use std::task::Waker;

    #[tokio::test]
    async fn a_gate_whose_endpoint_has_answered_stays_closed() {
        let (sender, receiver) = oneshot::channel();
        let mut gate = ContinueGate::closed(Full::new(Bytes::from_static(b"x")), receiver);
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut gate).poll_frame(&mut context).is_pending());
        drop(sender);
        assert!(Pin::new(&mut gate).poll_frame(&mut context).is_pending());
        assert!(Pin::new(&mut gate).poll_frame(&mut context).is_pending());
    }

    #[tokio::test]
    async fn the_endpoint_opens_the_gate() {
        let (sender, receiver) = oneshot::channel();
        let mut gate = ContinueGate::closed(Full::new(Bytes::from_static(b"x")), receiver);
        sender.send(()).unwrap();
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut gate).poll_frame(&mut context).is_ready());
    }
}
