//! `Expect: 100-continue`, end to end: the agent is told to go on when the endpoint says so.
//!
//! hyper sends the 100 to the agent when the request body is first polled, and its client polls at once. The gate keeps
//! the body still until the endpoint's 100, or until a client would lose patience (RFC 9110 §10.1.1).

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Sleep;

/// A body that is not polled before the gate opens.
pub struct ContinueGate<B> {
    inner: B,
    closed: Option<(oneshot::Receiver<()>, Pin<Box<Sleep>>)>,
}

impl<B> ContinueGate<B> {
    /// Lets everything through.
    pub fn open(inner: B) -> Self {
        Self { inner, closed: None }
    }

    /// Waits for `go`, for a moment at most.
    pub fn closed(inner: B, go: oneshot::Receiver<()>) -> Self {
        Self { inner, closed: Some((go, Box::pin(tokio::time::sleep(TIMEOUT)))) }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ContinueGate<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some((go, patience)) = &mut self.closed {
            if !matches!(Pin::new(go).poll(cx), Poll::Ready(Ok(()))) {
                std::task::ready!(patience.as_mut().poll(cx));
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

/// curl waits one second by itself; longer would make us the slower one.
const TIMEOUT: Duration = Duration::from_secs(1);
