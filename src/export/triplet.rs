//! Converts recorded LLM calls and posted events to the data of Agent Lightning 1.0's `format=triplet`.
//!
//! A recorded call is converted without its request and without a JSON tree: its lists may have a hundred thousand numbers.

use super::model_request::{event_data, http_status, server_version, status, text, token_id_doubts};
use crate::trace::number_lists::{list_at, lists_of, with_whole_texts};
use crate::trace::semconv as names;
use crate::trace::{Span, Value};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value as JsonValue, json};
use std::borrow::Cow;

/// The attributes that triplets are made from, besides those that are never long.
pub(crate) const TRIPLET_CONTENT: &[&str] = &[
    names::HTTP_RESPONSE_BODY_CONTENT,
    names::PROMPT_TOKEN_IDS,
    names::RESPONSE_TOKEN_IDS,
    names::RESPONSE_LOGPROBS,
    names::GEN_AI_OUTPUT_MESSAGES,
    names::GEN_AI_REQUEST_MODEL,
    names::GATEWAY_VERSION,
    names::POLICY_VERSION,
    names::EVENT_TYPE,
    names::EVENT_DATA,
];

/// Those of them that have the prompt.
pub(crate) const PROMPT_CONTENT: &[&str] = &[names::HTTP_RESPONSE_BODY_CONTENT, names::PROMPT_TOKEN_IDS];

/// The data of a recorded call.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum CallTriplet<'a> {
    /// From lists of the expected types.
    Typed(Box<TypedTriplet<'a>>),
    /// From a recorded body with others.
    Json(JsonValue),
}

/// The data of a recorded call, of lists of the expected types.
#[derive(Serialize)]
pub(crate) struct TypedTriplet<'a> {
    /// The ids of the prompt.
    pub(crate) prompt_token_ids: Cow<'a, [i64]>,
    response_token_ids: Cow<'a, [i64]>,
    response_log_probs: Option<Cow<'a, [f64]>>,
    server: Server,
    http_status: i64,
    status: &'static str,
    #[serde(flatten)]
    doubts: Map<String, JsonValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<JsonValue>,
}

#[derive(Serialize)]
struct Server {
    model: Option<String>,
    version: JsonValue,
}

impl<'a> CallTriplet<'a> {
    /// Of a call. A recorded body counts, as in its event; without one the attributes of the span do.
    pub(crate) fn of(span: &'a Span) -> Self {
        let body = span.attributes.get(names::HTTP_RESPONSE_BODY_CONTENT).and_then(Value::as_str);
        // Of a stream, the event has the attributes.
        match body.filter(|body| body.trim_start().starts_with('{')) {
            None => Self::of_attributes(span),
            Some(body) => Self::of_body(span, body)
                .unwrap_or_else(|| Self::Json(triplet("model_request", &event_data(&with_whole_texts(span))))),
        }
    }

    fn of_attributes(span: &'a Span) -> Self {
        let is_answered = [names::GEN_AI_RESPONSE_ID, names::RESPONSE_TOKEN_IDS]
            .iter()
            .any(|name| span.attributes.contains_key(*name));
        let ids = |name: &str| match span.attributes.get(name).filter(|_| is_answered) {
            Some(Value::Ints(ids)) => Cow::Borrowed(ids.as_slice()),
            _ => Cow::default(),
        };
        // As the event has it: the logprobs belong to the first message of the output.
        let has_choice = text(span, names::GEN_AI_OUTPUT_MESSAGES).is_some_and(|messages| messages.starts_with("[{"));
        let logprobs = match span.attributes.get(names::RESPONSE_LOGPROBS) {
            Some(Value::Floats(logprobs))
                if is_answered && has_choice && logprobs.iter().all(|logprob| logprob.is_finite()) =>
            {
                Some(Cow::Borrowed(logprobs.as_slice()))
            }
            _ => None,
        };
        let sampled = if has_choice { ids(names::RESPONSE_TOKEN_IDS) } else { Cow::default() };
        Self::typed(span, ids(names::PROMPT_TOKEN_IDS), sampled, logprobs, None)
    }

    /// Of a recorded body. `None`: it has a field of another type, or a list apart from its text that is not one of ids.
    fn of_body(span: &'a Span, body: &'a str) -> Option<Self> {
        let mut found = 0;
        let mut ids = |list: Option<&'a RawValue>| match list {
            None => Some(None),
            Some(list) => ids_in(span, body, list, &mut found).map(Some),
        };
        let ResponseBody { prompt_token_ids, choices, error } = serde_json::from_str(body).ok()?;
        // A wrong type is one in any choice.
        let mut choices = choices
            .unwrap_or_default()
            .into_iter()
            .map(|choice| Some((ids(choice.prompt_token_ids)?, ids(choice.token_ids)?, choice.logprobs)))
            .collect::<Option<Vec<_>>>()?;
        let (of_choice, sampled, logprobs) =
            if choices.is_empty() { (None, None, None) } else { choices.swap_remove(0) };
        let prompt = ids(prompt_token_ids)?.filter(|ids| !ids.is_empty()).or(of_choice);
        if found < lists_of(&span.attributes, names::HTTP_RESPONSE_BODY_CONTENT) {
            return None;
        }
        let logprobs = logprobs.and_then(|logprobs| match (logprobs.content, logprobs.token_logprobs) {
            (Some(content), _) => content.into_iter().map(|token| token.logprob).collect::<Option<Vec<f64>>>(),
            (None, Some(numbers)) => numbers.into_iter().collect(),
            (None, None) => None,
        });
        let (prompt, sampled) = (prompt.unwrap_or_default(), sampled.unwrap_or_default());
        Some(Self::typed(span, prompt, sampled, logprobs.map(Cow::from), error))
    }

    fn typed(
        span: &Span,
        prompt_token_ids: Cow<'a, [i64]>,
        response_token_ids: Cow<'a, [i64]>,
        response_log_probs: Option<Cow<'a, [f64]>>,
        error: Option<JsonValue>,
    ) -> Self {
        Self::Typed(Box::new(TypedTriplet {
            prompt_token_ids,
            response_token_ids,
            response_log_probs,
            server: Server { model: text(span, names::GEN_AI_REQUEST_MODEL), version: server_version(span) },
            http_status: http_status(span),
            status: status(span),
            doubts: token_id_doubts(span),
            error,
        }))
    }
}

/// The ids of a list in the body of a response: those that the store left apart from the text, which are counted, or those that
/// the text has. `None`: it is no list of ids.
fn ids_in<'a>(span: &'a Span, body: &str, list: &'a RawValue, found: &mut usize) -> Option<Cow<'a, [i64]>> {
    // The value is a part of the body, so that its address tells its place.
    let behind_bracket = list.get().as_ptr().addr() - body.as_ptr().addr() + 1;
    match list_at(&span.attributes, names::HTTP_RESPONSE_BODY_CONTENT, behind_bracket) {
        Some(ids) => {
            *found += 1;
            Some(Cow::Borrowed(ids))
        }
        None => serde_json::from_str::<Vec<i64>>(list.get()).ok().map(Cow::Owned),
    }
}

/// What a triplet has of a response's body. A field of another type is an error.
#[derive(Deserialize)]
struct ResponseBody<'a> {
    #[serde(borrow)]
    prompt_token_ids: Option<&'a RawValue>,
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default, deserialize_with = "present")]
    error: Option<JsonValue>,
}

/// A null error is an error field too.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<JsonValue>, D::Error> {
    JsonValue::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    prompt_token_ids: Option<&'a RawValue>,
    #[serde(borrow)]
    token_ids: Option<&'a RawValue>,
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<TokenLogprob>>,
    token_logprobs: Option<Vec<Option<f64>>>,
}

#[derive(Deserialize)]
struct TokenLogprob {
    logprob: Option<f64>,
}

/// The data of an event for `format=triplet`.
pub(crate) fn triplet(event_type: &str, data: &JsonValue) -> JsonValue {
    match event_type {
        "reward" => {
            let mut reward = Map::new();
            reward.insert("value".to_owned(), data.get("value").cloned().unwrap_or_default());
            for name in ["source", "reason"] {
                reward.extend(data.get(name).map(|value| (name.to_owned(), value.clone())));
            }
            JsonValue::Object(reward)
        }
        "model_request" => {
            let response = data.get("response").unwrap_or(&JsonValue::Null);
            let chunks = response.as_array();
            let (prompt, sampled) = match chunks {
                Some(chunks) => (prompt_of_chunks(chunks), ids_of_chunks(chunks)),
                None => (prompt_of(response), array(response.pointer("/choices/0/token_ids"))),
            };
            let logprobs = if chunks.is_some() { None } else { logprobs(response) };
            let mut out = json!({
                "prompt_token_ids": prompt,
                "response_token_ids": sampled,
                "response_log_probs": logprobs,
                "server": {
                    "model": data.pointer("/server/model").cloned().unwrap_or_default(),
                    "version": data.pointer("/server/version").cloned().unwrap_or_default(),
                },
            });
            for name in ["http_status", "status", "token_ids_status", "token_ids_reasons"] {
                if let Some(value) = data.get(name) {
                    out[name] = value.clone();
                }
            }
            if let Some(error) = response.get("error") {
                out["error"] = error.clone();
            }
            out
        }
        _ => data.clone(),
    }
}

fn prompt_of(response: &JsonValue) -> Vec<JsonValue> {
    let root = array(response.get("prompt_token_ids"));
    if root.is_empty() { array(response.pointer("/choices/0/prompt_token_ids")) } else { root }
}

fn prompt_of_chunks(chunks: &[JsonValue]) -> Vec<JsonValue> {
    chunks.iter().map(prompt_of).find(|ids| !ids.is_empty()).unwrap_or_default()
}

fn ids_of_chunks(chunks: &[JsonValue]) -> Vec<JsonValue> {
    chunks.iter().flat_map(|chunk| array(chunk.pointer("/choices/0/token_ids"))).collect()
}

fn array(value: Option<&JsonValue>) -> Vec<JsonValue> {
    value.and_then(JsonValue::as_array).cloned().unwrap_or_default()
}

/// `None` if any logprob is missing or not finite: the others would no longer match the token ids.
fn logprobs(response: &JsonValue) -> Option<Vec<f64>> {
    let logprobs = response.pointer("/choices/0/logprobs")?;
    let finite = |value: &JsonValue| value.as_f64().filter(|value| value.is_finite());
    if let Some(content) = logprobs.get("content").and_then(JsonValue::as_array) {
        return content.iter().map(|token| finite(token.get("logprob")?)).collect();
    }
    logprobs.get("token_logprobs")?.as_array()?.iter().map(finite).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::number_lists::{DividedText, divide};

    /// A call with these attributes, as JSON.
    fn call(attributes: &JsonValue) -> Span {
        let json = json!({
            "rollout_id": "r", "attempt_id": "a", "sequence_id": 1, "trace_id": "t", "span_id": "s", "parent_id": null,
            "name": "chat", "status": { "status_code": "UNSET" }, "attributes": attributes, "events": [], "links": [],
            "start_time": 1.0, "end_time": 2.0, "context": null, "parent": null,
            "resource": { "attributes": {}, "schema_url": "" },
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_call_is_converted_as_its_event_would_be() {
        let body = |body: JsonValue| json!({ names::HTTP_RESPONSE_BODY_CONTENT: body.to_string(), names::PROMPT_TOKEN_IDS: [9] });
        let recorded = json!({
            names::GEN_AI_RESPONSE_ID: "x", names::GEN_AI_REQUEST_MODEL: "m", names::HTTP_RESPONSE_STATUS_CODE: 200,
            names::PROMPT_TOKEN_IDS: [1, 2], names::RESPONSE_TOKEN_IDS: [3], names::RESPONSE_LOGPROBS: [-0.5],
            names::GEN_AI_OUTPUT_MESSAGES: r#"[{"role":"assistant","parts":[]}]"#,
            names::TOKENS_STATUS: "partial", names::TOKENS_REASONS: ["a"], names::GATEWAY_VERSION: 4,
        });
        let with = |name: &str, value: JsonValue| {
            let mut changed = recorded.clone();
            changed[name] = value;
            changed
        };
        let without = |name: &str| {
            let mut changed = recorded.clone();
            changed.as_object_mut().unwrap().remove(name);
            changed
        };
        let chat = json!({ "prompt_token_ids": [1], "choices": [
            { "token_ids": [2, 3], "logprobs": { "content": [{ "logprob": -1.0 }, { "logprob": -0.25, "token": "x" }] } }] });
        let long: Vec<i64> = (0..200).collect();
        for attributes in [
            json!({}),
            body(json!({ "prompt_token_ids": long, "choices": [{ "token_ids": long }, { "token_ids": long }] })),
            body(json!({ "choices": [{ "token_ids": long, "logprobs": { "token_logprobs": vec![0; 130] } }] })),
            body(json!({ "prompt_token_ids": long, "choices": [{ "token_ids": [1] }], "error": { "at": long } })),
            body(json!({ "prompt_token_ids": [1], "choices": long })),
            recorded.clone(),
            without(names::GEN_AI_RESPONSE_ID),
            without(names::RESPONSE_TOKEN_IDS),
            without(names::GEN_AI_OUTPUT_MESSAGES),
            with(names::GEN_AI_OUTPUT_MESSAGES, json!("[]")),
            with(names::HTTP_RESPONSE_STATUS_CODE, json!(500)),
            with(names::HTTP_RESPONSE_BODY_CONTENT, json!("data: {}\n\n")),
            with(names::HTTP_RESPONSE_BODY_CONTENT, json!("")),
            with("error.type", json!("read_timeout")),
            body(chat),
            body(
                json!({ "choices": [{ "prompt_token_ids": [7], "token_ids": null, "logprobs": { "token_logprobs": [-1.0, null] } }] }),
            ),
            body(json!({ "choices": [{ "logprobs": { "content": null, "token_logprobs": [-1.0] } }], "error": null })),
            body(
                json!({ "choices": [{ "logprobs": { "content": [{ "logprob": null }] } }], "error": { "message": "x" } }),
            ),
            body(json!({ "prompt_token_ids": ["a"], "choices": [{ "token_ids": [1.5] }] })),
            body(json!({ "prompt_token_ids": [], "choices": [] })),
            body(json!({ "prompt_token_ids": {}, "choices": {} })),
            body(json!([{ "prompt_token_ids": [1] }])),
            body(json!("text")),
            body(JsonValue::Null),
        ] {
            let span = call(&attributes);
            let expected = triplet("model_request", &event_data(&span));
            assert_eq!(serde_json::to_value(CallTriplet::of(&span)).unwrap(), expected, "{attributes}");
            // As a store leaves the lists of bodies.
            let mut divided = span.clone();
            let text = span.attributes.get(names::HTTP_RESPONSE_BODY_CONTENT).and_then(Value::as_str);
            if let Some(DividedText { rest, lists }) = text.and_then(divide) {
                for list in lists {
                    divided.set(&list.name(names::HTTP_RESPONSE_BODY_CONTENT), Value::Ints(list.numbers));
                }
                divided.set(names::HTTP_RESPONSE_BODY_CONTENT, rest);
            }
            assert_eq!(serde_json::to_value(CallTriplet::of(&divided)).unwrap(), expected, "{attributes}");
            // Without what a store may leave out.
            let mut outline = span.clone();
            for (name, value) in &mut outline.attributes {
                match value {
                    Value::String(text) if !TRIPLET_CONTENT.contains(&name.as_str()) => text.clear(),
                    _ => {}
                }
            }
            for name in ["error.type", names::GEN_AI_RESPONSE_ID, names::TOKENS_STATUS] {
                outline.attributes.extend(span.attributes.get(name).map(|value| (name.to_owned(), value.clone())));
            }
            assert_eq!(serde_json::to_value(CallTriplet::of(&outline)).unwrap(), expected, "{attributes}");
        }
    }

    #[test]
    fn triplets_have_the_fields_of_agent_lightning() {
        let response = json!({
            "prompt_token_ids": [1, 2],
            "choices": [{ "token_ids": [3], "logprobs": { "content": [{ "logprob": -0.5 }] } }],
        });
        let data = json!({ "response": response, "server": { "model": "m", "endpoint": "e", "version": 4 },
                           "http_status": 200, "status": "ok", "latency_ms": 3 });
        assert_eq!(
            triplet("model_request", &data),
            json!({ "prompt_token_ids": [1, 2], "response_token_ids": [3], "response_log_probs": [-0.5],
                    "server": { "model": "m", "version": 4 }, "http_status": 200, "status": "ok" })
        );
        let chunks = json!([{ "prompt_token_ids": [1] }, { "choices": [{ "token_ids": [2] }] }, { "choices": [{ "token_ids": [3] }] }]);
        let of_chunks = triplet("model_request", &json!({ "response": chunks }));
        assert_eq!((&of_chunks["prompt_token_ids"], &of_chunks["response_token_ids"]), (&json!([1]), &json!([2, 3])));
        assert_eq!(of_chunks["response_log_probs"], JsonValue::Null);
        let broken = json!({ "response": { "choices": [{ "logprobs": { "content": [{ "logprob": 1.5 }, {}] } }], "error": { "message": "x" } } });
        let of_broken = triplet("model_request", &broken);
        assert_eq!(
            (&of_broken["response_log_probs"], &of_broken["error"]),
            (&JsonValue::Null, &json!({ "message": "x" }))
        );
        assert_eq!(triplet("reward", &json!({ "value": 1.0, "message": "m" })), json!({ "value": 1.0 }));
        assert_eq!(triplet("note", &json!({ "a": 1 })), json!({ "a": 1 }));
    }
}
