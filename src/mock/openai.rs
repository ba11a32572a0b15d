//! OpenAI's Chat Completions and Completions APIs, streamed or not, with vLLM's token ids on request.

use super::behavior::{Behavior, LlmRequest};
use super::content::{last_text, logprobs, response_id, token_ids, tool_arguments, words};
use super::response::{data_event, delay_or_fail, stream_events};
use axum::Json;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value as JsonValue, json};

/// `GET /v1/models`.
pub(super) async fn models() -> Json<JsonValue> {
    Json(
        json!({ "object": "list", "data": [{ "id": "mock", "object": "model", "created": 0, "owned_by": "tracewire" }] }),
    )
}

/// `POST /v1/chat/completions`.
pub(super) async fn chat(LlmRequest { behavior, body }: LlmRequest) -> Response {
    if let Some(failed) = delay_or_fail(&behavior, error).await {
        return failed;
    }
    let response = ChatResponse::new(&body, &behavior);
    if body["stream"] == true {
        return stream_events(response.events(&body), behavior, data_event(&error(500)));
    }
    Json(response.body(&body)).into_response()
}

struct ChatResponse {
    id: String,
    words: Vec<String>,
    tool_call: Option<JsonValue>,
    prompt_ids: Vec<u64>,
    ids: IdFields,
    with_logprobs: bool,
}

impl ChatResponse {
    fn new(body: &JsonValue, behavior: &Behavior) -> Self {
        let messages = &body["messages"];
        let has_tool_result = messages.as_array().and_then(|all| all.last()).is_some_and(|last| last["role"] == "tool");
        let tool_call = body["tools"].get(0).filter(|_| !has_tool_result).map(|tool| {
            let function = &tool["function"];
            let arguments = tool_arguments(&function["parameters"]).to_string();
            json!({ "index": 0, "id": "call_mock_1", "type": "function", "function": { "name": function["name"], "arguments": arguments } })
        });
        let count = if tool_call.is_some() { 0 } else { behavior.options.chunks };
        Self {
            id: response_id("chatcmpl-mock", &[messages, &body["tools"], &body["stream"], &body["n"]]),
            words: words(&last_text(messages), count),
            tool_call,
            prompt_ids: token_ids(&messages.to_string()),
            ids: IdFields::requested(body, behavior),
            with_logprobs: body["logprobs"] == true,
        }
    }

    fn finish_reason(&self) -> &'static str {
        if self.tool_call.is_some() { "tool_calls" } else { "stop" }
    }

    /// The sampled tokens: the words, or the whole tool call as one token.
    fn sampled(&self) -> Vec<String> {
        match &self.tool_call {
            Some(call) => vec![call["function"].to_string().replace(char::is_whitespace, "")],
            None => self.words.clone(),
        }
    }

    fn usage(&self) -> JsonValue {
        let (prompt, completion) = (self.prompt_ids.len(), self.sampled().len().max(1));
        json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
    }

    fn add_sampled(&self, choice: &mut JsonValue, sampled: &[String]) {
        self.ids.put(choice, "token_ids", &token_ids(&sampled.concat()));
        if self.with_logprobs {
            choice["logprobs"] = logprobs(sampled);
        }
    }

    fn body(&self, body: &JsonValue) -> JsonValue {
        let text = self.words.concat();
        let mut message = json!({ "role": "assistant", "content": text });
        if let Some(call) = &self.tool_call {
            message["content"] = JsonValue::Null;
            message["tool_calls"] = json!([call]);
        }
        let choices: Vec<JsonValue> = (0..body["n"].as_u64().unwrap_or(1))
            .map(|index| {
                let mut choice = json!({ "index": index, "message": message, "finish_reason": self.finish_reason(), "logprobs": null });
                self.add_sampled(&mut choice, &self.sampled());
                choice
            })
            .collect();
        let mut response = json!({ "id": self.id, "object": "chat.completion", "created": 1, "model": body["model"], "choices": choices, "usage": self.usage() });
        self.ids.put(&mut response, "prompt_token_ids", &self.prompt_ids);
        response
    }

    fn events(&self, body: &JsonValue) -> Vec<Bytes> {
        let chunk = |delta: JsonValue, finish: JsonValue| {
            json!({ "id": self.id, "object": "chat.completion.chunk", "created": 1, "model": body["model"],
                    "choices": [{ "index": 0, "delta": delta, "finish_reason": finish, "logprobs": null }] })
        };
        let mut first = chunk(json!({ "role": "assistant", "content": "" }), JsonValue::Null);
        self.ids.put(&mut first, "prompt_token_ids", &self.prompt_ids);
        let mut events = vec![data_event(&first)];
        for word in &self.words {
            let mut event = chunk(json!({ "content": word }), JsonValue::Null);
            self.add_sampled(&mut event["choices"][0], std::slice::from_ref(word));
            events.push(data_event(&event));
        }
        if let Some(call) = &self.tool_call {
            let mut event = chunk(json!({ "tool_calls": [call] }), JsonValue::Null);
            self.add_sampled(&mut event["choices"][0], &self.sampled());
            events.push(data_event(&event));
        }
        events.push(data_event(&chunk(json!({}), json!(self.finish_reason()))));
        if body["stream_options"]["include_usage"] == true {
            let mut last = chunk(json!({}), JsonValue::Null);
            last["choices"] = json!([]);
            last["usage"] = self.usage();
            events.push(data_event(&last));
        }
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        events
    }
}

/// The content of the token id fields.
#[derive(Clone, Copy)]
enum IdFields {
    /// Token ids, as requested.
    Ids,
    /// Null, as vLLM writes for fields that were not requested.
    Null,
    /// There are no such fields.
    None,
}

impl IdFields {
    fn requested(body: &JsonValue, behavior: &Behavior) -> Self {
        match (body["return_token_ids"] == true, behavior.options.vllm) {
            (true, _) => Self::Ids,
            (false, true) => Self::Null,
            (false, false) => Self::None,
        }
    }

    fn put(self, object: &mut JsonValue, name: &str, ids: &[u64]) {
        match self {
            Self::Ids => object[name] = json!(ids),
            Self::Null => object[name] = JsonValue::Null,
            Self::None => {}
        }
    }
}

/// `POST /v1/completions`.
pub(super) async fn completions(LlmRequest { behavior, body }: LlmRequest) -> Response {
    if let Some(failed) = delay_or_fail(&behavior, error).await {
        return failed;
    }
    let prompt = body["prompt"].as_str().map_or_else(|| body["prompt"].to_string(), str::to_owned);
    let words = words(&prompt, behavior.options.chunks);
    let fields = IdFields::requested(&body, &behavior);
    let id = response_id("cmpl-mock", &[&body["prompt"], &body["stream"]]);
    let choice = |text: &str, finish: JsonValue, first: bool| {
        let mut choice = json!({ "index": 0, "text": text, "finish_reason": finish, "logprobs": null });
        fields.put(&mut choice, "token_ids", &token_ids(text));
        if first {
            fields.put(&mut choice, "prompt_token_ids", &token_ids(&prompt));
        }
        json!({ "id": id, "object": "text_completion", "created": 1, "model": body["model"], "choices": [choice] })
    };
    if body["stream"] == true {
        let texts = words.iter().enumerate().map(|(at, word)| data_event(&choice(word, JsonValue::Null, at == 0)));
        let end = [data_event(&choice("", json!("stop"), false)), Bytes::from_static(b"data: [DONE]\n\n")];
        return stream_events(texts.chain(end).collect(), behavior, data_event(&error(500)));
    }
    let mut response = choice(&words.concat(), json!("stop"), true);
    let (input, output) = (token_ids(&prompt).len(), words.len());
    response["usage"] = json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output });
    Json(response).into_response()
}

pub(super) fn error(status: u16) -> JsonValue {
    json!({ "error": { "message": "failed, as requested", "type": "mock_error", "code": status, "param": null } })
}
