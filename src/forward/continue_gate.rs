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
    // None once it is open.
    closed: Option<(oneshot::Receiver<()>, Pin<Box<Sleep>>)>,
}

impl<B> ContinueGate<B> {
    /// A gate that is open from the start.
    pub(super) fn open(inner: B) -> Self {
        Self { inner, closed: None }
    }

    /// A gate that opens with `go`, or after [`CONTINUE_TIMEOUT`].
    pub(super) fn closed(inner: B, go: oneshot::Receiver<()>) -> Self {
        Self { inner, closed: Some((go, Box::pin(tokio::time::sleep(CONTINUE_TIMEOUT)))) }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ContinueGate<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some((go, timeout)) = &mut self.closed {
            if !matches!(Pin::new(go).poll(cx), Poll::Ready(Ok(()))) {
                std::task::ready!(timeout.as_mut().poll(cx));
            }
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
