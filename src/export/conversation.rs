//! Conversations of an attempt as chat messages with their tools, for fine-tuning.

use super::model_request::chat_messages;
use super::sample::AttemptSample;
use crate::trajectory::{Branch, Call};
use serde::Serialize;
use serde_json::{Value as JsonValue, json};

/// Messages up to an answer, which is the last one, and the tools that it could call.
#[derive(Serialize)]
pub(crate) struct Conversation {
    pub(crate) messages: Vec<JsonValue>,
    /// As chat completions have them; null without tools.
    pub(crate) tools: JsonValue,
}

/// The conversations of an attempt: one for each branch. They need no token ids: without them it can't be known which calls
/// continue each other, so that each call is a conversation.
pub(crate) fn conversations(sample: &AttemptSample) -> impl Iterator<Item = Conversation> {
    let calls = &sample.tree.calls;
    let leaf = |branch: &Branch| branch.path.last().map(|leaf| &calls[*leaf]);
    let without_ids = calls.iter().filter(|call| call.prompt.is_empty() || call.sampled.is_empty());
    let ends = sample.tree.branches.iter().filter_map(leaf).chain(without_ids).filter(|call| is_conversation(call));
    ends.map(|call| Conversation { messages: messages(call), tools: tools(call) })
}

/// True for a call of the agent with a complete answer and recorded messages.
fn is_conversation(call: &Call) -> bool {
    use crate::trajectory::Exclusion::{NoTokenIds, Unproved};
    matches!(call.exclusion, None | Some(NoTokenIds | Unproved)) && !call.content.input.is_empty()
}

fn messages(call: &Call) -> Vec<JsonValue> {
    let mut messages = Vec::new();
    let system: Vec<JsonValue> = serde_json::from_str(&call.content.system).unwrap_or_default();
    if !system.is_empty() {
        let texts: Vec<&str> = system.iter().filter_map(|part| part["content"].as_str()).collect();
        messages.push(json!({ "role": "system", "content": texts.join("\n") }));
    }
    messages.extend(chat_messages(&call.content.input));
    messages.extend(chat_messages(&call.content.output).into_iter().nth(call.choice));
    messages
}

fn tools(call: &Call) -> JsonValue {
    let tools: Vec<JsonValue> = serde_json::from_str(&call.content.tools).unwrap_or_default();
    let tool = |tool: JsonValue| {
        if tool.get("function").is_some() { tool } else { json!({ "type": "function", "function": tool }) }
    };
    if tools.is_empty() { JsonValue::Null } else { tools.into_iter().map(tool).collect() }
}
