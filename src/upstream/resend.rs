//! A request body over HTTP/2 that can be sent once more, should the endpoint say that it did not process the request.
//!
//! Bound: [`MAX_KEPT_BYTES`] of a request until its response begins. Frames are kept, not copied.

use super::body::{Body, BodyError, empty};
use crate::error::{ErrorKind, ProxyError};
use crate::util::panics::{catch, discard};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// One sending of a body.
pub(super) struct Resendable {
    progress: RequestProgress,
    // Kept frames that this sending has passed on.
    passed: usize,
    number: u32,
}

/// How far a request has been sent.
#[derive(Clone)]
pub(crate) struct RequestProgress(Arc<Mutex<Sending>>);

struct Sending {
    body: Body,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// False once a frame was not kept.
    is_kept: bool,
    is_whole: bool,
    // The sending that may read on. An earlier one may still be polled for a moment.
    number: u32,
    has_panicked: bool,
}

impl Resendable {
    /// The first sending of `body`.
    pub(super) fn new(body: Body) -> Self {
        let is_whole = body.is_end_stream();
        let sending =
            Sending { body, kept: Vec::new(), kept_bytes: 0, is_kept: true, is_whole, number: 0, has_panicked: false };
        Self { progress: RequestProgress(Arc::new(Mutex::new(sending))), passed: 0, number: 0 }
    }

    pub(super) fn progress(&self) -> RequestProgress {
        self.progress.clone()
    }
}

impl RequestProgress {
    /// Another sending from the start, which takes the place of the one before. `None` if what was sent is no longer kept.
    pub(super) fn again(&self) -> Option<Resendable> {
        let mut sending = self.lock();
        sending.number += 1;
        sending.is_kept.then(|| Resendable { progress: self.clone(), passed: 0, number: sending.number })
    }

    /// Forgets what was sent: the endpoint processes the request.
    pub(super) fn forget(&self) {
        self.lock().stop_keeping();
    }

    /// True once the body has panicked.
    pub(super) fn has_panicked(&self) -> bool {
        self.lock().has_panicked
    }

    /// True once the whole request was passed to the connection.
    pub(crate) fn is_whole(&self) -> bool {
        self.lock().is_whole
    }

    fn lock(&self) -> MutexGuard<'_, Sending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sending {
    fn stop_keeping(&mut self) {
        self.is_kept = false;
        self.kept = Vec::new();
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        match frame.data_ref() {
            Some(data) if self.is_kept && self.kept_bytes + data.len() <= MAX_KEPT_BYTES => {
                self.kept_bytes += data.len();
                self.kept.push(data.clone());
            }
            _ => self.stop_keeping(),
        }
    }
}

impl HttpBody for Resendable {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let mut sending = this.progress.lock();
        if let Some(data) = sending.kept.get(this.passed) {
            this.passed += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if this.number != sending.number {
            // An end would make what was sent look like the whole request.
            let cause = "the request is sent again on another connection";
            return Poll::Ready(Some(Err(ProxyError::new(ErrorKind::HttpRequestIncomplete, "", cause).into())));
        }
        if sending.is_whole {
            return Poll::Ready(None);
        }
        let polled = catch(|| Pin::new(&mut sending.body).poll_frame(cx)).unwrap_or_else(|panicked| {
            sending.has_panicked = true;
            discard(std::mem::replace(&mut sending.body, empty()));
            Poll::Ready(Some(Err(ProxyError::from(panicked).into())))
        });
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                sending.keep(frame);
                this.passed = sending.kept.len();
                sending.is_whole = sending.body.is_end_stream() || frame.is_trailers();
            }
            Poll::Ready(None) => sending.is_whole = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let sending = self.progress.lock();
        self.passed >= sending.kept.len() && sending.is_whole
    }

    fn size_hint(&self) -> SizeHint {
        let sending = self.progress.lock();
        let kept: u64 = sending.kept.iter().skip(self.passed).map(|data| data.len() as u64).sum();
        let rest = sending.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + kept);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + kept);
        }
        hint
    }
}

/// More than an endpoint gets before it can refuse a stream, with its window at the default size (RFC 9113 §6.9.2).
const MAX_KEPT_BYTES: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};
    use proptest::prelude::*;

    fn body_of(pieces: &[usize]) -> Body {
        let frames: Vec<Result<Frame<Bytes>, BodyError>> = pieces
            .iter()
            .enumerate()
            .map(|(at, length)| Ok(Frame::data(Bytes::from(vec![u8::try_from(at % 251).unwrap(); *length]))))
            .collect();
        StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_body_is_sent_again_from_its_start(
            pieces in prop::collection::vec(0usize..50_000, 0..8),
            sent_before in prop::collection::vec(0usize..8, 0..3),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let expected = body_of(&pieces).collect().await.unwrap().to_bytes();
                let mut sending = Resendable::new(body_of(&pieces));
                let progress = sending.progress();
                for count in sent_before {
                    for _ in 0..count {
                        drop(sending.frame().await);
                    }
                    let Some(again) = progress.again() else { return Ok(()) };
                    sending = again;
                }
                let got = sending.collect().await.unwrap().to_bytes();
                prop_assert!(got == expected && progress.is_whole());
                prop_assert_eq!(progress.again().is_some(), expected.len() <= MAX_KEPT_BYTES);
                progress.forget();
                prop_assert!(progress.again().is_none());
                Ok(())
            })?;
        }
    }
}
