//! An error response that arrives while the agent still sends its request.
//!
//! Over HTTP/2 some clients (curl) end their request early as soon as they see such a status. The HTTP library then resets the
//! stream, because the request is shorter than it declared, and the rest of the response with it. So a short response is
//! passed on in one piece, head and body.

use crate::upstream::{Body, BodyError};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Frames that are there, then the rest of a body.
struct Gathered {
    frames: VecDeque<Result<Frame<Bytes>, BodyError>>,
    rest: Body,
}

/// The body once its first [`MAX_BYTES`], or all of it, have arrived, or after [`MAX_DELAY`].
pub(super) async fn gathered(mut body: Body) -> Body {
    let mut frames = VecDeque::new();
    let mut bytes = 0;
    let gather = async {
        while bytes < MAX_BYTES {
            let Some(frame) = body.frame().await else { return };
            bytes += frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
            let is_error = frame.is_err();
            frames.push_back(frame);
            if is_error {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(MAX_DELAY, gather).await;
    Gathered { frames, rest: body }.boxed_unsync()
}

impl HttpBody for Gathered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.is_end_stream()
    }
}

const MAX_BYTES: usize = 64 * 1024;
const MAX_DELAY: Duration = Duration::from_secs(1);
