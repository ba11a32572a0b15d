//! The answer to a client that waits for a stream while the gateway is paused: its head at once, comments meanwhile.
//!
//! A comment is nothing to a reader of events (WHATWG HTML §9.2.6), but keeps clients and load balancers from giving up.

use super::handle::ResponseState;
use crate::llm::api::error_message;
use crate::upstream::{Body, BodyError};
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as HttpBody, Frame};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

type Waiting = Pin<Box<dyn Future<Output = Body> + Send>>;

/// The head of a stream of events, and a body that says something now and then until there is an answer.
pub(super) fn kept_alive(
    answering: impl Future<Output = Response<Body>> + Send + 'static,
    told: Arc<ResponseState>,
    every: Duration,
) -> Response<Body> {
    let waiting: Waiting = Box::pin(async move {
        let response = answering.await;
        let (parts, body) = response.into_parts();
        let kind = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if parts.status.is_success() && kind.starts_with(b"text/event-stream") {
            return body;
        }
        // The head has been sent: an error can only be an event.
        let read = Limited::new(body, MAX_ERROR_BYTES).collect().await;
        let text = read.map(|read| read.to_bytes()).unwrap_or_default();
        told.mark_incomplete();
        crate::upstream::body::full(told.shape.event(parts.status, &error_message(&text)))
    });
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut response = Response::new(KeptAlive::Waiting { waiting, ticks }.boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

enum KeptAlive {
    Waiting { waiting: Waiting, ticks: Interval },
    Flowing(Body),
}

impl HttpBody for KeptAlive {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match &mut *self {
                Self::Flowing(body) => return Pin::new(body).poll_frame(cx),
                Self::Waiting { waiting, ticks } => match waiting.as_mut().poll(cx) {
                    Poll::Ready(body) => *self = Self::Flowing(body),
                    Poll::Pending => {
                        std::task::ready!(ticks.poll_tick(cx));
                        return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b": waiting\n\n")))));
                    }
                },
            }
        }
    }
}

const MAX_ERROR_BYTES: usize = 64 * 1024;
