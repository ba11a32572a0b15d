//! Responses that are made piece by piece, so that their memory does not grow with their length.
//!
//! An error before anything was sent is an error response. A later one ends the response without its end, so that no client
//! takes it for a whole one.

use super::respond::{ApiError, ApiResult};
use crate::net::task::spawn;
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use serde::Serialize;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Makes a body piece by piece.
pub(super) trait BodySource: Send + 'static {
    /// The next piece, which may be empty. `None` after the last one.
    fn next(&mut self) -> impl Future<Output = ApiResult<Option<Vec<u8>>>> + Send;
}

/// 200 with the pieces of `source` as its body. A short one has a `Content-Length`.
pub(super) async fn streamed(media_type: &'static str, mut source: impl BodySource) -> ApiResult {
    let mut start = Vec::new();
    let body = loop {
        if start.len() >= MAX_BUFFERED_BYTES {
            let (sender, receiver) = channel(MAX_WAITING_CHUNKS);
            drop(spawn(send(start, source, sender)));
            break Body::new(ReceivedBody { receiver, is_ended: false });
        }
        match source.next().await? {
            Some(piece) => start.extend(piece),
            None => break Body::from(start),
        }
    };
    Ok::<Response, ApiError>(([(header::CONTENT_TYPE, media_type)], body).into_response())
}

/// What the task that makes a body sends.
enum Chunk {
    Data(Bytes),
    /// The body is whole. Without it the task failed, panicked or was stopped.
    End,
}

/// A body that another task makes. Only [`Chunk::End`] ends it well.
struct ReceivedBody {
    receiver: Receiver<Chunk>,
    is_ended: bool,
}

impl hyper::body::Body for ReceivedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        let chunk = ready!(self.receiver.poll_recv(context));
        self.is_ended = !matches!(chunk, Some(Chunk::Data(_)));
        Poll::Ready(match chunk {
            Some(Chunk::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Chunk::End) => None,
            None => Some(Err(io::Error::other("the response can't be completed"))),
        })
    }
}

async fn send(start: Vec<u8>, mut source: impl BodySource, sender: Sender<Chunk>) {
    let mut piece = start;
    loop {
        if send_bytes(piece, &sender).await.is_err() {
            // The client is gone.
            return;
        }
        piece = match source.next().await {
            Ok(Some(piece)) => piece,
            Ok(None) => return drop(sender.send(Chunk::End).await),
            Err(error) => return tracing::error!(?error, "a response of the API ends early"),
        };
    }
}

/// Sends bytes in chunks, so that only one of those that wait for a slow client is large. An error: the client is gone.
async fn send_bytes(bytes: Vec<u8>, sender: &Sender<Chunk>) -> Result<(), ()> {
    let mut bytes = Bytes::from(bytes);
    while !bytes.is_empty() {
        let chunk = bytes.split_to(bytes.len().min(MAX_CHUNK_BYTES));
        sender.send(Chunk::Data(chunk)).await.map_err(drop)?;
    }
    Ok(())
}

/// A response of at most about this size is made before it is sent.
const MAX_BUFFERED_BYTES: usize = 64 * 1024;
/// Chunks that may wait for a slow client.
const MAX_WAITING_CHUNKS: usize = 4;
const MAX_CHUNK_BYTES: usize = 64 * 1024;

/// A JSON list, written element by element.
#[derive(Default)]
pub(super) struct JsonList {
    text: Vec<u8>,
    has_elements: bool,
}

impl JsonList {
    /// A list after `before`, such as the key of a field.
    pub(super) fn after(before: &str) -> Self {
        Self { text: before.as_bytes().to_vec(), has_elements: false }
    }

    /// Adds an element.
    pub(super) fn add(&mut self, element: &impl Serialize) -> ApiResult<()> {
        self.begin_element();
        // Only a type whose keys are no texts fails.
        serde_json::to_writer(&mut self.text, element).map_err(|_| ApiError::Internal)
    }

    /// Begins an element that is written to the result.
    pub(super) fn begin_element(&mut self) -> &mut Vec<u8> {
        self.text.push(if self.has_elements { b',' } else { b'[' });
        self.has_elements = true;
        &mut self.text
    }

    /// What was written since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        // The next part is about as long, so that it is not copied as it grows.
        let next = Vec::with_capacity(self.text.len());
        std::mem::replace(&mut self.text, next)
    }

    /// What was written since the last call, the end of the list, and `after`.
    pub(super) fn finish(&mut self, after: &str) -> Vec<u8> {
        if !self.has_elements {
            self.text.push(b'[');
        }
        self.text.push(b']');
        self.text.extend_from_slice(after.as_bytes());
        self.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// How a body goes on after five long pieces.
    #[derive(Clone, Copy)]
    enum Then {
        Ends,
        Fails,
        Panics,
        Stops,
    }

    struct Source {
        pieces: usize,
        then: Then,
    }

    impl BodySource for Source {
        async fn next(&mut self) -> ApiResult<Option<Vec<u8>>> {
            if self.pieces > 0 {
                self.pieces -= 1;
                return Ok(Some(vec![b'x'; MAX_BUFFERED_BYTES + 1]));
            }
            match self.then {
                Then::Ends => Ok(None),
                Then::Fails => Err(ApiError::Internal),
                Then::Panics => panic!("planted"),
                // As at the end of the runtime: the task is dropped where it waits.
                Then::Stops => std::future::pending().await,
            }
        }
    }

    /// The bytes of a response over a socket, up to its end or a reset.
    async fn response(then: Then) -> String {
        let route = get(move || async move { streamed("text/plain", Source { pieces: 5, then }).await });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", route)).await });
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = Vec::new();
        while client.read_buf(&mut text).await.is_ok_and(|read| read > 0) {}
        String::from_utf8(text).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_a_body_that_is_whole_ends_as_one() {
        let whole = response(Then::Ends).await;
        assert_eq!(whole.matches('x').count(), 5 * (MAX_BUFFERED_BYTES + 1) + 1);
        assert!(whole.ends_with("\r\n0\r\n\r\n"));
        for then in [Then::Fails, Then::Panics] {
            // How much of it arrives before the connection ends depends on the machine.
            let broken = response(then).await;
            assert!(broken.len() < whole.len() && !broken.ends_with("\r\n0\r\n\r\n"));
        }
    }

    #[tokio::test]
    async fn a_body_of_a_stopped_task_is_broken() {
        let (sender, receiver) = channel(MAX_WAITING_CHUNKS);
        let task = tokio::spawn(send(b"start".to_vec(), Source { pieces: 0, then: Then::Stops }, sender));
        let mut body = ReceivedBody { receiver, is_ended: false };
        let mut next = async || std::future::poll_fn(|cx| hyper::body::Body::poll_frame(Pin::new(&mut body), cx)).await;
        assert_eq!(next().await.unwrap().unwrap().into_data().unwrap(), "start");
        task.abort();
        assert!(next().await.unwrap().is_err());
        assert!(next().await.is_none());
    }
}
