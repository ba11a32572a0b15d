//! A body that records its frames and passes them on unchanged.
//!
//! It finishes exactly once: at the end, at trailers, at the last declared byte, at an error, or when dropped. It never
//! panics, awaits or blocks. It holds back only the last frame of a durable exchange, until the commit. If the endpoint
//! fails meanwhile, that frame is delivered before the error.

use crate::capture::recording::{CommitWait, Recording};
use crate::capture::recording_state::outcome_when_dropped;
use crate::error::ProxyError;
use crate::trace::exchange::{Direction, Outcome};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// A body that is recorded.
pub struct TeeBody<B: Body> {
    inner: B,
    recording: Recording,
    direction: Direction,
    frames: Frames,
    // Bytes still to come by Content-Length, None without one. A drop after the last of them is not an abort.
    expected_left: Option<u64>,
    error_of: fn(&B::Error) -> ProxyError,
    // Recognises the frame by which an agent knows that a stream is over, before it ends.
    ends_stream: fn(&[u8]) -> bool,
    // Frames that wait: the last one, and at most `MAX_HELD_BYTES` that came behind it.
    held: VecDeque<Frame<Bytes>>,
    phase: Phase<B::Error>,
    // The frame by which an agent knows that a stream is over has passed: it may leave.
    has_last_frame: bool,
}

/// Where frames are recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frames {
    Here,
    /// Before this body, by [`super::RecordedFrames`].
    Before,
}

enum Phase<E> {
    Flowing,
    // The last frame of a stream is held; the end of the stream should follow at once.
    AwaitingEnd(Pin<Box<Sleep>>),
    AwaitingCommit(CommitWait, Pin<Box<Sleep>>),
    // The endpoint failed; the error follows what is held.
    Failed(Box<E>),
    Over,
}

impl<B: Body<Data = Bytes> + Unpin> TeeBody<B> {
    /// Records `inner`. `error_of` explains its errors; `ends_stream` recognises the last frame of a stream by its bytes.
    pub fn new(
        inner: B,
        recording: Recording,
        direction: Direction,
        error_of: fn(&B::Error) -> ProxyError,
        ends_stream: fn(&[u8]) -> bool,
    ) -> Self {
        let expected_left = inner.size_hint().exact();
        let (frames, held, phase) = (Frames::Here, VecDeque::new(), Phase::Flowing);
        let has_last_frame = false;
        let mut tee = Self {
            inner,
            recording,
            direction,
            frames,
            expected_left,
            error_of,
            ends_stream,
            held,
            phase,
            has_last_frame,
        };
        if tee.direction == Direction::Request && tee.inner.is_end_stream() {
            tee.complete();
        }
        tee
    }

    /// The same for a response that is recorded already by [`super::RecordedFrames`], in the form in which the backend sent
    /// it: what passes here ends it.
    pub(crate) fn of_recorded(
        inner: B,
        recording: Recording,
        error_of: fn(&B::Error) -> ProxyError,
        ends_stream: fn(&[u8]) -> bool,
    ) -> Self {
        let mut tee = Self::new(inner, recording, Direction::Response, error_of, ends_stream);
        tee.frames = Frames::Before;
        tee
    }

    /// Everything passed. With a response the exchange is over.
    fn complete(&mut self) {
        self.phase = Phase::Over;
        self.recording.body_complete(self.direction);
        if self.direction == Direction::Response {
            self.recording.outcome(Outcome::Complete);
            if let Some(wait) = self.recording.finish() {
                let timeout = Box::pin(tokio::time::sleep(wait.timeout));
                self.phase = Phase::AwaitingCommit(wait, timeout);
            }
        }
    }

    /// Ends the record as complete: what is still to come has no meaning for the agent.
    pub(crate) fn end(&mut self) {
        if matches!(self.phase, Phase::Flowing | Phase::AwaitingEnd(_)) {
            self.complete();
        }
    }

    fn fail(&mut self, error: B::Error) {
        match self.direction {
            Direction::Response => {
                self.recording.outcome(Outcome::Failed { error: (self.error_of)(&error) });
                // Nothing waits for this commit: the agent gets an error, not the end of a response.
                drop(self.recording.finish());
            }
            // The response decides the outcome; this one stands until then.
            Direction::Request => self.recording.failing(&(self.error_of)(&error)),
        }
        self.phase = Phase::Failed(Box::new(error));
    }

    fn held_bytes(&self) -> u64 {
        self.held.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum()
    }

    /// Records a frame. True if it must be held.
    fn record(&mut self, frame: &Frame<Bytes>) -> bool {
        if let Some(data) = frame.data_ref() {
            self.expected_left = self.expected_left.map(|left| left.saturating_sub(data.len() as u64));
            if self.frames == Frames::Here {
                self.recording.frame(self.direction, data);
            }
            if self.inner.is_end_stream() {
                self.complete();
            } else if self.direction == Direction::Response && (self.ends_stream)(data) {
                self.has_last_frame = true;
                if self.recording.is_durable() {
                    self.phase = Phase::AwaitingEnd(Box::pin(tokio::time::sleep(END_GRACE)));
                }
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            if self.frames == Frames::Here {
                self.recording.trailers(self.direction, trailers);
            }
            self.complete();
        }
        matches!(self.phase, Phase::AwaitingEnd(_) | Phase::AwaitingCommit(..))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for TeeBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        loop {
            match &mut this.phase {
                Phase::AwaitingCommit(wait, timeout) => {
                    let status = match Pin::new(&mut wait.committed).poll(cx) {
                        Poll::Ready(status) => status.ok(),
                        Poll::Pending => {
                            ready!(timeout.as_mut().poll(cx));
                            None
                        }
                    };
                    wait.end(status);
                    this.phase = Phase::Over;
                }
                Phase::Over => return Poll::Ready(this.held.pop_front().map(Ok)),
                Phase::Failed(_) => {
                    if let Some(frame) = this.held.pop_front() {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    let Phase::Failed(error) = std::mem::replace(&mut this.phase, Phase::Over) else {
                        return Poll::Ready(None);
                    };
                    return Poll::Ready(Some(Err(*error)));
                }
                Phase::AwaitingEnd(grace) => match Pin::new(&mut this.inner).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        // More data after all, or trailers: in order, behind what is held.
                        this.record(&frame);
                        this.held.push_back(frame);
                        if matches!(this.phase, Phase::AwaitingEnd(_)) && this.held_bytes() > MAX_HELD_BYTES {
                            this.phase = Phase::Flowing;
                        }
                    }
                    Poll::Ready(Some(Err(error))) => this.fail(error),
                    Poll::Ready(None) => this.complete(),
                    Poll::Pending => {
                        ready!(grace.as_mut().poll(cx));
                        this.phase = Phase::Flowing;
                    }
                },
                Phase::Flowing => {
                    if let Some(frame) = this.held.pop_front() {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                        Some(Ok(frame)) => {
                            if !this.record(&frame) {
                                return Poll::Ready(Some(Ok(frame)));
                            }
                            this.held.push_back(frame);
                        }
                        Some(Err(error)) => this.fail(error),
                        None => this.complete(),
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty()
            && !matches!(self.phase, Phase::AwaitingCommit(..) | Phase::Failed(_))
            && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held_bytes();
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + held);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

impl<B: Body> Drop for TeeBody<B> {
    fn drop(&mut self) {
        if !matches!(self.phase, Phase::Flowing | Phase::AwaitingEnd(_)) {
            return;
        }
        // A reader may stop after the last declared byte, or after the last event.
        let is_complete = self.expected_left == Some(0) || self.inner.is_end_stream() || self.has_last_frame;
        if is_complete {
            self.recording.body_complete(self.direction);
        }
        if self.direction == Direction::Response {
            self.recording.outcome(if is_complete { Outcome::Complete } else { outcome_when_dropped() });
            drop(self.recording.finish());
        }
    }
}

/// How long the last frame of a stream waits for the end of the stream, which normally is in the same segment.
const END_GRACE: Duration = Duration::from_millis(100);
/// An event may be divided into several frames; a stream that goes on with more than this is not over.
const MAX_HELD_BYTES: u64 = 16 * 1024;
