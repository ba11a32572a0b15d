//! What the tests of translations share.

use super::chat_request::Turns;
use super::options::{ServerTools, TranslationOptions};
use super::response::ResponseTranslator;
use super::source::{GeminiPath, SourceApi};
use super::to_chat::to_chat;
use crate::wire::sse::Events;
use serde_json::Value;

pub(super) const OPTIONS: TranslationOptions =
    TranslationOptions { turns: Turns::Merge, server_tools: ServerTools::Drop };
pub(super) const SSE: GeminiPath = GeminiPath { streams: true, sse: true };

/// The chat request that this one becomes.
pub(super) fn chat(source: SourceApi, request: &str) -> Value {
    Value::Object(to_chat(source, request.as_bytes(), GeminiPath::default(), OPTIONS).unwrap().body)
}

/// The chat request that this one becomes, and what is left out.
pub(super) fn translated(source: SourceApi, request: &Value) -> (Value, Vec<String>) {
    let request = to_chat(source, request.to_string().as_bytes(), GeminiPath::default(), OPTIONS).unwrap();
    (Value::Object(request.body), request.dropped)
}

/// Where this request is refused.
pub(super) fn refused_at(source: SourceApi, request: &Value) -> String {
    to_chat(source, request.to_string().as_bytes(), GeminiPath::default(), OPTIONS).unwrap_err().place
}

/// The whole response to a request, from this chat completion.
pub(super) fn response_to(source: SourceApi, request: &str, chat: &Value) -> Value {
    let translator = to_chat(source, request.as_bytes(), SSE, OPTIONS).unwrap().response;
    serde_json::from_slice(&translator.whole(chat.to_string().as_bytes()).unwrap()).unwrap()
}

/// The events of the streamed response to a request, from this chat completion as one chunk.
pub(super) fn stream_to(source: SourceApi, request: &str, chat: &Value) -> Vec<Value> {
    let translator = to_chat(source, request.as_bytes(), SSE, OPTIONS).unwrap().response;
    events(&streamed(&translator, &format!("data: {chat}\n\ndata: [DONE]\n\n"), &[]))
}

/// The client's stream when the backend's is cut at these places.
pub(super) fn streamed(translator: &ResponseTranslator, stream: &str, cuts: &[usize]) -> String {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    let mut to_client = translator.stream();
    let mut out = Vec::new();
    for pair in cuts.windows(2) {
        out.extend(to_client.push(&stream.as_bytes()[pair[0]..pair[1]]));
    }
    out.extend(to_client.finish());
    assert!(to_client.has_ended());
    assert!(to_client.push(b"data: {}\n\n").is_empty() && to_client.finish().is_empty());
    String::from_utf8(out).unwrap()
}

/// The data of a stream's events. Where an event has a name, it is its type.
pub(super) fn events(stream: &str) -> Vec<Value> {
    let events = Events::new(stream.as_bytes()).map(|event| {
        let data: Value = serde_json::from_slice(&event.data).unwrap();
        assert!(event.complete);
        assert!(event.name.is_empty() || data["type"].as_str().unwrap().as_bytes() == event.name);
        data
    });
    events.collect()
}
