//! Amazon Bedrock: Converse, not streamed. Signatures are not checked.

use super::answer::{before, ids, last_text, words};
use super::behaviour::Call;
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// `POST /model/{model}/converse`.
pub(super) async fn converse(Call { behaviour, body }: Call) -> Response {
    if let Some(failed) = before(&behaviour, error).await {
        return failed;
    }
    let words = words(&last_text(&body["messages"]), behaviour.options.chunks);
    let (asked, said) = (ids(&body["messages"].to_string()).len(), words.len());
    Json(json!({
        "output": { "message": { "role": "assistant", "content": [{ "text": words.concat() }] } },
        "stopReason": "end_turn",
        "usage": { "inputTokens": asked, "outputTokens": said, "totalTokens": asked + said },
        "metrics": { "latencyMs": 1 },
    }))
    .into_response()
}

fn error(_: u16) -> Value {
    json!({ "message": "failed on demand" })
}
