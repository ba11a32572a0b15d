//! A body that is buffered before it is passed on: the buffered bytes, then what follows them.

use crate::capture::{EditedBytes, HeldBody, HeldBytes};
use crate::trace::exchange::BodyContent;
use crate::upstream::BodyError;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The buffered bytes, then the rest of the body, or the error in its place.
pub(crate) struct Replay<B> {
    // None once they have passed.
    buffered: Option<HeldBody>,
    rest: Rest<B>,
}

enum Rest<B> {
    None,
    Trailers(Frame<Bytes>),
    Error(BodyError),
    // What was read but not buffered, and what follows.
    More(Option<Bytes>, B),
}

/// What came of buffering a body.
pub(crate) enum Buffered<B> {
    /// All its bytes, and its trailers.
    Whole(HeldBytes, Option<Frame<Bytes>>),
    /// Neither memory nor disk has room for all of it: what is held, what comes next, and the rest.
    NoRoom(HeldBytes, Bytes, B),
    /// It failed behind these bytes.
    Failed(HeldBytes, BodyError),
}

/// Buffers a body to its end, also without room if it is not longer than `always_bytes`.
pub(crate) async fn buffer<B>(mut body: B, mut held: HeldBytes, always_bytes: u64) -> Buffered<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    loop {
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if held.len() + data.len() as u64 <= always_bytes => held.push_always(&data),
                Ok(data) => {
                    if held.push(&data).is_err() {
                        return Buffered::NoRoom(held, data, body);
                    }
                }
                Err(trailers) => return Buffered::Whole(held, Some(trailers)),
            },
            Some(Err(error)) => return Buffered::Failed(held, error),
            None => return Buffered::Whole(held, None),
        }
    }
}

impl<B> Replay<B> {
    /// A body of which all is there.
    pub(crate) fn whole(bytes: EditedBytes, trailers: Option<Frame<Bytes>>) -> Self {
        Self::new(&bytes, trailers.map_or(Rest::None, Rest::Trailers))
    }

    /// A body that fails behind these bytes.
    pub(crate) fn failed(bytes: EditedBytes, error: BodyError) -> Self {
        Self::new(&bytes, Rest::Error(error))
    }

    /// A body of which the rest is still to come: `next`, then `rest`.
    pub(crate) fn begun(bytes: EditedBytes, next: Bytes, rest: B) -> Self {
        Self::new(&bytes, Rest::More(Some(next), rest))
    }

    fn new(bytes: &EditedBytes, rest: Rest<B>) -> Self {
        Self { buffered: Some(bytes.body()).filter(|body| !body.is_end_stream()), rest }
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Body for Replay<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(buffered) = &mut self.buffered {
            let polled = Pin::new(&mut *buffered).poll_frame(cx);
            if buffered.is_end_stream() {
                self.buffered = None;
            }
            return polled.map_err(BodyError::Proxy);
        }
        match std::mem::replace(&mut self.rest, Rest::None) {
            Rest::None => Poll::Ready(None),
            Rest::Trailers(trailers) => Poll::Ready(Some(Ok(trailers))),
            Rest::Error(error) => Poll::Ready(Some(Err(error))),
            Rest::More(Some(next), body) => {
                self.rest = Rest::More(None, body);
                Poll::Ready(Some(Ok(Frame::data(next))))
            }
            Rest::More(None, mut body) => {
                let polled = Pin::new(&mut body).poll_frame(cx);
                self.rest = Rest::More(None, body);
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.buffered.is_none()
            && match &self.rest {
                Rest::None => true,
                Rest::More(next, body) => next.is_none() && body.is_end_stream(),
                Rest::Trailers(_) | Rest::Error(_) => false,
            }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Rest::None => self.buffered.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint),
            // Trailers need a chunked body in HTTP/1.1: then there is no length.
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Memory, MemoryUse};
    use crate::error::{ErrorKind, ProxyError};
    use http::HeaderMap;
    use http_body_util::StreamBody;
    use proptest::prelude::*;

    /// What follows the bytes of a body.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum End {
        Nothing,
        Trailers,
        Error,
    }

    fn replayed<B>(buffered: Buffered<B>) -> Replay<B> {
        match buffered {
            Buffered::Whole(held, trailers) => Replay::whole(held.into(), trailers),
            Buffered::NoRoom(held, next, rest) => Replay::begun(held.into(), next, rest),
            Buffered::Failed(held, error) => Replay::failed(held.into(), error),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_body_is_replayed_with_what_follows_it(
            pieces in prop::collection::vec(0..70_000_usize, 0..6),
            end in prop::sample::select(vec![End::Nothing, End::Trailers, End::Error]),
            budget in prop::sample::select(vec![0_u64, 50_000, 1 << 30]),
            always_bytes in prop::sample::select(vec![0_u64, 100_000]),
            has_disk in any::<bool>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let memory = Memory::new(budget, if has_disk { folder.path().to_owned() } else { folder.path().join("none") });
            let whole: Vec<u8> = (0..pieces.iter().sum()).map(|at: usize| at as u8).collect();
            let mut rest = &whole[..];
            let frames = pieces.iter().map(|length| {
                let (piece, after) = rest.split_at(*length);
                rest = after;
                Ok(Frame::data(Bytes::copy_from_slice(piece)))
            });
            let mut frames: Vec<Result<Frame<Bytes>, BodyError>> = frames.collect();
            match end {
                End::Nothing => {}
                End::Trailers => frames.push(Ok(Frame::trailers(HeaderMap::new()))),
                End::Error => frames.push(Err(ProxyError::new(ErrorKind::ProxyInternalError, "", "it broke off").into())),
            }
            let body = StreamBody::new(futures_util::stream::iter(frames));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let buffered = buffer(body, HeldBytes::new(&memory, MemoryUse::Stripping), always_bytes).await;
                let is_whole = matches!(buffered, Buffered::Whole(..));
                prop_assert_eq!(is_whole, end != End::Error && !matches!(buffered, Buffered::NoRoom(..)));
                prop_assert!(!has_disk || !matches!(buffered, Buffered::NoRoom(..)));
                prop_assert!(memory.budget().peak_bytes() <= budget.max(always_bytes));
                let mut replay = replayed(buffered);
                let length = (is_whole && end == End::Nothing).then_some(whole.len() as u64);
                prop_assert_eq!(replay.size_hint().exact(), length);
                let (mut read, mut followed) = (Vec::new(), End::Nothing);
                while let Some(frame) = replay.frame().await {
                    match frame.map(Frame::into_data) {
                        Ok(Ok(data)) => read.extend_from_slice(&data),
                        Ok(Err(_)) => followed = End::Trailers,
                        Err(_) => {
                            followed = End::Error;
                            break;
                        }
                    }
                }
                prop_assert!(read == whole && followed == end);
                prop_assert!(replay.is_end_stream() || length.is_none());
                Ok(())
            })?;
        }
    }
}
