//! Delivers what came before an error before the error.
//!
//! hyper drops what it has buffered when a body fails: an HTTP/1 connection is closed at once, an HTTP/2 stream is reset
//! and its queued frames are cleared. Every response body passes through here on its way to a client: its error waits a
//! moment, in which hyper writes what it has. A client that reads more slowly than that may still lose the last bytes.
//! A panic of a body is an error like any other.

use crate::error::ProxyError;
use crate::util::panics::{catch, discard};
use hyper::body::{Body, Frame, SizeHint};
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// A body that delays its error a moment after its last frame.
pub(crate) struct DeferredError<B> {
    // None once it has panicked.
    inner: Option<B>,
    // Boxed: only a body that fails pays for it.
    failing: Option<Box<Failing>>,
}

struct Failing {
    // None once it is delivered.
    error: Option<BoxError>,
    delay: Pin<Box<Sleep>>,
}

type BoxError = Box<dyn Error + Send + Sync>;

impl<B> DeferredError<B> {
    /// Defers the error of `inner`.
    pub(crate) fn new(inner: B) -> Self {
        Self { inner: Some(inner), failing: None }
    }
}

impl<B: Body<Error: Into<BoxError>> + Unpin> Body for DeferredError<B> {
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = &mut *self;
        if this.failing.is_none() {
            let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
            let error = match catch(|| Pin::new(inner).poll_frame(cx)) {
                Ok(polled) => match ready!(polled) {
                    Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
                    Some(Err(error)) => error.into(),
                    None => return Poll::Ready(None),
                },
                Err(panicked) => {
                    discard(this.inner.take());
                    ProxyError::from(panicked).into()
                }
            };
            let delay = Box::pin(tokio::time::sleep(DELAY));
            this.failing = Some(Box::new(Failing { error: Some(error), delay }));
        }
        let Some(failing) = &mut this.failing else { return Poll::Ready(None) };
        ready!(failing.delay.as_mut().poll(cx));
        Poll::Ready(failing.error.take().map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.failing.is_none() && self.inner.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

/// Enough for the task of an HTTP/2 connection to run on a busy machine.
const DELAY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};
    use std::io;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn an_error_comes_a_moment_after_the_last_frame_and_once() {
        let frames = [Ok(Frame::data(Bytes::from_static(b"last"))), Err(io::Error::other("reset"))];
        let mut body = DeferredError::new(StreamBody::new(stream::iter(frames)));
        let start = Instant::now();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "last");
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(!body.is_end_stream());
        assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "reset");
        assert!(start.elapsed() >= DELAY);
        assert!(body.frame().await.is_none());
    }
}
