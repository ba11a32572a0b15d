//! The body of a response to an HTTP/1 client, as far as the HTTP library would change what the client gets.
//!
//! The library drops the `Content-Length` of a 204 or 304 without content. In a 304 it is the length of what was not sent.

use super::deferred_error::DeferredError;
use super::trailers::{TrailerBody, TrailerRoute, TrailerSender, is_chunked};
use http::{HeaderMap, Response, StatusCode, Version, header};
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A body of a response, and what it pretends to be.
pub(super) struct Http1Body<B> {
    inner: TrailerBody<DeferredError<B>>,
    // The length that the response announces and does not have.
    announced: Option<u64>,
}

impl<B> Http1Body<B> {
    /// The response to a request of `version`. `socket` writes its trailers.
    pub(super) fn of(response: Response<B>, version: Version, socket: TrailerSender) -> Response<Self>
    where
        DeferredError<B>: Body,
    {
        let announced = announced_length(response.status(), response.headers());
        let (parts, body) = response.into_parts();
        let (body, route) = (DeferredError::new(body), TrailerRoute::default());
        if version == Version::HTTP_11 && is_chunked(&parts.headers, &body) {
            route.set(Some(socket));
        }
        Response::from_parts(parts, Self { inner: TrailerBody::new(body, route), announced })
    }
}

fn announced_length(status: StatusCode, headers: &HeaderMap) -> Option<u64> {
    let is_bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    headers.get(header::CONTENT_LENGTH).filter(|_| is_bodiless)?.to_str().ok()?.parse().ok()
}

impl<B> Body for Http1Body<B>
where
    DeferredError<B>: Body + Unpin,
{
    type Data = <DeferredError<B> as Body>::Data;
    type Error = <DeferredError<B> as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.announced {
            Some(_) => Poll::Ready(None),
            None => Pin::new(&mut self.inner).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        // The library writes the length of a body that it takes for one.
        self.announced.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map_or_else(|| self.inner.size_hint(), SizeHint::with_exact)
    }
}
