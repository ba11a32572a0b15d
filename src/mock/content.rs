//! The content of responses: words, ids and tool arguments, computed from the request.

use serde_json::{Value as JsonValue, json};

/// A response id that depends on these parts of the request only.
pub(super) fn response_id(prefix: &str, request_parts: &[&JsonValue]) -> String {
    let text: String = request_parts.iter().map(|part| format!("{part};")).collect();
    format!("{prefix}-{:016x}", fnv(&text))
}

/// The 64-bit FNV-1a hash.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The words of the response to a text; they depend on the text only.
pub(super) fn words(prompt: &str, count: usize) -> Vec<String> {
    let seed = fnv(prompt);
    (0..count as u64)
        .map(|at| {
            let pick = seed.wrapping_add(at).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59;
            let word = VOCABULARY[usize::try_from(pick).unwrap_or(0) % VOCABULARY.len()];
            if at == 0 { word.to_owned() } else { format!(" {word}") }
        })
        .collect()
}

/// Token ids of a text: one per word, below 32,000.
pub(super) fn token_ids(text: &str) -> Vec<u64> {
    text.split_whitespace()
        .map(|word| word.bytes().fold(17, |id: u64, byte| (id * 31 + u64::from(byte)) % 32_000))
        .collect()
}

/// The words of a text, each with the white space behind it.
pub(super) fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(char::is_whitespace)
}

/// Logprobs in the shape of OpenAI's chat API.
pub(super) fn logprobs(words: &[String]) -> JsonValue {
    let content: Vec<JsonValue> = words
        .iter()
        .map(|word| json!({ "token": word, "logprob": -0.25, "bytes": word.as_bytes(), "top_logprobs": [] }))
        .collect();
    json!({ "content": content })
}

/// The text of the last message; content that is not a string is returned as JSON.
pub(super) fn last_text(messages: &JsonValue) -> String {
    let last = messages.as_array().and_then(|messages| messages.last());
    match last.map(|message| &message["content"]) {
        Some(JsonValue::String(text)) => text.clone(),
        Some(content) => content.to_string(),
        None => messages.as_str().unwrap_or_default().to_owned(),
    }
}

/// Arguments for a tool, with a value for each property of its schema.
pub(super) fn tool_arguments(schema: &JsonValue) -> JsonValue {
    let properties = schema["properties"].as_object();
    let filled = properties.into_iter().flatten().map(|(name, property)| {
        let value = match property["type"].as_str() {
            Some("integer" | "number") => json!(1),
            Some("boolean") => json!(true),
            _ => json!("Paris"),
        };
        (name.clone(), value)
    });
    JsonValue::Object(filled.collect())
}

const VOCABULARY: &[&str] = &[
    "The", "answer", "lies", "in", "what", "was", "asked", "and", "a", "mock", "can", "only", "guess", "at", "it",
    "so", "take", "these", "words", "as", "they", "come", "one", "by", "until", "all", "are", "said", "with", "calm",
    "and", "care",
];
