//! Keepalives for streams of events, so that clients and load balancers do not time out. While the gateway is paused, a call gets
//! the response head at once, and keepalives until there is a response. A response that is silent, for example while the model
//! produces reasoning that the agent does not get, has keepalives between its events.
//!
//! Keepalives are not recorded, because the backend did not send them.

use super::backend_response::is_event_stream;
use super::call::ResponseState;
use super::response_bodies::{MAX_BLANK_LINE_BYTES, ends_event};
use crate::llm::api::error_message;
use crate::upstream::{Body, BodyError};
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as HttpBody, Frame};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

type BodyFuture = Pin<Box<dyn Future<Output = Body> + Send>>;

/// A stream of events that sends a keepalive at each `period` until `response` is there, and then its body. If `response` is
/// not a stream, the stream ends with an error event: the head has been sent.
pub(super) fn with_keepalive(
    response: impl Future<Output = Response<Body>> + Send + 'static,
    state: Arc<ResponseState>,
    period: Duration,
) -> Response<Body> {
    let keepalive = state.error_format.keepalive();
    let body: BodyFuture = Box::pin(async move {
        let (parts, body) = response.await.into_parts();
        if parts.status.is_success() && is_event_stream(&parts.headers) {
            return body;
        }
        let error = Limited::new(body, MAX_ERROR_BYTES).collect().await;
        let error = error.map(|error| error.to_bytes()).unwrap_or_default();
        state.mark_incomplete();
        crate::upstream::body::full(state.error_format.event(parts.status, &error_message(&error)))
    });
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut response = Response::new(KeepaliveBody::Waiting { body, ticks, keepalive }.boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

enum KeepaliveBody {
    Waiting { body: BodyFuture, ticks: Interval, keepalive: Bytes },
    Streaming(Body),
}

impl HttpBody for KeepaliveBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match &mut *self {
                Self::Streaming(body) => return Pin::new(body).poll_frame(cx),
                Self::Waiting { body, ticks, keepalive } => match body.as_mut().poll(cx) {
                    Poll::Ready(body) => *self = Self::Streaming(body),
                    Poll::Pending => {
                        ready!(ticks.poll_tick(cx));
                        return Poll::Ready(Some(Ok(Frame::data(keepalive.clone()))));
                    }
                },
            }
        }
    }
}

/// The response with `keepalive` after each `period` of silence, if it is a stream of events.
pub(super) fn with_idle_keepalives(response: Response<Body>, keepalive: Bytes, period: Duration) -> Response<Body> {
    // A length could not be kept.
    let has_length = response.headers().contains_key(header::CONTENT_LENGTH);
    if period.is_zero() || has_length || !is_event_stream(response.headers()) {
        return response;
    }
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    response.map(|inner| IdleKeepalives { inner, ticks, keepalive, last_bytes: Vec::new() }.boxed_unsync())
}

struct IdleKeepalives {
    inner: Body,
    ticks: Interval,
    keepalive: Bytes,
    /// The end of what was sent, enough to show whether an event has ended: a keepalive within an event would break it.
    last_bytes: Vec<u8>,
}

impl IdleKeepalives {
    fn is_between_events(&self) -> bool {
        self.last_bytes.is_empty() || ends_event(&self.last_bytes)
    }

    fn sent(&mut self, data: &[u8]) {
        self.last_bytes.extend_from_slice(&data[data.len().saturating_sub(MAX_BLANK_LINE_BYTES)..]);
        let excess = self.last_bytes.len().saturating_sub(MAX_BLANK_LINE_BYTES);
        self.last_bytes.drain(..excess);
        self.ticks.reset();
    }
}

impl HttpBody for IdleKeepalives {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(next) = Pin::new(&mut this.inner).poll_frame(cx) {
            if let Some(data) = next.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                this.sent(data);
            }
            return Poll::Ready(next);
        }
        if !this.is_between_events() {
            return Poll::Pending;
        }
        ready!(this.ticks.poll_tick(cx));
        Poll::Ready(Some(Ok(Frame::data(this.keepalive.clone()))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

const EVENT_STREAM: &str = "text/event-stream";
const MAX_ERROR_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::channel::Channel;

    #[tokio::test(start_paused = true)]
    async fn an_event_that_ends_over_two_frames_is_followed_by_keepalives() {
        let (mut sender, body) = Channel::<Bytes, BodyError>::new(8);
        let mut response = Response::new(body.boxed_unsync());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
        let mut body = with_idle_keepalives(response, Bytes::from_static(b":\n\n"), Duration::from_secs(1)).into_body();
        for part in ["data: 1\n", "\n"] {
            sender.send_data(Bytes::from_static(part.as_bytes())).await.unwrap();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), part);
        }
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), ":\n\n");
        sender.send_data(Bytes::from_static(b"data: 2\n")).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: 2\n");
        let within_event = tokio::time::timeout(Duration::from_secs(60), body.frame()).await;
        assert!(within_event.is_err(), "{within_event:?}");
    }
}
