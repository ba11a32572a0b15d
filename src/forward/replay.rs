//! A body that is buffered before it is passed on: the buffered bytes, then what follows them.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The buffered bytes, then the rest of the body, or the error in its place.
pub(super) struct Replay<B: Body> {
    // None once they have passed.
    buffered: Option<Bytes>,
    rest: Rest<B>,
}

enum Rest<B: Body> {
    None,
    Trailers(Frame<Bytes>),
    Error(B::Error),
    More(B),
}

/// Buffers a body to its end. `Ok` has all its bytes, and a replay of its trailers. `Err` replays a body that is longer
/// than `max_bytes`, or that failed.
pub(super) async fn buffer<B: Body<Data = Bytes> + Unpin>(
    mut body: B,
    max_bytes: usize,
) -> Result<(Bytes, Replay<B>), Replay<B>> {
    let mut read = BytesMut::new();
    let replay = |read: BytesMut, rest| Replay { buffered: Some(read.freeze()), rest };
    loop {
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if read.len() + data.len() > max_bytes => {
                    read.extend_from_slice(&data);
                    return Err(replay(read, Rest::More(body)));
                }
                Ok(data) => read.extend_from_slice(&data),
                Err(trailers) => return Ok((read.freeze(), Replay { buffered: None, rest: Rest::Trailers(trailers) })),
            },
            Some(Err(error)) => return Err(replay(read, Rest::Error(error))),
            None => return Ok((read.freeze(), Replay { buffered: None, rest: Rest::None })),
        }
    }
}

impl<B: Body> Replay<B> {
    /// The same with other bytes in place of the buffered ones.
    pub(super) fn with_bytes(self, bytes: Bytes) -> Self {
        Self { buffered: Some(bytes), ..self }
    }

    /// True when an error follows the buffered bytes.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.rest, Rest::Error(_))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Replay<B>
where
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(buffered) = self.buffered.take().filter(|buffered| !buffered.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(buffered))));
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
        self.buffered.as_ref().is_none_or(Bytes::is_empty) && matches!(self.rest, Rest::None)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.buffered, &self.rest) {
            // Trailers need a chunked body in HTTP/1.1: then there is no length.
            (buffered, Rest::None) => SizeHint::with_exact(buffered.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            _ => SizeHint::default(),
        }
    }
}
