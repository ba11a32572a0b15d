//! What all LLM routes share: the words of an answer, their token ids, and how a stream is sent.

use super::behaviour::{Behaviour, Failure};
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use serde_json::{Value, json};

/// The id of an answer: always the same for the same question, and another for another.
pub(super) fn answer_id(prefix: &str, asked: &[&Value]) -> String {
    let text: String = asked.iter().map(|part| format!("{part};")).collect();
    format!("{prefix}-{:016x}", fnv(&text))
}

/// FNV-1a.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The words of the answer to a text: always the same for the same text.
pub(super) fn words(asked: &str, count: usize) -> Vec<String> {
    let seed = fnv(asked);
    (0..count as u64)
        .map(|at| {
            let pick = seed.wrapping_add(at).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59;
            let word = VOCABULARY[usize::try_from(pick).unwrap_or(0) % VOCABULARY.len()];
            if at == 0 { word.to_owned() } else { format!(" {word}") }
        })
        .collect()
}

/// Token ids of a text: one per word, stable.
pub(super) fn ids(text: &str) -> Vec<u64> {
    text.split_whitespace()
        .map(|word| word.bytes().fold(17, |id: u64, byte| (id * 31 + u64::from(byte)) % 32_000))
        .collect()
}

/// Logprobs in the shape of OpenAI's chat API.
pub(super) fn logprobs(words: &[String]) -> Value {
    let content: Vec<Value> = words
        .iter()
        .map(|word| json!({ "token": word, "logprob": -0.25, "bytes": word.as_bytes(), "top_logprobs": [] }))
        .collect();
    json!({ "content": content })
}

/// Waits, and fails if the request says so. `None`: answer normally.
pub(super) async fn before(behaviour: &Behaviour, error: impl Fn(u16) -> Value) -> Option<Response> {
    if behaviour.fail == Some(Failure::Stall) {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(behaviour.options.delay).await;
    if let Some(status) = behaviour.status {
        let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return Some((code, axum::Json(error(status))).into_response());
    }
    (behaviour.fail == Some(Failure::Reset)).then(|| stream(vec![Bytes::new()], behaviour.clone(), Bytes::new()))
}

/// Sends events one by one at the request's pace. `error_event` is sent in the middle if it is to fail there.
pub(super) fn stream(events: Vec<Bytes>, behaviour: Behaviour, error_event: Bytes) -> Response {
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
    tokio::spawn(async move {
        let middle = events.len() / 2;
        for (at, event) in events.into_iter().enumerate() {
            if at > 0 {
                tokio::time::sleep(behaviour.options.chunk_delay).await;
            }
            match behaviour.fail {
                Some(Failure::Reset) => return sender.abort(std::io::Error::other("reset on demand")),
                Some(Failure::Truncate) if at == middle => return sender.abort(std::io::Error::other("cut on demand")),
                Some(Failure::ErrorInStream) if at == middle => {
                    let _ = sender.send_data(error_event).await;
                    return;
                }
                _ => {}
            }
            // The client has left.
            if sender.send_data(event).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Body::new(body.map_err(axum::Error::new)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// An event without a name.
pub(super) fn data(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

/// An event named by its `type`.
pub(super) fn named(value: &Value) -> Bytes {
    format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or("message")).into()
}

/// The text of the last message, however its content is written.
pub(super) fn last_text(messages: &Value) -> String {
    let last = messages.as_array().and_then(|messages| messages.last());
    match last.map(|message| &message["content"]) {
        Some(Value::String(text)) => text.clone(),
        Some(content) => content.to_string(),
        None => messages.as_str().unwrap_or_default().to_owned(),
    }
}

/// Arguments for a tool, by the property names of its schema.
pub(super) fn arguments(schema: &Value) -> Value {
    let properties = schema["properties"].as_object();
    let filled = properties.into_iter().flatten().map(|(name, property)| {
        let value = match property["type"].as_str() {
            Some("integer" | "number") => json!(1),
            Some("boolean") => json!(true),
            _ => json!("Paris"),
        };
        (name.clone(), value)
    });
    Value::Object(filled.collect())
}

const VOCABULARY: &[&str] = &[
    "The", "answer", "lies", "in", "what", "was", "asked", "and", "a", "mock", "can", "only", "guess", "at", "it",
    "so", "take", "these", "words", "as", "they", "come", "one", "by", "until", "all", "are", "said", "with", "calm",
    "and", "care",
];
