//! The mock's other routes: a tool over HTTP, echoes, streams, bulk bytes, and what it was asked.

use super::answer::stream;
use super::behaviour::{Behaviour, MockOptions, query};
use aws_lc_rs::digest::{Context, SHA256};
use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What the routes share.
#[derive(Clone)]
pub(super) struct MockState {
    pub(super) options: MockOptions,
    asked: Arc<Mutex<VecDeque<Value>>>,
}

impl MockState {
    pub(super) fn new(options: MockOptions) -> Self {
        Self { options, asked: Arc::default() }
    }
}

/// Notes every request: its head, and its body if that is short and JSON.
pub(super) async fn note_request(State(state): State<MockState>, request: Request, next: Next) -> Response {
    if request.uri().path() == "/requests" {
        return next.run(request).await;
    }
    let mut noted = json!({ "method": request.method().as_str(), "path": request.uri().to_string(), "headers": pairs(request.headers()) });
    let (parts, mut body) = request.into_parts();
    if is_short_json(&parts.headers) {
        // A body that breaks off is its route's to find out: there it is an empty one.
        let bytes = axum::body::to_bytes(body, MAX_NOTED_BYTES).await.unwrap_or_default();
        noted["body"] = serde_json::from_slice(&bytes).unwrap_or_default();
        body = Body::from(bytes);
    }
    {
        let mut asked = state.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() == MAX_NOTED {
            asked.pop_front();
        }
        asked.push_back(noted);
    }
    next.run(Request::from_parts(parts, body)).await
}

fn is_short_json(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let length = text(header::CONTENT_LENGTH).parse::<usize>().unwrap_or(usize::MAX);
    text(header::CONTENT_TYPE).starts_with("application/json") && length <= MAX_NOTED_BYTES
}

/// `GET /requests`: the last of them.
pub(super) async fn requests(State(state): State<MockState>) -> Json<Value> {
    let asked = state.asked.lock().unwrap_or_else(PoisonError::into_inner);
    Json(asked.iter().cloned().collect())
}

/// `DELETE /requests`.
pub(super) async fn forget(State(state): State<MockState>) -> StatusCode {
    state.asked.lock().unwrap_or_else(PoisonError::into_inner).clear();
    StatusCode::NO_CONTENT
}

/// `GET /weather?city=…`.
pub(super) async fn weather(State(state): State<MockState>, uri: Uri, headers: HeaderMap) -> Json<Value> {
    tokio::time::sleep(Behaviour::of(state.options, &headers, &uri).options.delay).await;
    let city = query(&uri, "city").unwrap_or_else(|| "Paris".to_owned());
    Json(json!({ "city": city, "sky": "clear", "celsius": 21 }))
}

/// Any method on `/echo` and below.
pub(super) async fn echo(method: Method, uri: Uri, version: Version, headers: HeaderMap, body: Bytes) -> Json<Value> {
    let version = format!("{version:?}");
    Json(
        json!({ "method": method.as_str(), "path": uri.to_string(), "version": version, "headers": pairs(&headers), "length": body.len() }),
    )
}

/// `GET /sse?events=N&interval_ms=M`.
pub(super) async fn sse(State(state): State<MockState>, uri: Uri, headers: HeaderMap) -> Response {
    let number = |name| query(&uri, name).and_then(|digits| digits.parse::<u64>().ok());
    let mut behaviour = Behaviour::of(state.options, &headers, &uri);
    behaviour.options.chunk_delay = Duration::from_millis(number("interval_ms").unwrap_or(0));
    let count = number("events").unwrap_or(10).min(MAX_EVENTS);
    let events = (0..count).map(|event| Bytes::from(format!("data: {{\"event\":{event}}}\n\n"))).collect();
    stream(events, behaviour, Bytes::new())
}

/// `GET /bytes?size=N`: zeros, with their length declared.
pub(super) async fn bytes(uri: Uri) -> Response {
    let size = query(&uri, "size").and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0);
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(4);
    tokio::spawn(async move {
        let mut left = size;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
            if sender.send_data(Bytes::from_static(&ZEROS[..part])).await.is_err() {
                return;
            }
            left -= part as u64;
        }
    });
    let mut response = Response::new(Body::new(body.map_err(axum::Error::new)));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    response
}

/// `POST /upload`: reads everything, keeps nothing but its length and (in a header) its hash.
pub(super) async fn upload(request: Request) -> Response {
    let mut body = request.into_body();
    let (mut received, mut digest) = (0, Context::new(&SHA256));
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let data = frame.data_ref().map_or(&[][..], Bytes::as_ref);
                received += data.len();
                digest.update(data);
            }
            Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        }
    }
    let hash: String = digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    ([("x-content-sha256", hash)], Json(json!({ "received": received }))).into_response()
}

fn pairs(headers: &HeaderMap) -> Value {
    headers.iter().map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])).collect()
}

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
const MAX_NOTED: usize = 1000;
const MAX_NOTED_BYTES: usize = 64 * 1024;
const MAX_EVENTS: u64 = 100_000;
