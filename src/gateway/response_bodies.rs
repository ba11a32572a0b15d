//! The bodies of responses to agents: that of a backend, and what is made of it.
//!
//! They hold at most one frame, besides what is held of a whole response.

use super::backends::Backend;
use super::call::{CallEnd, ResponseState};
use super::error_response::message;
use super::in_flight::InFlightPermit;
use crate::capture::{Recording, TeeBody, VersionChange};
use crate::forward::replay::Replay;
use crate::llm::api::ApiErrorKind;
use crate::llm::translate::StreamTranslator;
use crate::upstream::{Body, BodyError, IdleLimited};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The permits of a call, held until the end of its response.
pub(super) struct CallPermits {
    /// Of the pause gate.
    pub(super) _gate: InFlightPermit,
    pub(super) _backend: InFlightPermit,
}

/// The body of a backend's response. Records when the weights change, and fails when the call must end.
pub(super) struct BackendBody {
    pub(super) inner: IdleLimited,
    pub(super) backend: Arc<Backend>,
    /// The version of the weights that was recorded last.
    pub(super) version: i64,
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
        this.has_begun = true;
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
/// breaks off.
pub(super) struct EventStreamBody {
    inner: Body,
    state: Arc<ResponseState>,
    has_ended: bool,
}

impl EventStreamBody {
    pub(super) fn new(inner: Body, state: Arc<ResponseState>) -> Self {
        Self { inner, state, has_ended: false }
    }
}

impl HttpBody for EventStreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Err(BodyError::Proxy(error))) => {
                self.has_ended = true;
                self.state.mark_incomplete();
                let event = self.state.error_format.event(error.status(), &message(&error));
                Poll::Ready(Some(Ok(Frame::data(event))))
            }
            other => Poll::Ready(other),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // An error event may be added.
        SizeHint::default()
    }
}

/// A stream of events, translated into the agent's API. It always ends with the last event of that API, which says how the
/// response ended.
pub(super) struct TranslatedBody {
    pub(super) original: TeeBody<Replay<Body>>,
    /// `None` once the last event was returned.
    pub(super) translation: Option<StreamTranslator>,
    pub(super) state: Arc<ResponseState>,
}

impl HttpBody for TranslatedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let this = &mut *self;
            let Some(translation) = &mut this.translation else { return Poll::Ready(None) };
            let events = match ready!(Pin::new(&mut this.original).poll_frame(cx)) {
                Some(Ok(frame)) => frame.data_ref().map(|data| translation.push(data)).unwrap_or_default(),
                Some(Err(BodyError::Proxy(error))) => {
                    this.state.mark_incomplete();
                    let kind = ApiErrorKind::of_status(error.status().as_u16());
                    let events = translation.fail(kind, &message(&error));
                    this.translation = None;
                    events
                }
                ended @ (Some(Err(BodyError::Http(_))) | None) => {
                    if ended.is_some() {
                        this.state.mark_incomplete();
                    }
                    // Says that the response is incomplete if its last event is missing.
                    let events = translation.finish();
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
