//! The one body type of the program, and its error.

use super::pool::Lease;
use crate::error::{ErrorKind, ProxyError};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A body on its way, either direction.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The HTTP library says so.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// We say so.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
}

/// A body of nothing.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body of known bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A response's body that fails when nothing comes for too long. A slow stream that says something now and then never
/// does. It holds its share of the connection.
pub struct IdleLimited {
    inner: Incoming,
    _lease: Lease,
    limit: Duration,
    silence: Option<Pin<Box<Sleep>>>,
}

impl IdleLimited {
    /// Limits the silence within `inner`; zero for no limit.
    pub fn new(inner: Incoming, lease: Lease, limit: Duration) -> Self {
        let silence = (!limit.is_zero()).then(|| Box::pin(tokio::time::sleep(limit)));
        Self { inner, _lease: lease, limit, silence }
    }
}

impl HttpBody for IdleLimited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let limit = self.limit;
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let Some(silence) = &mut self.silence else { return polled.map_err(BodyError::Http) };
        if polled.is_ready() {
            silence.as_mut().reset(Instant::now() + limit);
            return polled.map_err(BodyError::Http);
        }
        std::task::ready!(silence.as_mut().poll(cx));
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
