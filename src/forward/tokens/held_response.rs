//! A response that is held until its end, for its length to be known: within the memory budget, or on disk.

use crate::capture::{EditedBytes, HeldBody, HeldBytes, Memory, MemoryUse};
use crate::upstream::BodyError;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The held bytes, and then what followed them: trailers, or an error.
pub(super) struct HeldResponse {
    bytes: HeldBody,
    next: Option<Result<Frame<Bytes>, BodyError>>,
}

impl HeldResponse {
    /// Holds a body to its end, or to its error.
    pub(super) async fn read<B>(mut body: B, memory: &Memory) -> Self
    where
        B: Body<Data = Bytes, Error = BodyError> + Unpin,
    {
        let mut held = HeldBytes::new(memory, MemoryUse::Stripping);
        let next = loop {
            match body.frame().await.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => held.push_always(&data),
                Some(Ok(Err(trailers))) => break Some(Ok(trailers)),
                Some(Err(error)) => break Some(Err(error)),
                None => break None,
            }
        };
        Self { bytes: EditedBytes::from(held).body(), next }
    }

    /// The number of bytes. `None`: it broke off.
    pub(super) fn length(&self) -> Option<u64> {
        self.bytes.size_hint().exact().filter(|_| !matches!(self.next, Some(Err(_))))
    }
}

impl Body for HeldResponse {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(frame) = ready!(Pin::new(&mut self.bytes).poll_frame(cx)) {
            return Poll::Ready(Some(frame.map_err(BodyError::from)));
        }
        Poll::Ready(self.next.take())
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_end_stream() && self.next.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // Trailers need a chunked body in HTTP/1.1: then there is no length.
        if self.next.is_none() { self.bytes.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{CaptureSettings, Recorder};
    use crate::error::{ErrorKind, ProxyError};
    use http::HeaderMap;
    use http_body_util::StreamBody;

    #[tokio::test]
    async fn what_follows_the_bytes_comes_after_them() {
        let folder = tempfile::tempdir().unwrap();
        for memory_budget_bytes in [0, 1 << 20] {
            let settings = CaptureSettings { memory_budget_bytes, ..CaptureSettings::default() };
            let (recorder, _queue) = Recorder::new(settings, folder.path().to_owned());
            let error = || ProxyError::new(ErrorKind::ProxyInternalError, "", "it broke off");
            for end in [None, Some(Ok(Frame::trailers(HeaderMap::new()))), Some(Err(BodyError::from(error())))] {
                let (has_end, has_failed) = (end.is_some(), matches!(end, Some(Err(_))));
                let data = ["ab".repeat(50_000), "c".to_owned()].map(|text| Ok(Frame::data(Bytes::from(text))));
                let inner = StreamBody::new(futures_util::stream::iter(data.into_iter().chain(end)));
                let mut held = HeldResponse::read(inner, recorder.memory()).await;
                assert_eq!(held.length(), (!has_failed).then_some(100_001));
                assert_eq!(held.size_hint().exact(), (!has_end).then_some(100_001));
                let mut bytes = Vec::new();
                while bytes.len() < 100_001 {
                    assert!(!held.is_end_stream());
                    bytes.extend(held.frame().await.unwrap().unwrap().into_data().unwrap());
                }
                assert_eq!(bytes, ["ab".repeat(50_000), "c".to_owned()].concat().into_bytes());
                assert_eq!(held.is_end_stream(), !has_end);
                if has_end {
                    assert_eq!(held.frame().await.unwrap().is_err(), has_failed);
                }
                assert!(held.frame().await.is_none());
            }
            assert_eq!(recorder.memory().budget().left_bytes(), memory_budget_bytes);
        }
    }
}
