//! Answers without what was only asked for on the agent's behalf.
//!
//! An event is passed on when its last byte is there; a whole answer is read to its end. It must not hold back more.

use super::MOST_WHOLE_BYTES;
use crate::capture::TeeBody;
use crate::forward::whole::read_whole;
use crate::upstream::Body as AnyBody;
use crate::upstream::body::IdleLimited;
use crate::wire::json_edit::{Changes, change, has};
use crate::wire::sse::Events;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// An answer without what the agent did not ask for. The record has it all.
pub(in crate::forward) async fn stripped(
    tee: TeeBody<IdleLimited>,
    changes: Changes,
    headers: &mut HeaderMap,
) -> AnyBody {
    match shape_of(headers) {
        Shape::Other => tee.boxed_unsync(),
        Shape::Events => {
            headers.remove(header::CONTENT_LENGTH);
            StrippedEvents::new(tee, changes).boxed_unsync()
        }
        Shape::Whole => match read_whole(tee, MOST_WHOLE_BYTES).await {
            Ok((whole, rest)) => {
                let bytes = strip_whole(whole, &changes);
                if headers.contains_key(header::CONTENT_LENGTH) {
                    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
                }
                rest.with(bytes).boxed_unsync()
            }
            Err(broken) => broken.boxed_unsync(),
        },
    }
}

/// How an answer is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// One JSON text.
    Whole,
    /// Server-sent events.
    Events,
    /// It can't be: compressed, or something else.
    Other,
}

/// How the answer with these fields is to be changed.
fn shape_of(headers: &HeaderMap) -> Shape {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    match kind.split(';').next().unwrap_or_default().trim() {
        _ if headers.contains_key(header::CONTENT_ENCODING) => Shape::Other,
        "application/json" => Shape::Whole,
        "text/event-stream" => Shape::Events,
        _ => Shape::Other,
    }
}

/// A stream of events with each of them changed. An event is passed on when its last byte is there.
struct StrippedEvents<B> {
    inner: B,
    changes: Changes,
    unfinished: BytesMut,
    last: Option<Frame<Bytes>>,
    ended: bool,
}

impl<B> StrippedEvents<B> {
    fn new(inner: B, changes: Changes) -> Self {
        Self { inner, changes, unfinished: BytesMut::new(), last: None, ended: false }
    }

    /// The whole events that are there by now, changed.
    fn finished(&mut self) -> Bytes {
        let whole = Events::new(&self.unfinished).filter(|event| event.complete).last().map_or(0, |event| event.end);
        let raw = self.unfinished.split_to(whole);
        let mut out = BytesMut::with_capacity(raw.len());
        let mut from = 0;
        for event in Events::new(&raw) {
            strip_event(&raw[from..event.end], &event.data, &self.changes, &mut out);
            from = event.end;
        }
        out.freeze()
    }
}

/// One event as it was, but for its data.
fn strip_event(raw: &[u8], data: &[u8], changes: &Changes, out: &mut BytesMut) {
    let Some(changed) = change(data, changes) else { return out.extend_from_slice(raw) };
    if is_empty_event(&changed, data) {
        return;
    }
    match memchr::memmem::find(raw, data) {
        Some(at) => {
            out.extend_from_slice(&raw[..at]);
            out.extend_from_slice(&changed);
            out.extend_from_slice(&raw[at + data.len()..]);
        }
        // Data of several lines has no place of its own.
        None => out.extend_from_slice(raw),
    }
}

/// An event that was only there for what was taken out of it: without choices and usage.
fn is_empty_event(changed: &[u8], data: &[u8]) -> bool {
    has(data, "sglext") && !has(changed, "usage") && memchr::memmem::find(changed, b"\"choices\":[]").is_some()
}

impl<B: Body<Data = Bytes> + Unpin> Body for StrippedEvents<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        loop {
            if let Some(last) = this.last.take() {
                return Poll::Ready(Some(Ok(last)));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        this.unfinished.extend_from_slice(&data);
                        let finished = match this.unfinished.len() {
                            // Not an event that anybody waits for.
                            length if length > MOST_EVENT_BYTES => this.unfinished.split().freeze(),
                            _ => this.finished(),
                        };
                        if !finished.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(finished))));
                        }
                    }
                    Err(trailers) => {
                        this.last = Some(trailers);
                        if !this.unfinished.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(this.unfinished.split().freeze()))));
                        }
                    }
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    this.ended = true;
                    if !this.unfinished.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(this.unfinished.split().freeze()))));
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.inner.is_end_stream() && self.unfinished.is_empty() && self.last.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A whole answer, changed.
fn strip_whole(body: Bytes, changes: &Changes) -> Bytes {
    change(&body, changes).map_or(body, Bytes::from)
}

/// The largest event that is waited for.
const MOST_EVENT_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json_edit::Change::Remove;
    use http_body_util::StreamBody;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn stripped(parts: Vec<Vec<u8>>) -> String {
        let changes = Changes {
            root: vec![("prompt_token_ids", Remove), ("sglext", Remove)],
            choice: vec![("token_ids", Remove)],
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let frames = parts.into_iter().map(|part| Ok::<_, Infallible>(Frame::data(Bytes::from(part))));
        let body = StrippedEvents::new(StreamBody::new(futures_util::stream::iter(frames)), changes);
        String::from_utf8(runtime.block_on(body.collect()).unwrap().to_bytes().to_vec()).unwrap()
    }

    const STREAM: &str = "\u{feff}: hi\r\n\r\ndata: {\"prompt_token_ids\":[1],\"choices\":[{\"token_ids\":[2],\"delta\":{\"content\":\"é\"}}]}\r\n\r\nevent: x\ndata: {\"choices\":[]}\n\ndata: {\"choices\":[],\"sglext\":{\"input_ids\":[1]}}\n\ndata: [DONE]\n\ndata: {\"unfinished";

    #[test]
    fn a_stream_loses_only_what_was_added() {
        let expected = "\u{feff}: hi\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"é\"}}]}\r\n\r\nevent: x\ndata: {\"choices\":[]}\n\ndata: [DONE]\n\ndata: {\"unfinished";
        assert_eq!(stripped(vec![STREAM.as_bytes().to_vec()]), expected);
    }

    proptest! {
        #[test]
        fn any_division_of_a_stream_gives_the_same(cuts in prop::collection::vec(0..STREAM.len(), 0..12)) {
            let (mut cuts, mut parts, mut from) = (cuts, Vec::new(), 0);
            cuts.sort_unstable();
            for cut in cuts.into_iter().chain([STREAM.len()]) {
                parts.push(STREAM.as_bytes()[from..cut].to_vec());
                from = cut;
            }
            prop_assert_eq!(stripped(parts), stripped(vec![STREAM.as_bytes().to_vec()]));
        }
    }
}
