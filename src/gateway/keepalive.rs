//! The response to a client that asks for a stream while the gateway is paused: the head at once, then comments until there is
//! a response.
//!
//! Readers of event streams ignore comments (WHATWG HTML §9.2.6), and clients and load balancers do not time out.

use super::backend_response::is_event_stream;
use super::call::ResponseState;
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

/// A stream of events that sends a comment at each `period` until `response` is there, and then its body. If `response` is
/// not a stream, the stream ends with an error event: the head has been sent.
pub(super) fn with_keepalive(
    response: impl Future<Output = Response<Body>> + Send + 'static,
    state: Arc<ResponseState>,
    period: Duration,
) -> Response<Body> {
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
    let mut response = Response::new(KeepaliveBody::Waiting { body, ticks }.boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

enum KeepaliveBody {
    Waiting { body: BodyFuture, ticks: Interval },
    Streaming(Body),
}

impl HttpBody for KeepaliveBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match &mut *self {
                Self::Streaming(body) => return Pin::new(body).poll_frame(cx),
                Self::Waiting { body, ticks } => match body.as_mut().poll(cx) {
                    Poll::Ready(body) => *self = Self::Streaming(body),
                    Poll::Pending => {
                        ready!(ticks.poll_tick(cx));
                        return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b": waiting\n\n")))));
                    }
                },
            }
        }
    }
}

const EVENT_STREAM: &str = "text/event-stream";
const MAX_ERROR_BYTES: usize = 64 * 1024;
