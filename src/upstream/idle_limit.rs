//! A response body that fails after too long a silence, and when its endpoint resets it.

use super::body::BodyError;
use super::connection::Lease;
use crate::error::{ErrorKind, ProxyError};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A response body with a limit on the time between two frames. It holds the lease of its connection.
pub(crate) struct IdleLimited {
    inner: Incoming,
    lease: Lease,
    /// What is left of the declared length. `None` if none was declared.
    left: Option<u64>,
    limit: Duration,
    silence: Option<Pin<Box<Sleep>>>,
}

impl IdleLimited {
    /// Limits the silence within `inner`; zero means no limit.
    pub(crate) fn new(inner: Incoming, lease: Lease, limit: Duration) -> Self {
        let silence = (!limit.is_zero()).then(|| Box::pin(tokio::time::sleep(limit)));
        let left = inner.size_hint().exact();
        Self { inner, lease, left, limit, silence }
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &polled {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            self.left = self.left.map(|left| left.saturating_sub(length));
        }
        if polled.is_none() && self.was_reset() {
            let cause = "the endpoint reset the stream before the end of its response";
            return Poll::Ready(Some(Err(ProxyError::new(ErrorKind::HttpResponseIncomplete, "", cause).into())));
        }
        Poll::Ready(polled.map(|frame| frame.map_err(BodyError::Http)))
    }

    /// The HTTP library takes a stream that is reset without an error for one that ended (RFC 9113 §8.1 lets a server do so
    /// behind a whole response, if the request was still being sent).
    fn was_reset(&self) -> bool {
        let Some(request) = &self.lease.request else { return false };
        !self.inner.is_end_stream() && self.left.map_or_else(|| request.is_whole(), |left| left > 0)
    }
}

impl HttpBody for IdleLimited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let limit = self.limit;
        let polled = self.poll_inner(cx);
        let Some(silence) = &mut self.silence else { return polled };
        if polled.is_ready() {
            silence.as_mut().reset(Instant::now() + limit);
            return polled;
        }
        ready!(silence.as_mut().poll(cx));
        let cause = format!("the body was silent for {} ms (upstream.body_idle_timeout_ms)", limit.as_millis());
        Poll::Ready(Some(Err(ProxyError::new(ErrorKind::HttpResponseTimeout, "", cause).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
