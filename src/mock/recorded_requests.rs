//! Records every request to the mock, so that tests can check what reached the endpoint.

use super::state::MockState;
use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value as JsonValue, json};

/// Records method, path and headers, and a JSON body of at most [`MAX_RECORDED_BODY_BYTES`].
pub(super) async fn record_request(State(state): State<MockState>, request: Request, next: Next) -> Response {
    if request.uri().path() == "/requests" {
        return next.run(request).await;
    }
    let mut recorded = json!({ "method": request.method().as_str(), "path": request.uri().to_string(), "headers": header_pairs(request.headers()) });
    let (parts, mut body) = request.into_parts();
    if is_short_json(&parts.headers) {
        // A body that ends early becomes an empty one; the route then rejects it.
        let bytes = axum::body::to_bytes(body, MAX_RECORDED_BODY_BYTES).await.unwrap_or_default();
        recorded["body"] = serde_json::from_slice(&bytes).unwrap_or_default();
        body = Body::from(bytes);
    }
    state.record(recorded);
    next.run(Request::from_parts(parts, body)).await
}

fn is_short_json(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let length = text(header::CONTENT_LENGTH).parse::<usize>().unwrap_or(usize::MAX);
    text(header::CONTENT_TYPE).starts_with("application/json") && length <= MAX_RECORDED_BODY_BYTES
}

/// `GET /requests`: the recorded requests, oldest first.
pub(super) async fn list(State(state): State<MockState>) -> Json<Vec<JsonValue>> {
    Json(state.requests())
}

/// `DELETE /requests`.
pub(super) async fn clear(State(state): State<MockState>) -> StatusCode {
    state.clear_requests();
    StatusCode::NO_CONTENT
}

/// The headers as pairs of name and value, in order.
pub(super) fn header_pairs(headers: &HeaderMap) -> JsonValue {
    headers.iter().map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])).collect()
}

const MAX_RECORDED_BODY_BYTES: usize = 64 * 1024;
