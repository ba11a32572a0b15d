//! A body that ends only where its sender ended it.
//!
//! The HTTP library takes an HTTP/2 stream that its sender resets with NO_ERROR for one that is complete. That code says
//! only that neither side made an error (RFC 9113 §7): what the stream carried until then is a part.

use super::http_server::HttpVersion;
use crate::wire::fields;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The body of a message as it is received.
pub(crate) struct ReceivedBody {
    inner: Incoming,
    version: HttpVersion,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// An error of the HTTP library.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// The sender reset its HTTP/2 stream before the end of the body, with NO_ERROR.
    #[error("the stream was reset (NO_ERROR) before its end")]
    Reset,
}

impl ReceivedBody {
    /// A body that came over `version`.
    pub(crate) fn new(inner: Incoming, version: http::Version) -> Self {
        let version = if version == http::Version::HTTP_2 { HttpVersion::Http2 } else { HttpVersion::Http1 };
        Self { inner, version }
    }
}

impl Body for ReceivedBody {
    type Data = Bytes;
    type Error = ReceiveError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        // The library still knows whether END_STREAM came.
        if frame.is_none() && self.version == HttpVersion::Http2 && !self.inner.is_end_stream() {
            return Poll::Ready(Some(Err(ReceiveError::Reset)));
        }
        let mut frame = frame;
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            fields::remove_not_of_trailers(trailers);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(ReceiveError::Http)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
