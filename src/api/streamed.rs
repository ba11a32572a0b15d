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
use http_body_util::channel::{Channel, Sender};
use serde::Serialize;
use std::future::Future;
use std::io;

/// Makes the pieces of a response.
pub(super) trait Pieces: Send + 'static {
    /// The next piece, which may be empty. `None` after the last one.
    fn next(&mut self) -> impl Future<Output = ApiResult<Option<Vec<u8>>>> + Send;
}

/// 200 with the pieces as its body. A short one has a `Content-Length`.
pub(super) async fn streamed(media_type: &'static str, mut pieces: impl Pieces) -> ApiResult {
    let mut start = Vec::new();
    let body = loop {
        if start.len() >= MAX_BUFFERED_BYTES {
            let (sender, body) = Channel::<Bytes, io::Error>::new(MAX_WAITING_CHUNKS);
            drop(spawn(send(start, pieces, sender)));
            break Body::new(body);
        }
        match pieces.next().await? {
            Some(piece) => start.extend(piece),
            None => break Body::from(start),
        }
    };
    Ok::<Response, ApiError>(([(header::CONTENT_TYPE, media_type)], body).into_response())
}

async fn send(start: Vec<u8>, mut pieces: impl Pieces, mut sender: Sender<Bytes, io::Error>) {
    let mut piece = start;
    loop {
        if send_bytes(piece, &mut sender).await.is_err() {
            return;
        }
        piece = match pieces.next().await {
            Ok(Some(piece)) => piece,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(?error, "a response of the API ends early");
                return sender.abort(io::Error::other("the response can't be completed"));
            }
        };
    }
}

/// Sends bytes in chunks, so that only one of those that wait for a slow client is large. An error: the client is gone.
async fn send_bytes(bytes: Vec<u8>, sender: &mut Sender<Bytes, io::Error>) -> Result<(), ()> {
    let mut bytes = Bytes::from(bytes);
    while !bytes.is_empty() {
        let chunk = bytes.split_to(bytes.len().min(MAX_CHUNK_BYTES));
        sender.send_data(chunk).await.map_err(drop)?;
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
        std::mem::take(&mut self.text)
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
