//! A response body that fails after too long a silence.

use super::body::BodyError;
use super::connection::Lease;
use crate::error::{ErrorKind, ProxyError};
use crate::net::received_body::ReceivedBody;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A response body with a limit on the time between two frames. It holds the lease of its connection.
pub(crate) struct IdleLimited {
    inner: ReceivedBody,
    _lease: Lease,
    limit: Duration,
    silence: Option<Pin<Box<Sleep>>>,
}

impl IdleLimited {
    /// Limits the silence within `inner`; zero means no limit.
    pub(crate) fn new(inner: ReceivedBody, lease: Lease, limit: Duration) -> Self {
        let silence = (!limit.is_zero()).then(|| Box::pin(tokio::time::sleep(limit)));
        Self { inner, _lease: lease, limit, silence }
    }
}

impl HttpBody for IdleLimited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let limit = self.limit;
        let polled = Pin::new(&mut self.inner).poll_frame(cx).map_err(BodyError::Received);
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
