//! Converts recorded LLM calls to Agent Lightning 1.0's `model_request` events.
//!
//! Recorded bodies are returned unchanged; bodies that were not recorded are rebuilt from the span's attributes.

use crate::trace::semconv as names;
use crate::trace::{Span, Value};
use serde_json::{Map, Value as JsonValue, json};

/// The request's body; if it was not recorded, its known fields.
pub(crate) fn request(span: &Span) -> JsonValue {
    if let Some(body) = body(span, names::HTTP_REQUEST_BODY_CONTENT) {
        return body;
    }
    let mut request = Map::new();
    let mut put = |name: &str, value: Option<JsonValue>| request.extend(value.map(|value| (name.to_owned(), value)));
    put("model", text(span, names::GEN_AI_REQUEST_MODEL).map(JsonValue::from));
    put("messages", Some(messages(span, names::GEN_AI_INPUT_MESSAGES)));
    for (name, attribute) in [
        ("temperature", names::GEN_AI_REQUEST_TEMPERATURE),
        ("top_p", names::GEN_AI_REQUEST_TOP_P),
        ("max_tokens", names::GEN_AI_REQUEST_MAX_TOKENS),
        ("stream", names::GEN_AI_REQUEST_STREAM),
    ] {
        put(name, span.attributes.get(attribute).and_then(|value| serde_json::to_value(value).ok()));
    }
    JsonValue::Object(request)
}

/// The response's body as one object; for a stream, or if it was not recorded, its known fields.
pub(crate) fn response(span: &Span) -> JsonValue {
    if let Some(body) = body(span, names::HTTP_RESPONSE_BODY_CONTENT) {
        return body;
    }
    if !span.attributes.contains_key(names::GEN_AI_RESPONSE_ID)
        && !span.attributes.contains_key(names::RESPONSE_TOKEN_IDS)
    {
        return json!({});
    }
    let outputs = messages(span, names::GEN_AI_OUTPUT_MESSAGES);
    let reasons = match span.attributes.get(names::GEN_AI_RESPONSE_FINISH_REASONS) {
        Some(Value::Strings(reasons)) => reasons.clone(),
        _ => Vec::new(),
    };
    let choices = outputs.as_array().into_iter().flatten().enumerate().map(|(index, message)| {
        let mut choice = json!({
            "index": index,
            "message": message,
            "finish_reason": reasons.get(index),
            "token_ids": ints(span, names::RESPONSE_TOKEN_IDS, index),
            "logprobs": null,
        });
        if let Some(logprobs) = floats(span, names::RESPONSE_LOGPROBS, index) {
            let content: Vec<JsonValue> = logprobs.iter().map(|logprob| json!({ "logprob": logprob })).collect();
            choice["logprobs"] = json!({ "content": content });
        }
        choice
    });
    let mut response = json!({
        "id": text(span, names::GEN_AI_RESPONSE_ID),
        "object": "chat.completion",
        "model": text(span, names::GEN_AI_RESPONSE_MODEL),
        "choices": choices.collect::<Vec<_>>(),
        "prompt_token_ids": ints(span, names::PROMPT_TOKEN_IDS, 0),
    });
    if let Some(usage) = usage(span) {
        response["usage"] = usage;
    }
    response
}

/// The `data` of a `model_request` event.
pub(crate) fn event_data(span: &Span) -> JsonValue {
    let response = response(span);
    let http_status = http_status(span);
    let model = text(span, names::GEN_AI_REQUEST_MODEL);
    let version = server_version(span);
    let times = (span.start_time, span.end_time);
    let latency = if let (Some(start), Some(end)) = times { end.since(start).as_secs_f64() * 1000.0 } else { 0.0 };
    let usage = response.get("usage").filter(|usage| usage.is_object()).cloned();
    let reason = response
        .pointer("/choices/0/finish_reason")
        .filter(|reason| reason.as_str().is_some_and(|text| !text.is_empty()));
    let doubts = token_id_doubts(span);
    let retries = span.attributes.get(names::HTTP_REQUEST_RESEND_COUNT).and_then(Value::as_int).unwrap_or(0);
    let mut data = json!({
        "model": model,
        "model_version": version,
        "request": request(span),
        "server": { "model": model, "endpoint": text(span, names::GATEWAY_BACKEND), "version": version },
        "latency_ms": latency,
        "http_status": http_status,
        "status": status(span),
        "retry_count": retries,
        "usage": usage,
        "finish_reason": reason,
        "response": response,
    });
    for (name, value) in doubts {
        data[name] = value;
    }
    data
}

/// The HTTP status of a call; without a response the one that the agent received.
pub(super) fn http_status(span: &Span) -> i64 {
    let status = span.attributes.get(names::HTTP_RESPONSE_STATUS_CODE).and_then(Value::as_int);
    status.unwrap_or(if timed_out(span) { 504 } else { 502 })
}

/// `ok` for a call that is a sample, else `error`.
pub(super) fn status(span: &Span) -> &'static str {
    if http_status(span) < 400 && !span.is_error() && is_complete(span) { "ok" } else { "error" }
}

/// The version of the backend's registration at the time of the call; the engine's own version is on the span.
pub(super) fn server_version(span: &Span) -> JsonValue {
    match span.attributes.get(names::GATEWAY_VERSION) {
        // Spans of earlier programs have a number.
        Some(Value::Int(number)) => JsonValue::from(*number),
        Some(_) => version_in(span, names::GATEWAY_VERSION),
        None => version(span),
    }
}

/// Fields that mark token ids with an issue: the status of the validation, and its reasons. Empty if the
/// ids are exact, or if the call has none.
pub(crate) fn token_id_doubts(span: &Span) -> Map<String, JsonValue> {
    let status = text(span, names::TOKENS_STATUS).filter(|status| status != "exact");
    let Some(status) = status.filter(|_| span.attributes.contains_key(names::RESPONSE_TOKEN_IDS)) else {
        return Map::new();
    };
    let reasons = span.attributes.get(names::TOKENS_REASONS).and_then(|reasons| serde_json::to_value(reasons).ok());
    [("token_ids_status", json!(status)), ("token_ids_reasons", reasons.unwrap_or_default())]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// False if the response ended early or the agent disconnected: such a call is not a sample.
fn is_complete(span: &Span) -> bool {
    text(span, names::OUTCOME).is_none_or(|outcome| outcome == "complete")
}

fn timed_out(span: &Span) -> bool {
    text(span, "error.type").is_some_and(|kind| kind.ends_with("_timeout"))
}

/// The policy version of the response: a number if possible, otherwise a string; 0 if unknown.
pub(crate) fn version(span: &Span) -> JsonValue {
    version_in(span, names::POLICY_VERSION)
}

fn version_in(span: &Span, attribute: &str) -> JsonValue {
    match text(span, attribute) {
        Some(version) => version.parse::<i64>().map_or_else(|_| JsonValue::from(version), JsonValue::from),
        None => JsonValue::from(0),
    }
}

/// Converts the messages of an attribute to those of chat completions.
pub(crate) fn messages(span: &Span, attribute: &str) -> JsonValue {
    chat_messages(span.attributes.get(attribute).and_then(Value::as_str).unwrap_or_default()).into()
}

/// Converts messages as spans have them to those of chat completions. Text that is no JSON list becomes an empty list.
pub(crate) fn chat_messages(json: &str) -> Vec<JsonValue> {
    let parsed: Vec<JsonValue> = serde_json::from_str(json).unwrap_or_default();
    parsed.iter().flat_map(chat_messages_of).collect()
}

fn chat_messages_of(message: &JsonValue) -> Vec<JsonValue> {
    let role = message["role"].as_str().unwrap_or("user");
    let parts = message["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_type = |kind: &'static str| parts.iter().filter(move |part| part["type"] == kind);
    let results: Vec<JsonValue> = of_type("tool_call_response")
        .map(|part| {
            let response = part.get("response").or_else(|| part.get("result")).unwrap_or(&JsonValue::Null);
            let content = response.as_str().map_or_else(|| response.to_string(), str::to_owned);
            json!({ "role": "tool", "tool_call_id": part["id"], "content": content })
        })
        .collect();
    if !results.is_empty() {
        return results;
    }
    let joined = |kind| {
        let texts: Vec<&str> = of_type(kind).filter_map(|part| part["content"].as_str()).collect();
        (!texts.is_empty()).then(|| texts.concat())
    };
    let calls: Vec<JsonValue> = of_type("tool_call")
        .map(|part| {
            let arguments = part["arguments"].as_str().map_or_else(|| part["arguments"].to_string(), str::to_owned);
            json!({ "id": part["id"], "type": "function", "function": { "name": part["name"], "arguments": arguments } })
        })
        .collect();
    let mut chat = json!({ "role": role, "content": joined("text") });
    if let Some(reasoning) = joined("reasoning") {
        chat["reasoning_content"] = reasoning.into();
    }
    if !calls.is_empty() {
        chat["tool_calls"] = calls.into();
    }
    vec![chat]
}

/// Token usage with the field names of chat completions. `None` if the input tokens are unknown.
pub(crate) fn usage(span: &Span) -> Option<JsonValue> {
    let number = |name: &str| span.attributes.get(name).and_then(Value::as_int);
    let input = number(names::GEN_AI_USAGE_INPUT_TOKENS)?;
    let output = number(names::GEN_AI_USAGE_OUTPUT_TOKENS).unwrap_or(0);
    Some(json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input.saturating_add(output) }))
}

/// The integers of an attribute for choice `index`, for example token ids; empty if missing.
pub(crate) fn ints(span: &Span, name: &str, index: usize) -> Vec<i64> {
    match span.attributes.get(&indexed(name, index)) {
        Some(Value::Ints(ids)) => ids.clone(),
        _ => Vec::new(),
    }
}

/// The floats of an attribute for choice `index`, for example logprobs; `None` if missing.
pub(crate) fn floats(span: &Span, name: &str, index: usize) -> Option<Vec<f64>> {
    match span.attributes.get(&indexed(name, index)) {
        Some(Value::Floats(values)) => Some(values.clone()),
        _ => None,
    }
}

fn indexed(name: &str, index: usize) -> String {
    if index == 0 { name.to_owned() } else { format!("{name}.{index}") }
}

/// The text of an attribute; `None` if it is missing or not text.
pub(crate) fn text(span: &Span, name: &str) -> Option<String> {
    span.attributes.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// A recorded body, if it is a JSON object.
fn body(span: &Span, name: &str) -> Option<JsonValue> {
    let text = span.attributes.get(name).and_then(Value::as_str)?;
    serde_json::from_str::<JsonValue>(text).ok().filter(JsonValue::is_object)
}
