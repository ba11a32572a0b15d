//! OpenAI's chat completions and completions, plain and streamed, with vLLM's token ids on request.

use super::answer::{answer_id, arguments, before, data, ids, last_text, logprobs, stream, words};
use super::behaviour::{Behaviour, Call};
use axum::Json;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};

/// `GET /v1/models`.
pub(super) async fn models() -> Json<Value> {
    Json(
        json!({ "object": "list", "data": [{ "id": "mock", "object": "model", "created": 0, "owned_by": "tracewire" }] }),
    )
}

/// `POST /v1/chat/completions`.
pub(super) async fn chat(Call { behaviour, body }: Call) -> Response {
    if let Some(failed) = before(&behaviour, error).await {
        return failed;
    }
    let answer = ChatAnswer::to(&body, &behaviour);
    if body["stream"] == true {
        return stream(answer.events(&body), behaviour, data(&error(500)));
    }
    Json(answer.whole(&body)).into_response()
}

struct ChatAnswer {
    id: String,
    words: Vec<String>,
    tool_call: Option<Value>,
    prompt_ids: Vec<u64>,
    ids: IdFields,
    with_logprobs: bool,
}

impl ChatAnswer {
    fn to(body: &Value, behaviour: &Behaviour) -> Self {
        let messages = &body["messages"];
        let answered = messages.as_array().and_then(|all| all.last()).is_some_and(|last| last["role"] == "tool");
        let tool_call = body["tools"].get(0).filter(|_| !answered).map(|tool| {
            let function = &tool["function"];
            let arguments = arguments(&function["parameters"]).to_string();
            json!({ "index": 0, "id": "call_mock_1", "type": "function", "function": { "name": function["name"], "arguments": arguments } })
        });
        let count = if tool_call.is_some() { 0 } else { behaviour.options.chunks };
        Self {
            id: answer_id("chatcmpl-mock", &[messages, &body["tools"], &body["stream"], &body["n"]]),
            words: words(&last_text(messages), count),
            tool_call,
            prompt_ids: ids(&messages.to_string()),
            ids: IdFields::of(body, behaviour),
            with_logprobs: body["logprobs"] == true,
        }
    }

    fn finish_reason(&self) -> &'static str {
        if self.tool_call.is_some() { "tool_calls" } else { "stop" }
    }

    /// What was sampled, token by token: the words, or the tool call as one.
    fn sampled(&self) -> Vec<String> {
        match &self.tool_call {
            Some(call) => vec![call["function"].to_string().replace(char::is_whitespace, "")],
            None => self.words.clone(),
        }
    }

    fn usage(&self) -> Value {
        let (prompt, completion) = (self.prompt_ids.len(), self.sampled().len().max(1));
        json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
    }

    fn put_sampled(&self, choice: &mut Value, sampled: &[String]) {
        self.ids.put(choice, "token_ids", &ids(&sampled.concat()));
        if self.with_logprobs {
            choice["logprobs"] = logprobs(sampled);
        }
    }

    fn whole(&self, body: &Value) -> Value {
        let text = self.words.concat();
        let mut message = json!({ "role": "assistant", "content": text });
        if let Some(call) = &self.tool_call {
            message["content"] = Value::Null;
            message["tool_calls"] = json!([call]);
        }
        let choices: Vec<Value> = (0..body["n"].as_u64().unwrap_or(1))
            .map(|index| {
                let mut choice = json!({ "index": index, "message": message, "finish_reason": self.finish_reason(), "logprobs": null });
                self.put_sampled(&mut choice, &self.sampled());
                choice
            })
            .collect();
        let mut answer = json!({ "id": self.id, "object": "chat.completion", "created": 1, "model": body["model"], "choices": choices, "usage": self.usage() });
        self.ids.put(&mut answer, "prompt_token_ids", &self.prompt_ids);
        answer
    }

    fn events(&self, body: &Value) -> Vec<Bytes> {
        let chunk = |delta: Value, finish: Value| {
            json!({ "id": self.id, "object": "chat.completion.chunk", "created": 1, "model": body["model"],
                    "choices": [{ "index": 0, "delta": delta, "finish_reason": finish, "logprobs": null }] })
        };
        let mut first = chunk(json!({ "role": "assistant", "content": "" }), Value::Null);
        self.ids.put(&mut first, "prompt_token_ids", &self.prompt_ids);
        let mut events = vec![data(&first)];
        for word in &self.words {
            let mut event = chunk(json!({ "content": word }), Value::Null);
            self.put_sampled(&mut event["choices"][0], std::slice::from_ref(word));
            events.push(data(&event));
        }
        if let Some(call) = &self.tool_call {
            let mut event = chunk(json!({ "tool_calls": [call] }), Value::Null);
            self.put_sampled(&mut event["choices"][0], &self.sampled());
            events.push(data(&event));
        }
        events.push(data(&chunk(json!({}), json!(self.finish_reason()))));
        if body["stream_options"]["include_usage"] == true {
            let mut last = chunk(json!({}), Value::Null);
            last["choices"] = json!([]);
            last["usage"] = self.usage();
            events.push(data(&last));
        }
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        events
    }
}

/// What stands in the fields of token ids.
#[derive(Clone, Copy)]
enum IdFields {
    /// The ids, as asked for.
    Ids,
    /// Null: vLLM writes the fields that nobody asked for.
    Null,
    /// Nothing: there are no such fields.
    None,
}

impl IdFields {
    fn of(body: &Value, behaviour: &Behaviour) -> Self {
        match (body["return_token_ids"] == true, behaviour.options.vllm) {
            (true, _) => Self::Ids,
            (false, true) => Self::Null,
            (false, false) => Self::None,
        }
    }

    fn put(self, object: &mut Value, name: &str, ids: &[u64]) {
        match self {
            Self::Ids => object[name] = json!(ids),
            Self::Null => object[name] = Value::Null,
            Self::None => {}
        }
    }
}

/// `POST /v1/completions`.
pub(super) async fn completions(Call { behaviour, body }: Call) -> Response {
    if let Some(failed) = before(&behaviour, error).await {
        return failed;
    }
    let prompt = body["prompt"].as_str().map_or_else(|| body["prompt"].to_string(), str::to_owned);
    let words = words(&prompt, behaviour.options.chunks);
    let fields = IdFields::of(&body, &behaviour);
    let id = answer_id("cmpl-mock", &[&body["prompt"], &body["stream"]]);
    let choice = |text: &str, finish: Value, first: bool| {
        let mut choice = json!({ "index": 0, "text": text, "finish_reason": finish, "logprobs": null });
        fields.put(&mut choice, "token_ids", &ids(text));
        if first {
            fields.put(&mut choice, "prompt_token_ids", &ids(&prompt));
        }
        json!({ "id": id, "object": "text_completion", "created": 1, "model": body["model"], "choices": [choice] })
    };
    if body["stream"] == true {
        let texts = words.iter().enumerate().map(|(at, word)| data(&choice(word, Value::Null, at == 0)));
        let end = [data(&choice("", json!("stop"), false)), Bytes::from_static(b"data: [DONE]\n\n")];
        return stream(texts.chain(end).collect(), behaviour, data(&error(500)));
    }
    let mut answer = choice(&words.concat(), json!("stop"), true);
    let (asked, said) = (ids(&prompt).len(), words.len());
    answer["usage"] = json!({ "prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said });
    Json(answer).into_response()
}

pub(super) fn error(status: u16) -> Value {
    json!({ "error": { "message": "failing on demand", "type": "mock_error", "code": status, "param": null } })
}
