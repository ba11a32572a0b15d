//! How the LLM routes respond: delays, failures, and streams of server-sent events.

use super::behavior::{Behavior, Failure};
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use serde_json::Value as JsonValue;

/// Waits for the delay, and returns a failed response if the request asks for one. `None`: respond normally.
pub(super) async fn delay_or_fail(behavior: &Behavior, error: impl Fn(u16) -> JsonValue) -> Option<Response> {
    if behavior.fail == Some(Failure::Stall) {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(behavior.options.delay).await;
    if let Some(status) = behavior.status {
        let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return Some((code, axum::Json(error(status))).into_response());
    }
    (behavior.fail == Some(Failure::Reset)).then(|| stream_events(vec![Bytes::new()], behavior.clone(), Bytes::new()))
}

/// Streams the events with the request's chunk delay. `error_event` replaces the second half if the request asks for it.
pub(super) fn stream_events(events: Vec<Bytes>, behavior: Behavior, error_event: Bytes) -> Response {
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
    tokio::spawn(async move {
        let middle = events.len() / 2;
        for (at, event) in events.into_iter().enumerate() {
            if at > 0 {
                tokio::time::sleep(behavior.options.chunk_delay).await;
            }
            match behavior.fail {
                Some(Failure::Reset) => return sender.abort(std::io::Error::other("reset, as requested")),
                Some(Failure::Truncate) if at == middle => {
                    return sender.abort(std::io::Error::other("truncated, as requested"));
                }
                Some(Failure::ErrorInStream) if at == middle => {
                    let _ = sender.send_data(error_event).await;
                    return;
                }
                _ => {}
            }
            // The client has disconnected.
            if sender.send_data(event).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Body::new(body.map_err(axum::Error::new)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A server-sent event without a name.
pub(super) fn data_event(value: &JsonValue) -> Bytes {
    format!("data: {value}\n\n").into()
}

/// A server-sent event with its `type` as name.
pub(super) fn typed_event(value: &JsonValue) -> Bytes {
    format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or("message")).into()
}
