//! Removes from responses what was requested on the agent's behalf, as they pass.
//!
//! Which bytes those are is up to [`crate::llm::token_ids`]. A JSON response that has a length is held until its end,
//! without what is removed, so that the agent sees the length of what it gets. If neither memory nor disk has room for it, it
//! passes as it arrives, without a length.

use crate::capture::{EditedBytes, HeldBytes, Memory, MemoryUse, Recording, TeeBody};
use crate::forward::replay::{Buffered, Replay, buffer};
use crate::llm::token_ids::ResponseStripper;
use crate::upstream::{Body as AnyBody, BodyError};
use crate::wire::json_strip::Changes;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The response without what the agent did not request. The record has it all.
pub(crate) async fn stripped<B>(
    tee: TeeBody<B>,
    changes: Changes,
    headers: &mut HeaderMap,
    recording: &Recording,
    memory: &Memory,
) -> AnyBody
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin + Send + 'static,
{
    let stripper = match shape_of(headers) {
        Shape::Other => {
            recording.not_stripped();
            return tee.boxed_unsync();
        }
        Shape::Events => {
            headers.remove(header::CONTENT_LENGTH);
            ResponseStripper::events(changes)
        }
        Shape::Whole => ResponseStripper::json(changes),
    };
    let body = StrippedBody::new(tee, stripper);
    if !headers.contains_key(header::CONTENT_LENGTH) {
        return body.boxed_unsync();
    }
    let replay = match buffer(body, HeldBytes::new(memory, MemoryUse::Stripping), 0).await {
        Buffered::Whole(held, trailers) => {
            let bytes = EditedBytes::from(held);
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            Replay::whole(bytes, trailers)
        }
        Buffered::NoRoom(held, next, rest) => {
            headers.remove(header::CONTENT_LENGTH);
            Replay::begun(held.into(), next, rest)
        }
        Buffered::Failed(held, error) => Replay::failed(held.into(), error),
    };
    replay.boxed_unsync()
}

/// How a response is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// As one JSON text.
    Whole,
    /// As server-sent events.
    Events,
    /// Not at all: it is compressed, or of another type.
    Other,
}

/// How the response with these header fields is changed.
fn shape_of(headers: &HeaderMap) -> Shape {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    match kind.split(';').next().unwrap_or_default().trim() {
        _ if headers.contains_key(header::CONTENT_ENCODING) => Shape::Other,
        "application/json" => Shape::Whole,
        "text/event-stream" => Shape::Events,
        _ => Shape::Other,
    }
}

/// A response without what was added.
pub(crate) struct StrippedBody<B: Body> {
    inner: B,
    stripper: ResponseStripper,
    // What follows the bytes that are given out first.
    next: Option<Result<Frame<Bytes>, B::Error>>,
    ended: bool,
}

impl<B: Body> StrippedBody<B> {
    pub(crate) fn new(inner: B, stripper: ResponseStripper) -> Self {
        Self { inner, stripper, next: None, ended: false }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for StrippedBody<B>
where
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        loop {
            if let Some(next) = this.next.take() {
                return Poll::Ready(Some(next));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let next = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let stays = this.stripper.push(&data);
                        if !stays.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(stays))));
                        }
                        continue;
                    }
                    Err(trailers) => Some(Ok(trailers)),
                },
                Some(Err(error)) => Some(Err(error)),
                None => {
                    this.ended = true;
                    None
                }
            };
            this.next = next;
            // The bytes that came before an end or an error are not lost with it.
            let rest = this.stripper.finish();
            if !rest.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(rest))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.stripper.is_empty() && (self.ended || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use std::io::{Error, ErrorKind};

    #[tokio::test]
    async fn what_came_before_an_error_is_given_before_it() {
        for (stripper, text, expected) in [
            (ResponseStripper::events(Changes::default()), "data: 1\n\ndata: 2", ["data: 1\n\n", "data: 2"]),
            (ResponseStripper::json(Changes::default()), "{\"a\":1 , \"b\"", ["{\"a\":1", " , \"b\""]),
        ] {
            let frames = [Ok(Frame::data(Bytes::from(text))), Err(Error::from(ErrorKind::ConnectionReset))];
            let inner = StreamBody::new(futures_util::stream::iter(frames));
            let mut body = StrippedBody::new(inner, stripper);
            for expected in expected {
                let frame = body.frame().await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), expected);
                assert!(!body.is_end_stream());
            }
            assert!(body.frame().await.unwrap().is_err());
        }
    }
}
