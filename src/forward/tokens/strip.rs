//! Removes from responses what was requested on the agent's behalf.
//!
//! A stream is held back event by event, at most `MAX_EVENT_BYTES`; a JSON response is buffered whole, at most
//! [`MAX_BUFFERED_BYTES`].

use super::settings::MAX_BUFFERED_BYTES;
use crate::capture::{Recording, TeeBody};
use crate::forward::replay::buffer;
use crate::upstream::{Body as AnyBody, BodyError};
use crate::wire::json::parse;
use crate::wire::json_edit::{Changes, Object, change};
use crate::wire::sse::Events;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The response without what the agent did not request. The record has it all.
pub(crate) async fn stripped<B>(
    tee: TeeBody<B>,
    changes: Changes,
    headers: &mut HeaderMap,
    recording: &Recording,
) -> AnyBody
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin + Send + 'static,
{
    match shape_of(headers) {
        Shape::Other => {
            recording.not_stripped();
            tee.boxed_unsync()
        }
        Shape::Events => {
            headers.remove(header::CONTENT_LENGTH);
            StrippedEvents::new(tee, changes).boxed_unsync()
        }
        Shape::Whole => match buffer(tee, MAX_BUFFERED_BYTES).await {
            Ok((whole, rest)) => {
                let bytes = strip_whole(whole, &changes);
                if headers.contains_key(header::CONTENT_LENGTH) {
                    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
                }
                rest.with_bytes(bytes).boxed_unsync()
            }
            Err(unchanged) => unchanged.boxed_unsync(),
        },
    }
}

/// How a response is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// One JSON text.
    Whole,
    /// Server-sent events.
    Events,
    /// Not at all: it is compressed, or of another type.
    Other,
}

/// How the response with these header fields is changed.
fn shape_of(headers: &HeaderMap) -> Shape {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    match kind.split(';').next().unwrap_or_default().trim() {
        _ if headers.contains_key(header::CONTENT_ENCODING) => Shape::Other,
        "application/json" => Shape::Whole,
        "text/event-stream" => Shape::Events,
        _ => Shape::Other,
    }
}

/// A stream with each of its events changed. An event, or a comment, is passed on with the blank line that ends it.
struct StrippedEvents<B: Body> {
    inner: B,
    changes: Changes,
    unfinished: BytesMut,
    // Start of the line that has no end yet, and how far its end has been searched for, as indexes into `unfinished`.
    line: usize,
    searched: usize,
    next: Option<Result<Frame<Bytes>, B::Error>>,
    ended: bool,
}

impl<B: Body> StrippedEvents<B> {
    fn new(inner: B, changes: Changes) -> Self {
        Self { inner, changes, unfinished: BytesMut::new(), line: 0, searched: 0, next: None, ended: false }
    }

    /// The events that are complete, changed.
    fn take_complete(&mut self) -> Bytes {
        let whole = self.find_blank_line();
        let raw = self.unfinished.split_to(whole);
        (self.line, self.searched) = (self.line - whole, self.searched - whole);
        let mut out = BytesMut::with_capacity(raw.len());
        let mut from = 0;
        for event in Events::new(&raw) {
            strip_event(&raw[from..event.end], &event.data, &self.changes, &mut out);
            from = event.end;
        }
        out.extend_from_slice(&raw[from..]);
        out.freeze()
    }

    /// The index after the last blank line. Every byte is searched once.
    fn find_blank_line(&mut self) -> usize {
        let bytes = &self.unfinished[..];
        let mut whole = 0;
        while let Some(end) = memchr::memchr2(b'\n', b'\r', &bytes[self.searched..]).map(|at| self.searched + at) {
            let after = match (bytes[end], bytes.get(end + 1)) {
                // It is not known yet whether a line feed follows.
                (b'\r', None) => {
                    self.searched = end;
                    return whole;
                }
                (b'\r', Some(b'\n')) => end + 2,
                _ => end + 1,
            };
            if end == self.line {
                whole = after;
            }
            (self.line, self.searched) = (after, after);
        }
        self.searched = bytes.len();
        whole
    }

    /// Everything that is held back, unchanged.
    fn take_rest(&mut self) -> Option<Frame<Bytes>> {
        (self.line, self.searched) = (0, 0);
        (!self.unfinished.is_empty()).then(|| Frame::data(self.unfinished.split().freeze()))
    }
}

/// Appends an event with its data changed.
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
        // Data of several lines is not contiguous in the event.
        None => out.extend_from_slice(raw),
    }
}

/// True for an event that was sent only for what was removed from it: it has neither choices nor usage.
fn is_empty_event(changed: &[u8], data: &[u8]) -> bool {
    Object::find(data).is_some_and(|object| object.has("sglext"))
        && parse(changed).is_ok_and(|event| event.get("choices").is_empty_list() && event.get("usage").is_null())
}

impl<B: Body<Data = Bytes> + Unpin> Body for StrippedEvents<B>
where
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        loop {
            if let Some(next) = this.next.take() {
                return Poll::Ready(Some(next));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let next = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        this.unfinished.extend_from_slice(&data);
                        let complete = this.take_complete();
                        if !complete.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(complete))));
                        }
                        // Too long to hold back: it passes unchanged.
                        if this.unfinished.len() > MAX_EVENT_BYTES
                            && let Some(rest) = this.take_rest()
                        {
                            return Poll::Ready(Some(Ok(rest)));
                        }
                        continue;
                    }
                    Err(trailers) => Some(Ok(trailers)),
                },
                Some(Err(error)) => Some(Err(error)),
                None => {
                    this.ended = true;
                    None
                }
            };
            this.next = next;
            // What is held back passes before the end, trailers or error.
            if let Some(rest) = this.take_rest() {
                return Poll::Ready(Some(Ok(rest)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.unfinished.is_empty() && (self.ended || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A whole response, changed.
fn strip_whole(body: Bytes, changes: &Changes) -> Bytes {
    change(&body, changes).map_or(body, Bytes::from)
}

/// Maximum size of an event that is held back until it is complete.
const MAX_EVENT_BYTES: usize = 16 << 20;

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

    const STREAM: &str = "\u{feff}: hi\r\n\r\ndata: {\"prompt_token_ids\":[1],\"choices\":[{\"token_ids\":[2],\"delta\":{\"content\":\"é\"}}]}\r\n\r\nevent: x\ndata: {\"choices\":[]}\n\ndata: {\"choices\": [],\"usage\":null,\"sglext\":{\"input_ids\":[1]}}\n\ndata: [DONE]\n\ndata: {\"unfinished";

    #[test]
    fn comments_do_not_wait_for_events() {
        let mut body = StrippedEvents::new(http_body_util::Empty::<Bytes>::new(), Changes::default());
        let mut push = |part: &str| {
            body.unfinished.extend_from_slice(part.as_bytes());
            String::from_utf8(body.take_complete().to_vec()).unwrap()
        };
        assert_eq!(push(": ping\n"), "");
        assert_eq!(push("\n: pong\r\n\r"), ": ping\n\n");
        assert_eq!(push("\ndata: {\"sglext\":{},"), ": pong\r\n\r\n");
        assert_eq!(
            push("\"choices\": [],\"usage\":null}\n\ndata: 1\n\n"),
            "data: {\"sglext\":{},\"choices\": [],\"usage\":null}\n\ndata: 1\n\n"
        );
    }

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
