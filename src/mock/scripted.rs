//! Plays a script to clients of chat completions, messages, responses and Gemini, whole or streamed.
//!
//! Turns are played as chat completions; for the other APIs they are translated as the gateway does it.

use super::answered::AnsweredResponses;
use super::behavior::Behavior;
use super::content::{logprobs, response_id, token_ids, words_of};
use super::response::{data_event, stream_events, typed_event};
use super::responses::add_messages;
use super::script::{Script, Turn};
use super::state::MockState;
use crate::llm::api::{ApiCall, ApiErrorKind, ErrorShape, OPENAI_CHAT, OPENAI_RESPONSES};
use crate::llm::operation::Operation;
use crate::llm::translate::{ResponseTranslator, TranslationOptions, source_of, to_chat};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as JsonValue, json};
use std::sync::Arc;
use std::time::Duration;

/// The script that requests are answered by.
#[derive(Clone)]
pub(super) struct ScriptedState {
    pub(super) mock: MockState,
    pub(super) script: Arc<Script>,
    pub(super) answered: AnsweredResponses,
}

/// Any path of an API.
pub(super) async fn respond(
    State(state): State<ScriptedState>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(call) = ApiCall::at_gateway(uri.path()) else {
        return error(ErrorShape::OpenAi, StatusCode::NOT_FOUND, "the mock has no such path");
    };
    let shape = call.api.error_shape;
    if method != Method::POST {
        // Clients that try a WebSocket go on over HTTP.
        return error(shape, StatusCode::UPGRADE_REQUIRED, "the mock plays scripts over HTTP only");
    }
    let request = state.completed(&call, &body).and_then(|body| request(&call, uri.query().unwrap_or_default(), &body));
    let (chat, translator) = match request {
        Ok(request) => request,
        Err(cause) => return error(shape, StatusCode::BAD_REQUEST, &cause),
    };
    if call.operation() == Operation::CountTokens {
        let count = token_ids(&chat["messages"].to_string()).len();
        return axum::Json(json!({ "input_tokens": count, "totalTokens": count })).into_response();
    }
    let turn = state.script.next(&chat);
    tokio::time::sleep(Duration::from_millis(turn.delay_ms)).await;
    if let Some(status) = turn.status {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return error(shape, status, "failed, as the script says");
    }
    let wants_messages = call.api == &OPENAI_RESPONSES
        && serde_json::from_slice::<JsonValue>(&body).is_ok_and(|body| body["enable_response_messages"] == true);
    let answer = ScriptedAnswer { turn, chat };
    let behavior = Behavior::of_request(state.mock.options, &headers, &uri);
    match translator {
        None if answer.chat["stream"] == true => stream_events(answer.events(), behavior, Bytes::new()),
        None => axum::Json(answer.body()).into_response(),
        Some(translator) if translator.streams() => {
            let mut stream = translator.stream();
            let mut events: Vec<Bytes> = answer.events().iter().map(|event| stream.push(event).into()).collect();
            events.push(stream.finish().into());
            events.retain(|event| !event.is_empty());
            state.answered.add(&events.concat());
            if wants_messages {
                events = answer.events_with_messages(&events.concat());
            }
            let mut response = stream_events(events, behavior, Bytes::new());
            let kind = HeaderValue::from_static(translator.content_type());
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Some(translator) => match translator.whole(answer.body().to_string().as_bytes()) {
            Ok(body) => {
                state.answered.add(&body);
                let body = if wants_messages { answer.with_messages(&body) } else { body };
                ([(header::CONTENT_TYPE, "application/json")], body).into_response()
            }
            Err(cause) => error(shape, StatusCode::INTERNAL_SERVER_ERROR, &cause.to_string()),
        },
    }
}

impl ScriptedState {
    /// A request with the items of earlier answers that it refers to.
    fn completed(&self, call: &ApiCall, body: &[u8]) -> Result<Vec<u8>, String> {
        if call.api == &OPENAI_RESPONSES { self.answered.complete(body) } else { Ok(body.to_vec()) }
    }
}

/// A request as one of chat completions, and what translates its answer.
fn request(call: &ApiCall, query: &str, body: &[u8]) -> Result<(JsonValue, Option<ResponseTranslator>), String> {
    if call.api == &OPENAI_CHAT {
        return serde_json::from_slice(body).map(|chat| (chat, None)).map_err(|error| error.to_string());
    }
    let source = ApiCall { endpoint: call.api.endpoints[0], ..call.clone() };
    let call = if call.operation() == Operation::CountTokens { &source } else { call };
    let (source, gemini) = source_of(call, query).ok_or_else(|| format!("scripts have no {}", call.path()))?;
    let translated = to_chat(source, body, gemini, TranslationOptions::default()).map_err(|error| error.to_string())?;
    let mut chat = JsonValue::Object(translated.body);
    if let Some(model) = &call.model {
        chat["model"] = json!(model);
    }
    Ok((chat, Some(translated.response)))
}

fn error(shape: ErrorShape, status: StatusCode, message: &str) -> Response {
    let body = shape.body(status.as_u16(), ApiErrorKind::of_status(status.as_u16()), message);
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A turn as the answer to a request of chat completions.
struct ScriptedAnswer {
    turn: Turn,
    chat: JsonValue,
}

impl ScriptedAnswer {
    fn finish_reason(&self) -> &str {
        let usual = if self.turn.tool_calls.is_empty() { "stop" } else { "tool_calls" };
        self.turn.finish_reason.as_deref().unwrap_or(usual)
    }

    fn tool_calls(&self) -> Vec<JsonValue> {
        // Ids differ within a conversation.
        let turn = self.chat["messages"].as_array().map_or(0, Vec::len);
        let calls = self.turn.tool_calls.iter().enumerate();
        let call = |(index, call): (usize, &super::script::ScriptedCall)| {
            let function = json!({ "name": call.name, "arguments": call.arguments.to_string() });
            json!({ "index": index, "id": format!("call_{turn}_{index}"), "type": "function", "function": function })
        };
        calls.map(call).collect()
    }

    /// The id of the response: another one for each conversation and turn.
    fn id(&self) -> String {
        response_id("chatcmpl", &[&self.chat["messages"]])
    }

    /// The texts that count as sampled.
    fn sampled(&self) -> String {
        let calls: String = self.tool_calls().iter().map(|call| format!(" {}", call["function"])).collect();
        format!("{} {}{calls}", self.turn.thinking, self.turn.text)
    }

    fn usage(&self) -> JsonValue {
        let prompt = token_ids(&self.chat["messages"].to_string()).len();
        let completion = token_ids(&self.sampled()).len();
        json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
    }

    /// Adds what was sampled to a choice: ids and logprobs, if the request asks for them.
    fn add_sampled(&self, choice: &mut JsonValue, text: &str) {
        self.add_ids(choice, "token_ids", text);
        if self.chat["logprobs"] == true {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            choice["logprobs"] = logprobs(&words);
        }
    }

    /// Adds the ids of tokens, if the request asks for them.
    fn add_ids(&self, object: &mut JsonValue, name: &str, text: &str) {
        if self.chat["return_token_ids"] == true {
            object[name] = json!(token_ids(text));
        }
    }

    /// A response with the ids in its messages.
    fn with_messages(&self, response: &[u8]) -> Vec<u8> {
        let mut response: JsonValue = serde_json::from_slice(response).unwrap_or_default();
        add_messages(&mut response, &self.chat["messages"].to_string(), &self.sampled());
        response.to_string().into_bytes()
    }

    /// The events of a response, with the ids in the last one's messages.
    fn events_with_messages(&self, events: &[u8]) -> Vec<Bytes> {
        let event = |event: &str| {
            let data = event.lines().find_map(|line| line.strip_prefix("data: "))?;
            let mut json: JsonValue = serde_json::from_str(data).ok()?;
            if ["response.completed", "response.incomplete"].iter().any(|kind| json["type"] == *kind) {
                add_messages(&mut json["response"], &self.chat["messages"].to_string(), &self.sampled());
            }
            Some(typed_event(&json))
        };
        String::from_utf8_lossy(events).split("\n\n").filter_map(event).collect()
    }

    fn body(&self) -> JsonValue {
        let mut message = json!({ "role": "assistant", "content": self.turn.text });
        if !self.turn.thinking.is_empty() {
            message["reasoning_content"] = json!(self.turn.thinking);
        }
        if !self.turn.tool_calls.is_empty() {
            message["tool_calls"] = json!(self.tool_calls());
        }
        let mut choice = json!({ "index": 0, "message": message, "finish_reason": self.finish_reason() });
        self.add_sampled(&mut choice, &self.sampled());
        let mut body = json!({ "id": self.id(), "object": "chat.completion", "created": 1, "model": self.chat["model"], "choices": [choice], "usage": self.usage() });
        self.add_ids(&mut body, "prompt_token_ids", &self.chat["messages"].to_string());
        body
    }

    fn events(&self) -> Vec<Bytes> {
        let id = self.id();
        let chunk = |delta: JsonValue, sampled: &str| {
            let mut choice = json!({ "index": 0, "delta": delta, "finish_reason": null });
            if !sampled.is_empty() {
                self.add_sampled(&mut choice, sampled);
            }
            json!({ "id": id, "object": "chat.completion.chunk", "created": 1, "model": self.chat["model"], "choices": [choice] })
        };
        let mut first = chunk(json!({ "role": "assistant", "content": "" }), "");
        self.add_ids(&mut first, "prompt_token_ids", &self.chat["messages"].to_string());
        let mut events = vec![first];
        events.extend(words_of(&self.turn.thinking).map(|word| chunk(json!({ "reasoning_content": word }), word)));
        events.extend(words_of(&self.turn.text).map(|word| chunk(json!({ "content": word }), word)));
        for call in self.tool_calls() {
            events.push(chunk(json!({ "tool_calls": [call] }), &call["function"].to_string()));
        }
        let mut last = chunk(json!({}), "");
        last["choices"][0]["finish_reason"] = json!(self.finish_reason());
        events.push(last);
        if self.chat["stream_options"]["include_usage"] == true {
            let mut usage = chunk(json!({}), "");
            (usage["choices"], usage["usage"]) = (json!([]), self.usage());
            events.push(usage);
        }
        let end = Bytes::from_static(b"data: [DONE]\n\n");
        events.iter().map(data_event).chain([end]).collect()
    }
}
