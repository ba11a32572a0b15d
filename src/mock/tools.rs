//! The mock's other routes: a tool over HTTP, echoes, event streams, and bulk transfers.

use super::behavior::{Behavior, query};
use super::recorded_requests::header_pairs;
use super::response::stream_events;
use super::state::MockState;
use aws_lc_rs::digest::{Context, SHA256};
use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use serde_json::{Value as JsonValue, json};
use std::time::Duration;

/// `GET /weather?city=…`: a tool that agents call over HTTP.
pub(super) async fn weather(State(state): State<MockState>, uri: Uri, headers: HeaderMap) -> Json<JsonValue> {
    tokio::time::sleep(Behavior::of_request(state.options, &headers, &uri).options.delay).await;
    let city = query(&uri, "city").unwrap_or_else(|| "Paris".to_owned());
    Json(json!({ "city": city, "sky": "clear", "celsius": 21 }))
}

/// Any method on `/echo` and paths below it: returns the request's head and the length of its body.
pub(super) async fn echo(
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    body: Bytes,
) -> Json<JsonValue> {
    let version = format!("{version:?}");
    Json(
        json!({ "method": method.as_str(), "path": uri.to_string(), "version": version, "headers": header_pairs(&headers), "length": body.len() }),
    )
}

/// `GET /sse?events=N&interval_ms=M`: N server-sent events.
pub(super) async fn sse(State(state): State<MockState>, uri: Uri, headers: HeaderMap) -> Response {
    let number = |name| query(&uri, name).and_then(|digits| digits.parse::<u64>().ok());
    let mut behavior = Behavior::of_request(state.options, &headers, &uri);
    behavior.options.chunk_delay = Duration::from_millis(number("interval_ms").unwrap_or(0));
    let count = number("events").unwrap_or(10).min(MAX_EVENTS);
    let events = (0..count).map(|event| Bytes::from(format!("data: {{\"event\":{event}}}\n\n"))).collect();
    stream_events(events, behavior, Bytes::new())
}

/// `GET /bytes?size=N`: N zero bytes, with Content-Length.
pub(super) async fn bytes(uri: Uri) -> Response {
    let size = query(&uri, "size").and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0);
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(4);
    tokio::spawn(async move {
        let mut remaining = size;
        while remaining > 0 {
            let part = usize::try_from(remaining).unwrap_or(usize::MAX).min(ZEROS.len());
            if sender.send_data(Bytes::from_static(&ZEROS[..part])).await.is_err() {
                return;
            }
            remaining -= part as u64;
        }
    });
    let mut response = Response::new(Body::new(body.map_err(axum::Error::new)));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    response
}

/// `POST /upload`: reads the body and returns its length, and its SHA-256 in a header.
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
    let hash = const_hex::encode(digest.finish());
    ([("x-content-sha256", hash)], Json(json!({ "received": received }))).into_response()
}

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
const MAX_EVENTS: u64 = 100_000;
