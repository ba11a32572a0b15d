//! A response body that is recorded before the gateway decides to deliver it.

use crate::capture::recording::Recording;
use crate::trace::exchange::Direction;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Records the frames of a response. Its end is recorded by [`super::TeeBody::of_recorded`], unless the response is
/// discarded.
pub(crate) struct RecordedFrames<B> {
    inner: B,
    recording: Recording,
}

impl<B> RecordedFrames<B> {
    pub(crate) fn new(inner: B, recording: Recording) -> Self {
        Self { inner, recording }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for RecordedFrames<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &polled {
            if let Some(data) = frame.data_ref() {
                self.recording.frame(Direction::Response, data);
            } else if let Some(trailers) = frame.trailers_ref() {
                self.recording.trailers(Direction::Response, trailers);
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
