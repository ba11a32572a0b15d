//! OpenAI's Responses API, whole, streamed or over a WebSocket, with vLLM's token ids on request.

use super::behavior::{Behavior, LlmRequest};
use super::content::{last_text, token_ids, words};
use super::openai::error;
use super::response::{delay_or_fail, stream_events, typed_event};
use super::state::MockState;
use super::websocket::send_event;
use axum::Json;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as JsonValue, json};

/// `POST /v1/responses`.
pub(super) async fn responses(LlmRequest { behavior, body }: LlmRequest) -> Response {
    if let Some(failed) = delay_or_fail(&behavior, error).await {
        return failed;
    }
    let content = ResponseContent::new(&body, behavior.options.chunks);
    if body["stream"] != true {
        return Json(content.completed()).into_response();
    }
    let failed = json!({ "type": "error", "code": "server_error", "message": "failed, as requested", "param": null });
    stream_events(content.events().iter().map(typed_event).collect(), behavior, typed_event(&failed))
}

/// `GET /v1/responses` with an upgrade: each `response.create` gets the events of a stream.
pub(super) async fn web_socket(
    State(state): State<MockState>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Response {
    let behavior = Behavior::of_request(state.options, &headers, &uri);
    upgrade.on_upgrade(async move |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            let Message::Text(text) = message else { continue };
            let event: JsonValue = serde_json::from_str(&text).unwrap_or_default();
            let events = match event["type"].as_str() {
                Some("response.create") => ResponseContent::new(&event, behavior.options.chunks).events(),
                _ => vec![json!({ "type": "error", "status": 400, "error": error(400)["error"] })],
            };
            for event in events {
                if send_event(&mut socket, event).await.is_err() {
                    return;
                }
            }
        }
    })
}

struct ResponseContent {
    model: JsonValue,
    words: Vec<String>,
    input: String,
    with_ids: bool,
}

impl ResponseContent {
    fn new(body: &JsonValue, chunks: usize) -> Self {
        Self {
            model: body["model"].clone(),
            words: words(&last_text(&body["input"]), chunks),
            input: body["input"].to_string(),
            with_ids: body["enable_response_messages"] == true,
        }
    }

    fn completed(&self) -> JsonValue {
        let text = self.words.concat();
        let mut response = self.response("completed", &json!([item(&text, "completed")]));
        if self.with_ids {
            add_messages(&mut response, &self.input, &text);
        }
        response
    }

    fn response(&self, status: &str, output: &JsonValue) -> JsonValue {
        let (input, output_tokens) = (token_ids(&self.input).len(), self.words.len());
        json!({ "id": "resp_mock", "object": "response", "created_at": 1, "status": status, "model": self.model,
                "output": output, "error": null, "incomplete_details": null, "instructions": null, "metadata": {},
                "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
                "usage": { "input_tokens": input, "input_tokens_details": { "cached_tokens": 0 },
                           "output_tokens": output_tokens, "output_tokens_details": { "reasoning_tokens": 0 },
                           "total_tokens": input + output_tokens } })
    }

    fn events(&self) -> Vec<JsonValue> {
        let part_event =
            |kind: &str| json!({ "type": kind, "item_id": "msg_mock", "output_index": 0, "content_index": 0 });
        let with = |mut event: JsonValue, key: &str, value: JsonValue| {
            event[key] = value;
            event
        };
        let text = self.words.concat();
        let started = self.response("in_progress", &json!([]));
        let mut events = vec![
            json!({ "type": "response.created", "response": started }),
            json!({ "type": "response.in_progress", "response": started }),
            json!({ "type": "response.output_item.added", "output_index": 0, "item": with(item("", "in_progress"), "content", json!([])) }),
            with(part_event("response.content_part.added"), "part", part("")),
        ];
        let delta = |word: &String| {
            with(with(part_event("response.output_text.delta"), "delta", json!(word)), "logprobs", json!([]))
        };
        events.extend(self.words.iter().map(delta));
        events.push(with(with(part_event("response.output_text.done"), "text", json!(text)), "logprobs", json!([])));
        events.push(with(part_event("response.content_part.done"), "part", part(&text)));
        events
            .push(json!({ "type": "response.output_item.done", "output_index": 0, "item": item(&text, "completed") }));
        events.push(json!({ "type": "response.completed", "response": self.completed() }));
        events.into_iter().enumerate().map(|(number, event)| with(event, "sequence_number", json!(number))).collect()
    }
}

/// Adds the ids of prompt and answer to a response, as vLLM does for `enable_response_messages`.
pub(super) fn add_messages(response: &mut JsonValue, prompt: &str, sampled: &str) {
    let raw_message =
        |text: &str| json!([{ "type": "raw_message_tokens", "message": text, "tokens": token_ids(text) }]);
    response["input_messages"] = raw_message(prompt);
    response["output_messages"] = raw_message(sampled);
}

fn part(text: &str) -> JsonValue {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn item(text: &str, status: &str) -> JsonValue {
    json!({ "type": "message", "id": "msg_mock", "role": "assistant", "status": status, "content": [part(text)] })
}
