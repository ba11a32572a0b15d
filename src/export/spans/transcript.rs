//! The LLM calls of a rollout as conversations: each message once, although each request repeats all before it.
//!
//! A call continues the conversation with the most messages that its input begins with. Messages are compared by role,
//! text and tool calls, because clients leave out the rest when they send an answer back. It needs no token ids; the
//! trajectories of training data do, and are exact.

use super::span_facts::text;
use crate::llm::recorded::is_llm_call;
use crate::trace::Span;
use crate::trace::semconv as names;
use serde::{Deserialize, Serialize};
use serde_json::Value as JsonValue;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The conversations of a rollout.
#[derive(Default)]
pub(super) struct Transcript<'a> {
    /// In the order of the calls.
    pub(super) calls: Vec<TranscriptCall<'a>>,
}

/// A call with what it adds to its conversation.
pub(super) struct TranscriptCall<'a> {
    pub(super) span: &'a Span,
    /// The call before it in its conversation, by index. `None` for the first one.
    pub(super) continues: Option<usize>,
    /// The messages that no call before it in its conversation has; the system instructions are the first of them.
    pub(super) input: Vec<Message>,
    /// One for each choice. Empty if there was no answer.
    pub(super) output: Vec<Message>,
}

/// A message, as it is recorded.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Message {
    pub(super) role: String,
    pub(super) parts: Vec<JsonValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) finish_reason: Option<String>,
}

/// A part of a message, as readers need it.
pub(super) enum Part<'a> {
    Text(&'a str),
    Reasoning(&'a str),
    ToolCall {
        id: &'a str,
        name: &'a str,
        arguments: &'a JsonValue,
    },
    ToolResult {
        id: &'a str,
        response: &'a JsonValue,
    },
    /// An image, a file, or what has no text. The part itself.
    Other(&'a JsonValue),
}

impl Message {
    /// The parts in their order.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.parts.iter().map(part)
    }

    /// The texts of all parts.
    pub(super) fn text(&self) -> String {
        let texts = self.parts().filter_map(|part| if let Part::Text(text) = part { Some(text) } else { None });
        texts.collect::<Vec<_>>().join("\n")
    }

    /// What is the same in an answer and in its copy in a later request.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let role = if self.role == "model" { "assistant" } else { &self.role };
        role.hash(&mut hasher);
        self.text().trim().hash(&mut hasher);
        for part in self.parts() {
            match part {
                Part::ToolCall { id, name, .. } => (1, id, name).hash(&mut hasher),
                Part::ToolResult { id, response } => (2, id, response.to_string()).hash(&mut hasher),
                Part::Text(_) | Part::Reasoning(_) | Part::Other(_) => {}
            }
        }
        hasher.finish()
    }
}

fn part(part: &JsonValue) -> Part<'_> {
    let field = |name: &str| part[name].as_str().unwrap_or_default();
    match part["type"].as_str() {
        Some("text") => Part::Text(field("content")),
        Some("reasoning") => Part::Reasoning(field("content")),
        Some("tool_call") => Part::ToolCall { id: field("id"), name: field("name"), arguments: &part["arguments"] },
        Some("tool_call_response") => {
            let response = part.get("response").or_else(|| part.get("result")).unwrap_or(&JsonValue::Null);
            Part::ToolResult { id: field("id"), response }
        }
        _ => Part::Other(part),
    }
}

impl<'a> Transcript<'a> {
    /// The conversations in these spans.
    pub(super) fn of(spans: &'a [Span]) -> Self {
        let mut transcript = Self::default();
        // Each call by the conversation that it ends: a hash of all its messages, with their number.
        let mut ends: HashMap<(usize, u64), usize> = HashMap::new();
        for span in spans.iter().filter(|span| is_llm_call(span)) {
            let mut input = input(span);
            let output: Vec<Message> = parsed(text(span, names::GEN_AI_OUTPUT_MESSAGES));
            let prefixes = prefixes(&input);
            let found = (0..=input.len()).rev().find_map(|length| {
                let hash = *prefixes.get(length)?;
                (length > 0).then(|| ends.get(&(length, hash)).map(|call| (length, *call)))?
            });
            let continues = found.map(|(length, call)| {
                input.drain(..length);
                call
            });
            let at = transcript.calls.len();
            let whole = prefixes.last().copied().unwrap_or_default();
            ends.insert((prefixes.len() - 1, whole), at);
            for answer in &output {
                ends.insert((prefixes.len(), combined(whole, answer.fingerprint())), at);
            }
            transcript.calls.push(TranscriptCall { span, continues, input, output });
        }
        transcript
    }

    /// The calls of each conversation, in the order in which the conversations began. A call that several others continue
    /// begins a conversation for each but the first of them.
    pub(super) fn conversations(&self) -> Vec<Vec<usize>> {
        let mut conversations: Vec<Vec<usize>> = Vec::new();
        let mut ending_with: HashMap<usize, usize> = HashMap::new();
        for (at, call) in self.calls.iter().enumerate() {
            let conversation = call.continues.and_then(|before| ending_with.remove(&before));
            let conversation = conversation.unwrap_or_else(|| {
                conversations.push(Vec::new());
                conversations.len() - 1
            });
            conversations[conversation].push(at);
            ending_with.insert(at, conversation);
        }
        conversations
    }
}

/// The messages of a request, the system instructions first.
pub(super) fn input(span: &Span) -> Vec<Message> {
    let system: Vec<JsonValue> = parsed(text(span, names::GEN_AI_SYSTEM_INSTRUCTIONS));
    let system =
        (!system.is_empty()).then(|| Message { role: "system".to_owned(), parts: system, finish_reason: None });
    let messages: Vec<Message> = parsed(text(span, names::GEN_AI_INPUT_MESSAGES));
    system.into_iter().chain(messages).collect()
}

/// The elements of a JSON list; what is no such list has none.
pub(super) fn parsed<T: for<'de> Deserialize<'de>>(json: Option<&str>) -> Vec<T> {
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// The hash of the first messages, for each number of them from 0.
fn prefixes(messages: &[Message]) -> Vec<u64> {
    let mut hash = 0;
    let hashes = messages.iter().map(|message| {
        hash = combined(hash, message.fingerprint());
        hash
    });
    std::iter::once(0).chain(hashes).collect()
}

fn combined(before: u64, message: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (before, message).hash(&mut hasher);
    hasher.finish()
}
