//! Anthropic's Messages API, streamed or not.

use super::behavior::LlmRequest;
use super::content::{last_text, token_ids, tool_arguments, words};
use super::response::{delay_or_fail, stream_events, typed_event};
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value as JsonValue, json};

/// `POST /v1/messages`.
pub(super) async fn messages(LlmRequest { behavior, body }: LlmRequest) -> Response {
    if let Some(failed) = delay_or_fail(&behavior, error).await {
        return failed;
    }
    let prompt = last_text(&body["messages"]);
    let tool = body["tools"].get(0).filter(|_| !prompt.contains("tool_result"));
    let words = words(&prompt, if tool.is_some() { 0 } else { behavior.options.chunks });
    let (input, output) = (token_ids(&body["messages"].to_string()).len(), words.len().max(1));
    let stop = if tool.is_some() { "tool_use" } else { "end_turn" };
    let block = match tool {
        Some(tool) => {
            json!({ "type": "tool_use", "id": "toolu_mock_1", "name": tool["name"], "input": tool_arguments(&tool["input_schema"]) })
        }
        None => json!({ "type": "text", "text": words.concat() }),
    };
    let message = |content: JsonValue, stop: JsonValue, output: usize| {
        json!({ "id": "msg_mock", "type": "message", "role": "assistant", "model": body["model"], "content": content,
                "stop_reason": stop, "stop_sequence": null, "usage": { "input_tokens": input, "output_tokens": output } })
    };
    if body["stream"] != true {
        return Json(message(json!([block]), json!(stop), output)).into_response();
    }
    let mut events = vec![json!({ "type": "message_start", "message": message(json!([]), JsonValue::Null, 1) })];
    let (empty, deltas) = match tool {
        Some(_) => {
            let mut empty = block.clone();
            empty["input"] = json!({});
            (empty, vec![json!({ "type": "input_json_delta", "partial_json": block["input"].to_string() })])
        }
        None => {
            let deltas = words.iter().map(|word| json!({ "type": "text_delta", "text": word })).collect();
            (json!({ "type": "text", "text": "" }), deltas)
        }
    };
    events.push(json!({ "type": "content_block_start", "index": 0, "content_block": empty }));
    events.extend(deltas.into_iter().map(|delta| json!({ "type": "content_block_delta", "index": 0, "delta": delta })));
    events.push(json!({ "type": "content_block_stop", "index": 0 }));
    events.push(json!({ "type": "message_delta", "delta": { "stop_reason": stop, "stop_sequence": null }, "usage": { "output_tokens": output } }));
    events.push(json!({ "type": "message_stop" }));
    stream_events(events.iter().map(typed_event).collect(), behavior, typed_event(&error(529)))
}

fn error(_: u16) -> JsonValue {
    json!({ "type": "error", "error": { "type": "overloaded_error", "message": "failed, as requested" } })
}
