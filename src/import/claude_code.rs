//! Session files of Claude Code: a line for each message, and for each block of an answer. The session is the rollout.
//!
//! Messages are taken in the order of the file, those of a sub-agent (`isSidechain`) as a conversation of its own. A session
//! that was branched by an edit is read as one conversation.

use super::conversation::{
    Answer, Conversation, numbered, reasoning_part, set_number, text_part, tool_call_part, tool_result_part,
};
use super::imported::Imported;
use super::rfc3339;
use crate::trace::semconv as names;
use crate::trace::{AttemptId, Attributes, RolloutId, Span, Value};
use serde_json::{Value as JsonValue, json};
use std::collections::BTreeMap;

/// True for a line of such a file.
pub(super) fn is_line(line: &JsonValue) -> bool {
    line["sessionId"].is_string() && line["uuid"].is_string() && line["message"].is_object()
}

/// Reads the lines of a file.
pub(super) fn read(lines: &[JsonValue]) -> Imported {
    let mut imported = Imported::default();
    let mut sessions: BTreeMap<(String, String), Session> = BTreeMap::new();
    for line in lines {
        let kind = line["type"].as_str().unwrap_or("a line without a type");
        if !is_line(line) || !matches!(kind, "user" | "assistant") {
            imported.leave_out(format!("a line of the type {kind}"));
            continue;
        }
        let agent = match (line["agentId"].as_str(), line["isSidechain"] == true) {
            (Some(agent), _) => agent,
            (None, true) => "sidechain",
            (None, false) => "",
        };
        let session = line["sessionId"].as_str().unwrap_or_default();
        let key = (session.to_owned(), agent.to_owned());
        sessions.entry(key).or_insert_with(|| Session::new(session, agent)).add(line);
    }
    let mut by_rollout: BTreeMap<RolloutId, Vec<Span>> = BTreeMap::new();
    for ((rollout, _), session) in sessions {
        by_rollout.entry(rollout.as_str().into()).or_default().extend(session.finish());
    }
    imported.spans = by_rollout.into_values().flat_map(numbered).collect();
    imported
}

/// A conversation, and the answer that may go on in the next line.
struct Session {
    conversation: Conversation,
    answer: Option<(String, Answer)>,
}

impl Session {
    fn new(session: &str, agent: &str) -> Self {
        let rollout = RolloutId::from(session);
        let attempt = AttemptId::default_of(&rollout);
        let mut conversation = Conversation::new(rollout, attempt, agent);
        let role = if agent.is_empty() { "main" } else { "subagent" };
        conversation.common.insert(names::CLIENT_NAME.to_owned(), "claude-code".into());
        conversation.common.insert(names::GEN_AI_PROVIDER_NAME.to_owned(), "anthropic".into());
        conversation.common.insert(names::CALL_ROLE.to_owned(), role.into());
        Self { conversation, answer: None }
    }

    fn add(&mut self, line: &JsonValue) {
        let message = &line["message"];
        if let Some(version) = line["version"].as_str() {
            self.conversation.common.insert(names::CLIENT_VERSION.to_owned(), version.into());
        }
        let parts = parts(&message["content"]);
        if line["type"] == "user" {
            self.end_answer();
            let (results, others): (Vec<_>, Vec<_>) =
                parts.into_iter().partition(|part| part["type"] == "tool_call_response");
            self.conversation.say("tool", results);
            self.conversation.say("user", others);
            return;
        }
        let id = message["id"].as_str().or(line["uuid"].as_str()).unwrap_or_default();
        if self.answer.as_ref().is_some_and(|(known, _)| known != id) {
            self.end_answer();
        }
        let time = line["timestamp"].as_str().and_then(rfc3339::parsed);
        let (_, answer) =
            self.answer.get_or_insert_with(|| (id.to_owned(), Answer { start: time, ..Answer::default() }));
        answer.end = time;
        answer.parts.extend(parts);
        answer.attributes.extend(attributes(id, message));
    }

    fn end_answer(&mut self) {
        if let Some((_, answer)) = self.answer.take() {
            self.conversation.answer(answer);
        }
    }

    fn finish(mut self) -> Vec<Span> {
        self.end_answer();
        self.conversation.finish()
    }
}

/// The attributes of an answer. Each of its lines has the usage so far.
fn attributes(id: &str, message: &JsonValue) -> Attributes {
    let mut attributes = Attributes::new();
    attributes.insert(names::GEN_AI_RESPONSE_ID.to_owned(), id.into());
    if let Some(model) = message["model"].as_str() {
        attributes.insert(names::GEN_AI_RESPONSE_MODEL.to_owned(), model.into());
    }
    if let Some(reason) = message["stop_reason"].as_str() {
        attributes.insert(names::GEN_AI_RESPONSE_FINISH_REASONS.to_owned(), Value::Strings(vec![reason.to_owned()]));
    }
    let usage = &message["usage"];
    let number = |name: &str| usage[name].as_i64();
    let (read, written) = (number("cache_read_input_tokens"), number("cache_creation_input_tokens"));
    if let Some(input) = number("input_tokens") {
        // By the conventions, cached tokens are a part of the input.
        let all = [Some(input), read, written].into_iter().flatten().fold(0, i64::saturating_add);
        attributes.insert(names::GEN_AI_USAGE_INPUT_TOKENS.to_owned(), Value::Int(all));
    }
    set_number(&mut attributes, names::GEN_AI_USAGE_OUTPUT_TOKENS, &usage["output_tokens"]);
    set_number(&mut attributes, names::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, &usage["cache_read_input_tokens"]);
    set_number(&mut attributes, names::GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS, &usage["cache_creation_input_tokens"]);
    attributes
}

/// The parts of a message: a text, or the blocks of the Messages API.
fn parts(content: &JsonValue) -> Vec<JsonValue> {
    let part = |block: &JsonValue| {
        let text = |name: &str| block[name].as_str().unwrap_or_default();
        match block["type"].as_str() {
            Some("text") => text_part(text("text")),
            Some("thinking") => reasoning_part(text("thinking")),
            Some("tool_use") => tool_call_part(text("id"), text("name"), &block["input"]),
            Some("tool_result") => tool_result_part(text("tool_use_id"), &block["content"]),
            Some("image") => json!({
                "type": "blob",
                "modality": "image",
                "mime_type": block["source"]["media_type"],
                "content": block["source"]["data"],
            }),
            _ => block.clone(),
        }
    };
    match content {
        JsonValue::String(text) => vec![text_part(text)],
        JsonValue::Array(blocks) => blocks.iter().map(part).collect(),
        _ => Vec::new(),
    }
}
