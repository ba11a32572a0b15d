//! The body on its way, with an eye on it: frames pass unchanged, the recording sees each.
//!
//! It finishes exactly once: at the end, at trailers, at the last declared byte, at an error, or when dropped. It never
//! panics, awaits or blocks; a durable exchange's last frame is kept back until the commit, and nothing else ever is.

use super::recording::{CommitWait, Recording};
use crate::error::{ProxyError, Side};
use crate::trace::exchange::Outcome;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// Which way a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the agent to the endpoint.
    Request,
    /// From the endpoint to the agent.
    Response,
}

/// `B`, observed.
pub struct TeeBody<B: Body> {
    inner: B,
    recording: Recording,
    direction: Direction,
    // Bytes still to come by Content-Length; a drop after the last of them is no abort.
    expected_left: Option<u64>,
    error_of: fn(&B::Error) -> ProxyError,
    // Knows the frame that tells an agent "this was the answer" before the stream ends; only asked when durable.
    is_last: fn(&[u8]) -> bool,
    held: VecDeque<Frame<Bytes>>,
    error: Option<Box<B::Error>>,
    phase: Phase,
}

enum Phase {
    Flowing,
    // A terminal frame is held; the end of the stream should follow at once.
    AwaitingEnd(Pin<Box<Sleep>>),
    AwaitingCommit(CommitWait, Pin<Box<Sleep>>),
    Over,
}

impl<B: Body<Data = Bytes> + Unpin> TeeBody<B> {
    /// Observes `inner`. `error_of` tells what an error of it means; `is_last` knows a terminal frame by its bytes.
    pub fn new(
        inner: B,
        recording: Recording,
        direction: Direction,
        error_of: fn(&B::Error) -> ProxyError,
        is_last: fn(&[u8]) -> bool,
    ) -> Self {
        let expected_left = inner.size_hint().exact();
        let held = VecDeque::new();
        let mut tee = Self {
            inner,
            recording,
            direction,
            expected_left,
            error_of,
            is_last,
            held,
            error: None,
            phase: Phase::Flowing,
        };
        if tee.direction == Direction::Request && tee.inner.is_end_stream() {
            tee.complete();
        }
        tee
    }

    /// Everything passed. For a response the exchange is over.
    fn complete(&mut self) {
        self.phase = Phase::Over;
        self.recording.body_complete(self.direction);
        if self.direction == Direction::Response {
            self.recording.outcome(Outcome::Complete);
            if let Some(wait) = self.recording.finish() {
                let limit = Box::pin(tokio::time::sleep(wait.limit));
                self.phase = Phase::AwaitingCommit(wait, limit);
            }
        }
    }

    fn failed(&mut self, error: &B::Error) {
        self.phase = Phase::Over;
        match self.direction {
            Direction::Response => {
                self.recording.outcome(Outcome::Failed { error: (self.error_of)(error) });
                drop(self.recording.finish());
            }
            // What becomes of the exchange is for the response to say; until then this stands.
            Direction::Request => self.recording.failing(&(self.error_of)(error)),
        }
    }

    /// Gives the error with the next poll: whoever reads this body writes out what it has before it waits, and what
    /// came before the error must not be lost with it.
    fn after_a_pause(&mut self, error: B::Error, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.error = Some(Box::new(error));
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Looks at a frame that came; true if it must be held.
    fn observe(&mut self, frame: &Frame<Bytes>) -> bool {
        if let Some(data) = frame.data_ref() {
            self.expected_left = self.expected_left.map(|left| left.saturating_sub(data.len() as u64));
            self.recording.frame(self.direction, data, self.expected_left.unwrap_or(0));
            if self.inner.is_end_stream() {
                self.complete();
            } else if self.direction == Direction::Response && self.recording.is_durable() && (self.is_last)(data) {
                self.phase = Phase::AwaitingEnd(Box::pin(tokio::time::sleep(END_GRACE)));
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.recording.trailers(self.direction, trailers);
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
        if let Some(error) = this.error.take() {
            return Poll::Ready(Some(Err(*error)));
        }
        loop {
            match &mut this.phase {
                Phase::AwaitingCommit(wait, limit) => {
                    let committed = match Pin::new(&mut wait.committed).poll(cx) {
                        Poll::Ready(answer) => answer.unwrap_or(false),
                        Poll::Pending => {
                            ready!(limit.as_mut().poll(cx));
                            false
                        }
                    };
                    wait.over(committed);
                    this.phase = Phase::Over;
                }
                Phase::Over => {
                    return Poll::Ready(this.held.pop_front().map(Ok));
                }
                Phase::AwaitingEnd(grace) => match Pin::new(&mut this.inner).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        // Not the end after all, or trailers: in order, behind what is held.
                        if !this.observe(&frame) {
                            this.phase = Phase::Flowing;
                        }
                        this.held.push_back(frame);
                    }
                    Poll::Ready(Some(Err(error))) => {
                        this.failed(&error);
                        this.held.clear();
                        return this.after_a_pause(error, cx);
                    }
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
                            if !this.observe(&frame) {
                                return Poll::Ready(Some(Ok(frame)));
                            }
                            this.held.push_back(frame);
                        }
                        Some(Err(error)) => {
                            this.failed(&error);
                            return this.after_a_pause(error, cx);
                        }
                        None => this.complete(),
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty()
            && self.error.is_none()
            && !matches!(self.phase, Phase::AwaitingCommit(..))
            && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held: u64 = self.held.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
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
        // A reader may stop after the last declared byte: that is no abort.
        let whole = self.expected_left == Some(0) || self.inner.is_end_stream();
        if whole {
            self.recording.body_complete(self.direction);
        }
        if self.direction == Direction::Response {
            self.recording.outcome(if whole { Outcome::Complete } else { Outcome::Aborted { by: Side::Downstream } });
            drop(self.recording.finish());
        }
    }
}

/// How long a terminal frame waits for the end of its stream, which normally is in the same segment.
const END_GRACE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
