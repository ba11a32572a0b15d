//! Trailers of chunked HTTP/1.1 messages. The HTTP library sends only those that a `Trailer` field announced, and to a client
//! only if it sent `TE: trailers`. Without a proxy all of them arrive.
//!
//! A [`TrailerBody`] keeps its trailers from the library and hands them to the socket, a [`TrailerIo`], which writes them
//! into the end of the chunked body that the library writes.

use super::io::{BoxedIo, flush_through, read_through};
use bytes::{Buf, Bytes};
use http::{HeaderMap, header};
use hyper::body::{Body, Frame, SizeHint};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// The handle of a [`TrailerIo`]: the trailer section of the message that ends next.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrailerSender(Arc<Mutex<Option<Bytes>>>);

impl TrailerSender {
    fn send(&self, trailers: &HeaderMap) {
        let mut section = b"0\r\n".to_vec();
        for (name, value) in trailers {
            section.extend_from_slice(name.as_str().as_bytes());
            section.extend_from_slice(b": ");
            section.extend_from_slice(value.as_bytes());
            section.extend_from_slice(b"\r\n");
        }
        section.extend_from_slice(b"\r\n");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(section.into());
    }

    fn is_waiting(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn take(&self) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Where the trailers of a body go: to the socket of an HTTP/1.1 connection, or, while none is set, with the body.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrailerRoute(Arc<Mutex<Option<TrailerSender>>>);

impl TrailerRoute {
    /// Sets the socket of the connection that the message is sent over; `None` for HTTP/2.
    pub(crate) fn set(&self, socket: Option<TrailerSender>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = socket;
    }

    fn socket(&self) -> Option<TrailerSender> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// True for a message that an HTTP/1.1 connection sends chunked, if it may at all.
pub(crate) fn is_chunked(headers: &HeaderMap, body: &impl Body) -> bool {
    !headers.contains_key(header::CONTENT_LENGTH) && body.size_hint().exact().is_none()
}

/// A body that ends before its trailers if a socket writes them.
pub(crate) struct TrailerBody<B> {
    inner: B,
    route: TrailerRoute,
    has_ended: bool,
}

impl<B> TrailerBody<B> {
    /// Wraps a body; its trailers take `route`.
    pub(crate) fn new(inner: B, route: TrailerRoute) -> Self {
        Self { inner, route, has_ended: false }
    }
}

impl<B: Body + Unpin> Body for TrailerBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
            && let Some(socket) = self.route.socket()
        {
            socket.send(trailers);
            self.has_ended = true;
            return Poll::Ready(None);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A socket that messages are written to. Reads pass unchanged.
pub(crate) struct TrailerIo {
    inner: BoxedIo,
    trailers: TrailerSender,
    // What is left of the section that is being written.
    section: Bytes,
}

impl TrailerIo {
    /// Wraps a socket.
    pub(crate) fn new(inner: BoxedIo) -> (Self, TrailerSender) {
        let trailers = TrailerSender::default();
        (Self { inner, trailers: trailers.clone(), section: Bytes::new() }, trailers)
    }

    /// Writes `buf` while trailers wait. The library has written the end of their body, which is the end of `buf`, of what
    /// follows in `more`, or all that is left.
    fn poll_last(&mut self, cx: &mut Context<'_>, buf: &[u8], more: bool) -> Poll<io::Result<usize>> {
        if !more && buf == END && self.section.is_empty() {
            self.section = self.trailers.take().unwrap_or_default();
        }
        if self.section.is_empty() {
            let before = buf.strip_suffix(END).filter(|before| !more && !before.is_empty()).unwrap_or(buf);
            return Pin::new(&mut self.inner).poll_write(cx, before);
        }
        while self.section.has_remaining() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.section))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.section.advance(written);
        }
        Poll::Ready(Ok(END.len()))
    }

    fn is_waiting(&self) -> bool {
        !self.section.is_empty() || self.trailers.is_waiting()
    }
}

read_through!(TrailerIo);

impl AsyncWrite for TrailerIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_waiting() { self.poll_last(cx, buf, false) } else { Pin::new(&mut self.inner).poll_write(cx, buf) }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.is_waiting() {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        }
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        let first = filled.next().map_or(&[][..], |buf| &**buf);
        self.poll_last(cx, first, filled.next().is_some())
    }

    flush_through!();
}

/// The end of a chunked body without trailers, as the library writes it.
const END: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::StreamBody;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use std::convert::Infallible;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What a client gets that sends `requests` requests, over a socket that takes `room` bytes at once.
    fn responses(chunks: Vec<Vec<u8>>, requests: usize, room: usize) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(room);
            let (io, socket) = TrailerIo::new(Box::new(server));
            let service = service_fn(move |_: Request<hyper::body::Incoming>| {
                let data = chunks.iter().map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::from(chunk.clone()))));
                let mut trailers = HeaderMap::new();
                for (name, value) in [("x-a", "1"), ("x-b", "2"), ("x-a", "3")] {
                    trailers.append(name, value.parse().unwrap());
                }
                let frames: Vec<_> = data.chain([Ok(Frame::trailers(trailers))]).collect();
                let route = TrailerRoute::default();
                route.set(Some(socket.clone()));
                let body = TrailerBody::new(StreamBody::new(stream::iter(frames)), route);
                async { Ok::<_, Infallible>(Response::new(body)) }
            });
            let serving = hyper::server::conn::http1::Builder::new()
                .auto_date_header(false)
                .serve_connection(TokioIo::new(io), service);
            let talk = async {
                let asked = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(requests - 1)
                    + "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
                let (mut read, mut write) = tokio::io::split(&mut client);
                let mut got = Vec::new();
                let (sent, _) = tokio::join!(write.write_all(asked.as_bytes()), read.read_to_end(&mut got));
                sent.unwrap();
                got
            };
            let (_, got) = tokio::join!(serving, talk);
            got
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn trailers_end_every_message_whatever_the_socket_takes(
            chunks in prop::collection::vec(prop::sample::select(vec![&b"x"[..], END, b"\r\n", &[b'y'; 40_000]]), 0..4),
            requests in 1_usize..4,
            room in prop::sample::select(vec![1_usize, 2, 3, 7, 64, 100_000]),
        ) {
            let chunks: Vec<Vec<u8>> = chunks.into_iter().map(<[u8]>::to_vec).collect();
            let body: Vec<u8> = chunks
                .iter()
                .flat_map(|chunk| [format!("{:X}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
                .collect();
            let end = b"0\r\nx-a: 1\r\nx-a: 3\r\nx-b: 2\r\n\r\n";
            let head = |close| format!("HTTP/1.1 200 OK\r\n{close}transfer-encoding: chunked\r\n\r\n");
            let one = |close| [head(close).as_bytes(), &body, &end[..]].concat();
            let expected = [one("").repeat(requests - 1), one("connection: close\r\n")].concat();
            let got = responses(chunks, requests, room);
            prop_assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&expected));
        }
    }
}
