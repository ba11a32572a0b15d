//! Conversations for fine-tuning as OpenAI and Hugging Face have them, a line for each branch: `messages` and `tools`.

use super::shape::Shape;
use crate::export::model_request::chat_messages;
use crate::export::sample::AttemptSample;
use crate::trajectory::{Branch, Call};
use serde_json::{Value as JsonValue, json};

/// `--format messages`. It needs no token ids: without them it can't be known which calls continue each other, so that each
/// call is a line.
pub(super) struct Messages;

impl Shape for Messages {
    fn name(&self) -> &'static str {
        "messages"
    }

    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        let calls = &sample.tree.calls;
        let leaves =
            sample.tree.branches.iter().filter_map(|branch: &Branch| branch.path.last()).map(|leaf| &calls[*leaf]);
        let without_ids = calls.iter().filter(|call| call.prompt.is_empty() || call.sampled.is_empty());
        let conversations = leaves.chain(without_ids).filter(|call| is_conversation(call));
        conversations.map(|call| json!({ "messages": conversation(call), "tools": tools(call) })).collect()
    }
}

/// True for a call of the agent with a complete answer and recorded messages.
fn is_conversation(call: &Call) -> bool {
    use crate::trajectory::Exclusion::{NoTokenIds, Unproved};
    matches!(call.exclusion, None | Some(NoTokenIds | Unproved)) && !call.content.input.is_empty()
}

fn conversation(call: &Call) -> Vec<JsonValue> {
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

/// The tools as chat completions have them; null without tools.
fn tools(call: &Call) -> JsonValue {
    let tools: Vec<JsonValue> = serde_json::from_str(&call.content.tools).unwrap_or_default();
    let tool = |tool: JsonValue| {
        if tool.get("function").is_some() { tool } else { json!({ "type": "function", "function": tool }) }
    };
    if tools.is_empty() { JsonValue::Null } else { tools.into_iter().map(tool).collect() }
}
