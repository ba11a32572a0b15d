//! Google's Gemini API: `generateContent`, not streamed.

use super::behavior::LlmRequest;
use super::content::{token_ids, words};
use super::response::delay_or_fail;
use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value as JsonValue, json};

/// `POST /v1beta/models/{model}:generateContent`.
pub(super) async fn generate(Path(call): Path<String>, LlmRequest { behavior, body }: LlmRequest) -> Response {
    let Some((model, "generateContent")) = call.split_once(':') else {
        return (StatusCode::NOT_FOUND, Json(error(404))).into_response();
    };
    if let Some(failed) = delay_or_fail(&behavior, error).await {
        return failed;
    }
    let words = words(&body["contents"].to_string(), behavior.options.chunks);
    let (input, output) = (token_ids(&body["contents"].to_string()).len(), words.len());
    let content = json!({ "role": "model", "parts": [{ "text": words.concat() }] });
    Json(json!({
        "candidates": [{ "index": 0, "content": content, "finishReason": "STOP" }],
        "usageMetadata": { "promptTokenCount": input, "candidatesTokenCount": output, "totalTokenCount": input + output },
        "modelVersion": model, "responseId": "mock",
    }))
    .into_response()
}

fn error(status: u16) -> JsonValue {
    json!({ "error": { "code": status, "message": "failed, as requested", "status": "UNKNOWN" } })
}
