//! A body that is read before it is passed on: what was read, then whatever comes after it.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// What was read, then the rest, or the error that came in its place.
pub(super) struct Replay<B: Body> {
    first: Option<Bytes>,
    rest: Rest<B>,
}

enum Rest<B: Body> {
    None,
    Trailers(Frame<Bytes>),
    Error(B::Error),
    More(B),
}

/// Reads a body to its end, or to a limit. `Ok`: its bytes, and its trailers if it had any.
pub(super) async fn read_whole<B: Body<Data = Bytes> + Unpin>(
    mut body: B,
    max_bytes: usize,
) -> Result<(Bytes, Replay<B>), Replay<B>> {
    let mut read = BytesMut::new();
    let replay = |read: BytesMut, rest| Replay { first: Some(read.freeze()), rest };
    loop {
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if read.len() + data.len() > max_bytes => {
                    read.extend_from_slice(&data);
                    return Err(replay(read, Rest::More(body)));
                }
                Ok(data) => read.extend_from_slice(&data),
                Err(trailers) => return Ok((read.freeze(), Replay { first: None, rest: Rest::Trailers(trailers) })),
            },
            Some(Err(error)) => return Err(replay(read, Rest::Error(error))),
            None => return Ok((read.freeze(), Replay { first: None, rest: Rest::None })),
        }
    }
}

impl<B: Body> Replay<B> {
    /// Other bytes in place of those that were read.
    pub(super) fn with(self, bytes: Bytes) -> Self {
        Self { first: Some(bytes), ..self }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Replay<B>
where
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        match std::mem::replace(&mut self.rest, Rest::None) {
            Rest::None => Poll::Ready(None),
            Rest::Trailers(trailers) => Poll::Ready(Some(Ok(trailers))),
            Rest::Error(error) => Poll::Ready(Some(Err(error))),
            Rest::More(mut body) => {
                let polled = Pin::new(&mut body).poll_frame(cx);
                self.rest = Rest::More(body);
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.as_ref().is_none_or(Bytes::is_empty) && matches!(self.rest, Rest::None)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.first, &self.rest) {
            // With a length there would be no trailers in HTTP/1.1.
            (first, Rest::None) => SizeHint::with_exact(first.as_ref().map_or(0, |first| first.len() as u64)),
            _ => SizeHint::default(),
        }
    }
}
