//! Google's Gemini: `generateContent`, not streamed.

use super::answer::{before, ids, words};
use super::behaviour::Call;
use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// `POST /v1beta/models/{model}:generateContent`.
pub(super) async fn generate(Path(call): Path<String>, Call { behaviour, body }: Call) -> Response {
    let Some((model, "generateContent")) = call.split_once(':') else {
        return (StatusCode::NOT_FOUND, Json(error(404))).into_response();
    };
    if let Some(failed) = before(&behaviour, error).await {
        return failed;
    }
    let words = words(&body["contents"].to_string(), behaviour.options.chunks);
    let (asked, said) = (ids(&body["contents"].to_string()).len(), words.len());
    let content = json!({ "role": "model", "parts": [{ "text": words.concat() }] });
    Json(json!({
        "candidates": [{ "index": 0, "content": content, "finishReason": "STOP" }],
        "usageMetadata": { "promptTokenCount": asked, "candidatesTokenCount": said, "totalTokenCount": asked + said },
        "modelVersion": model, "responseId": "mock",
    }))
    .into_response()
}

fn error(status: u16) -> Value {
    json!({ "error": { "code": status, "message": "failed on demand", "status": "UNKNOWN" } })
}
