//! The bodies of responses: of a backend, and those that agents get.
//!
//! They hold at most one frame, besides what is held of a whole response.

use super::backends::Backend;
use super::call::{CallEnd, ResponseState};
use super::error_response::message;
use super::stored_responses::UnansweredRequest;
use crate::capture::{Recording, TeeBody, VersionChange};
use crate::forward::replay::Replay;
use crate::llm::api::ApiErrorKind;
use crate::llm::translate::StreamTranslator;
use crate::upstream::{Body, BodyError, IdleLimited};
use crate::util::in_flight::InFlightPermit;
use crate::wire::sse::looks_like_events;
use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// The permits of a call, held until the end of its response.
pub(super) struct CallPermits {
    /// Counts the call at the pause gate, so that a drain waits for it.
    pub(super) _gate: InFlightPermit,
    pub(super) _backend: InFlightPermit,
}

/// The body of a backend's response. Records when the weights change, and fails when the call must end.
pub(super) struct BackendBody {
    pub(super) inner: IdleLimited,
    pub(super) backend: Arc<Backend>,
    /// The version of the weights that was recorded last.
    pub(super) version: i64,
    /// True if the header names a stream of events, or the first bytes are one.
    pub(super) is_stream: bool,
    pub(super) has_begun: bool,
    pub(super) recording: Recording,
    pub(super) must_end: CallEnd,
}

impl HttpBody for BackendBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        if polled.is_pending() {
            let error = ready!(this.must_end.as_mut().poll(cx));
            return Poll::Ready(Some(Err(error.into())));
        }
        let version = this.backend.version();
        if version != this.version {
            this.version = version;
            // If this is the first event of a stream, all of the stream is from the new weights. Of a whole response it is not
            // known which weights sampled which token.
            let replaces = this.is_stream && !this.has_begun;
            let change = if replaces { VersionChange::Replaces } else { VersionChange::Follows };
            this.recording.policy_version(version, change);
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && !this.has_begun
        {
            this.is_stream |= frame.data_ref().is_some_and(|data| looks_like_events(data));
            this.has_begun = true;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A body that holds the permits of its call.
pub(super) struct PermittedBody {
    pub(super) inner: Body,
    pub(super) _permits: CallPermits,
}

impl HttpBody for PermittedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A stream of events. If the gateway ends it, it ends with an error event of the agent's API; if the backend breaks it off, it
/// breaks off. An event is passed on once it is complete: behind half an event no other could be read.
pub(super) struct EventStreamBody {
    inner: Body,
    state: Arc<ResponseState>,
    // The beginning of an event, and the error behind it.
    held: BytesMut,
    error: Option<BodyError>,
    has_ended: bool,
}

impl EventStreamBody {
    pub(super) fn new(inner: Body, state: Arc<ResponseState>) -> Self {
        Self { inner, state, held: BytesMut::new(), error: None, has_ended: false }
    }

    /// The bytes so far that can be passed on, up to the end of the last complete event.
    fn complete(&mut self, data: Bytes) -> Bytes {
        if self.held.is_empty() && end_of_events(&data) == data.len() {
            return data;
        }
        self.held.extend_from_slice(&data);
        let end = if self.held.len() > MAX_HELD_BYTES { self.held.len() } else { end_of_events(&self.held) };
        self.held.split_to(end).freeze()
    }
}

/// The end of the last event that is complete.
fn end_of_events(bytes: &[u8]) -> usize {
    let end_of = |end: &[u8]| memchr::memmem::rfind(bytes, end).map_or(0, |at| at + end.len());
    // Most bytes come in whole events.
    if ends_event(bytes) { bytes.len() } else { BLANK_LINES.map(end_of).into_iter().max().unwrap_or(0) }
}

/// True if the last event in `bytes` is complete.
pub(super) fn ends_event(bytes: &[u8]) -> bool {
    BLANK_LINES.iter().any(|end| bytes.ends_with(end))
}

/// The end of a line, and a blank line behind it.
const BLANK_LINES: [&[u8]; 3] = [b"\n\n", b"\r\n\r\n", b"\r\r"];

/// The length of the longest of them.
pub(super) const MAX_BLANK_LINE_BYTES: usize = 4;

/// The most that is held of an event. Of a longer one, the beginning is passed on before.
const MAX_HELD_BYTES: usize = 64 << 10;

impl HttpBody for EventStreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.has_ended {
            return Poll::Ready(this.error.take().map(Err));
        }
        loop {
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Err(BodyError::Proxy(error))) => {
                    this.has_ended = true;
                    this.state.mark_incomplete();
                    let event = this.state.error_format.event(error.status(), &message(&error));
                    return Poll::Ready(Some(Ok(Frame::data(event))));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let complete = this.complete(data);
                        if !complete.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(complete))));
                        }
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => {
                    this.has_ended = true;
                    this.error = end.and_then(Result::err);
                    let rest = std::mem::take(&mut this.held).freeze();
                    return Poll::Ready(match rest.is_empty() {
                        true => this.error.take().map(Err),
                        false => Some(Ok(Frame::data(rest))),
                    });
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        (self.has_ended && self.error.is_none()) || (self.held.is_empty() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        // An error event may be added.
        SizeHint::default()
    }
}

/// A stream of events, translated into the agent's API. It always ends with the last event of that API, which says how the
/// response ended. Agents leave at that event, so it waits until the backend's response has ended and is recorded.
pub(super) struct TranslatedBody {
    original: TeeBody<Replay<Body>>,
    /// `None` once the last event was returned.
    translation: Option<StreamTranslator>,
    /// Stores the response once it is complete.
    unanswered: Option<UnansweredRequest>,
    state: Arc<ResponseState>,
    /// The last events, and how long they still wait for the end of the original; then that counts as ended.
    last: Option<(Bytes, Option<Pin<Box<Sleep>>>)>,
}

impl TranslatedBody {
    pub(super) fn new(
        original: TeeBody<Replay<Body>>,
        translation: StreamTranslator,
        unanswered: Option<UnansweredRequest>,
        state: Arc<ResponseState>,
    ) -> Self {
        Self { original, translation: Some(translation), unanswered, state, last: None }
    }

    /// Stores the response, if these events end one.
    fn store(&mut self, events: &[u8]) {
        if let Some(unanswered) = self.unanswered.take() {
            unanswered.answered(events);
        }
    }

    /// The last events, once the original has ended.
    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let Some((events, grace)) = &mut self.last else { return Poll::Ready(Bytes::new()) };
        loop {
            match Pin::new(&mut self.original).poll_frame(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(std::mem::take(events)),
                Poll::Pending => {
                    let Some(waiting) = grace else { return Poll::Pending };
                    ready!(waiting.as_mut().poll(cx));
                    *grace = None;
                    self.original.end();
                }
            }
        }
    }
}

/// The end of a stream normally is in the same segment as its last event.
const END_GRACE: Duration = Duration::from_millis(500);

impl HttpBody for TranslatedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let this = &mut *self;
            if this.last.is_some() {
                let events = ready!(this.poll_last(cx));
                (this.last, this.translation) = (None, None);
                return Poll::Ready((!events.is_empty()).then(|| Ok(Frame::data(events))));
            }
            let Some(translation) = &mut this.translation else { return Poll::Ready(None) };
            let events = match ready!(Pin::new(&mut this.original).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let events = frame.data_ref().map(|data| translation.push(data)).unwrap_or_default();
                    if translation.has_ended() {
                        this.store(&events);
                        this.last = Some((events.into(), Some(Box::pin(tokio::time::sleep(END_GRACE)))));
                        continue;
                    }
                    events
                }
                Some(Err(BodyError::Proxy(error))) => {
                    this.state.mark_incomplete();
                    let kind = ApiErrorKind::of_status(error.status().as_u16());
                    let events = translation.fail(kind, &message(&error));
                    this.translation = None;
                    events
                }
                ended @ (Some(Err(BodyError::Received(_))) | None) => {
                    if ended.is_some() {
                        this.state.mark_incomplete();
                    }
                    // Says that the response is incomplete if its last event is missing.
                    let events = translation.finish();
                    this.store(&events);
                    this.translation = None;
                    events
                }
            };
            if !events.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(events.into()))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_end_with_a_blank_line() {
        for (text, end) in [
            ("", 0),
            ("data: 1", 0),
            ("data: 1\n", 0),
            ("data: 1\n\n", 9),
            ("data: 1\n\ndata: 2\r\n\r\nda", 20),
            ("data: 1\r\rx", 9),
        ] {
            assert_eq!(end_of_events(text.as_bytes()), end, "{text:?}");
        }
    }
}
