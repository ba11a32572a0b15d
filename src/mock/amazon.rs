//! Amazon Bedrock's Converse API, not streamed. Signatures are not checked.

use super::behavior::LlmRequest;
use super::content::{last_text, token_ids, words};
use super::response::delay_or_fail;
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value as JsonValue, json};

/// `POST /model/{model}/converse`.
pub(super) async fn converse(LlmRequest { behavior, body }: LlmRequest) -> Response {
    if let Some(failed) = delay_or_fail(&behavior, error).await {
        return failed;
    }
    let words = words(&last_text(&body["messages"]), behavior.options.chunks);
    let (input, output) = (token_ids(&body["messages"].to_string()).len(), words.len());
    Json(json!({
        "output": { "message": { "role": "assistant", "content": [{ "text": words.concat() }] } },
        "stopReason": "end_turn",
        "usage": { "inputTokens": input, "outputTokens": output, "totalTokens": input + output },
        "metrics": { "latencyMs": 1 },
    }))
    .into_response()
}

fn error(_: u16) -> JsonValue {
    json!({ "message": "failed, as requested" })
}
