//! OpenAI's responses, plain, streamed and over a WebSocket, with vLLM's token ids on request.

use super::answer::{before, ids, last_text, named, stream, words};
use super::behaviour::{Behaviour, Call};
use super::openai::error;
use super::tools::MockState;
use super::websocket::say;
use axum::Json;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// `POST /v1/responses`.
pub(super) async fn responses(Call { behaviour, body }: Call) -> Response {
    if let Some(failed) = before(&behaviour, error).await {
        return failed;
    }
    let answer = Answer::to(&body, behaviour.options.chunks);
    if body["stream"] != true {
        return Json(answer.whole()).into_response();
    }
    let failed = json!({ "type": "error", "code": "server_error", "message": "failing on demand", "param": null });
    stream(answer.events().iter().map(named).collect(), behaviour, named(&failed))
}

/// `GET /v1/responses`, upgraded: every `response.create` is answered by the events of a stream.
pub(super) async fn socket(
    State(state): State<MockState>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Response {
    let behaviour = Behaviour::of(state.options, &headers, &uri);
    upgrade.on_upgrade(async move |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            let Message::Text(text) = message else { continue };
            let asked: Value = serde_json::from_str(&text).unwrap_or_default();
            let events = match asked["type"].as_str() {
                Some("response.create") => Answer::to(&asked, behaviour.options.chunks).events(),
                _ => vec![json!({ "type": "error", "status": 400, "error": error(400)["error"] })],
            };
            for event in events {
                if !say(&mut socket, event).await {
                    return;
                }
            }
        }
    })
}

struct Answer {
    model: Value,
    words: Vec<String>,
    input: String,
    with_ids: bool,
}

impl Answer {
    fn to(body: &Value, chunks: usize) -> Self {
        Self {
            model: body["model"].clone(),
            words: words(&last_text(&body["input"]), chunks),
            input: body["input"].to_string(),
            with_ids: body["enable_response_messages"] == true,
        }
    }

    fn whole(&self) -> Value {
        let text = self.words.concat();
        let mut whole = self.response("completed", &json!([item(&text, "completed")]));
        if self.with_ids {
            let raw = |text: &str| json!([{ "type": "raw_message_tokens", "message": text, "tokens": ids(text) }]);
            whole["input_messages"] = raw(&self.input);
            whole["output_messages"] = raw(&text);
        }
        whole
    }

    fn response(&self, status: &str, output: &Value) -> Value {
        let (asked, said) = (ids(&self.input).len(), self.words.len());
        json!({ "id": "resp_mock", "object": "response", "created_at": 1, "status": status, "model": self.model,
                "output": output, "error": null, "incomplete_details": null, "instructions": null, "metadata": {},
                "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
                "usage": { "input_tokens": asked, "input_tokens_details": { "cached_tokens": 0 },
                           "output_tokens": said, "output_tokens_details": { "reasoning_tokens": 0 },
                           "total_tokens": asked + said } })
    }

    fn events(&self) -> Vec<Value> {
        let place = |kind: &str| json!({ "type": kind, "item_id": "msg_mock", "output_index": 0, "content_index": 0 });
        let with = |mut event: Value, key: &str, value: Value| {
            event[key] = value;
            event
        };
        let text = self.words.concat();
        let started = self.response("in_progress", &json!([]));
        let mut events = vec![
            json!({ "type": "response.created", "response": started }),
            json!({ "type": "response.in_progress", "response": started }),
            json!({ "type": "response.output_item.added", "output_index": 0, "item": with(item("", "in_progress"), "content", json!([])) }),
            with(place("response.content_part.added"), "part", part("")),
        ];
        let delta = |word: &String| {
            with(with(place("response.output_text.delta"), "delta", json!(word)), "logprobs", json!([]))
        };
        events.extend(self.words.iter().map(delta));
        events.push(with(with(place("response.output_text.done"), "text", json!(text)), "logprobs", json!([])));
        events.push(with(place("response.content_part.done"), "part", part(&text)));
        events
            .push(json!({ "type": "response.output_item.done", "output_index": 0, "item": item(&text, "completed") }));
        events.push(json!({ "type": "response.completed", "response": self.whole() }));
        events.into_iter().enumerate().map(|(number, event)| with(event, "sequence_number", json!(number))).collect()
    }
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn item(text: &str, status: &str) -> Value {
    json!({ "type": "message", "id": "msg_mock", "role": "assistant", "status": status, "content": [part(text)] })
}
