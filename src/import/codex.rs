//! Session files of Codex: a line for each item of the conversation, with the settings and the token usage between them.
//! The session is the rollout.
//!
//! Items of the model that follow each other are one answer, up to the result of a tool, a message of another role, or the
//! usage of the call. A compaction begins a conversation anew.

use super::conversation::{
    Answer, Conversation, numbered, reasoning_part, set_number, text_part, tool_call_part, tool_result_part,
};
use super::imported::Imported;
use super::rfc3339;
use crate::trace::semconv as names;
use crate::trace::{AttemptId, Attributes, RolloutId, Span, Timestamp};
use serde_json::Value as JsonValue;

/// True for the first line of such a file.
pub(super) fn is_first_line(line: &JsonValue) -> bool {
    line["type"] == "session_meta" && line["payload"]["id"].is_string()
}

/// Reads the lines of a file, of which the first is [`is_first_line`].
pub(super) fn read(lines: &[JsonValue]) -> Imported {
    let mut imported = Imported::default();
    let meta = lines.first().map(|line| &line["payload"]).unwrap_or(&JsonValue::Null);
    let rollout = RolloutId::from(meta["id"].as_str().unwrap_or_default());
    let mut session = Session::new(rollout, meta);
    for line in lines {
        let time = line["timestamp"].as_str().and_then(rfc3339::parsed);
        let payload = &line["payload"];
        let kind = line["type"].as_str().unwrap_or("a line without a type");
        let is_read = match kind {
            "session_meta" => true,
            "turn_context" => {
                session.set_model(payload);
                true
            }
            "response_item" => session.add_item(payload, time),
            "compacted" => {
                session.compact(payload);
                true
            }
            "event_msg" => session.add_event(payload),
            _ => false,
        };
        if !is_read {
            let inner = payload["type"].as_str().map(|inner| format!(" {inner}")).unwrap_or_default();
            imported.leave_out(format!("a line of the type {kind}{inner}"));
        }
    }
    imported.spans = numbered(session.finish());
    imported
}

struct Session {
    rollout: RolloutId,
    attempt: AttemptId,
    common: Attributes,
    conversation: Conversation,
    // Those before compactions.
    ended: Vec<Span>,
    compactions: usize,
    answer: Option<Answer>,
}

impl Session {
    fn new(rollout: RolloutId, meta: &JsonValue) -> Self {
        let attempt = AttemptId::default_of(&rollout);
        let mut common = Attributes::new();
        let mut set = |name: &str, value: &JsonValue| {
            value.as_str().into_iter().for_each(|text| drop(common.insert(name.to_owned(), text.into())));
        };
        set(names::CLIENT_NAME, meta.get("originator").unwrap_or(&"codex".into()));
        set(names::CLIENT_VERSION, &meta["cli_version"]);
        set(names::GEN_AI_PROVIDER_NAME, &meta["model_provider"]);
        set(names::CALL_ROLE, &"main".into());
        let mut conversation = Conversation::new(rollout.clone(), attempt.clone(), "0");
        conversation.common = common.clone();
        let instructions = meta["instructions"].as_str().or(meta["base_instructions"]["text"].as_str());
        conversation.say("system", instructions.map(text_part).into_iter().collect());
        Self { rollout, attempt, common, conversation, ended: Vec::new(), compactions: 0, answer: None }
    }

    fn set_model(&mut self, context: &JsonValue) {
        self.end_answer();
        if let Some(model) = context["model"].as_str() {
            self.common.insert(names::GEN_AI_REQUEST_MODEL.to_owned(), model.into());
            self.conversation.common.clone_from(&self.common);
        }
    }

    /// Adds an item of the Responses API. False if it is of no known type.
    fn add_item(&mut self, item: &JsonValue, time: Option<Timestamp>) -> bool {
        let text = |name: &str| item[name].as_str().unwrap_or_default();
        match text("type") {
            "message" if item["role"] == "assistant" => self.add_to_answer(texts(&item["content"]), time),
            "message" => {
                self.end_answer();
                let role = if item["role"] == "developer" { "system" } else { text("role") };
                self.conversation.say(role, texts(&item["content"]));
            }
            "reasoning" => {
                let summaries = item["summary"].as_array().into_iter().flatten();
                let parts = summaries.filter_map(|part| part["text"].as_str()).map(reasoning_part).collect();
                self.add_to_answer(parts, time);
            }
            "function_call" => {
                self.add_to_answer(vec![tool_call_part(text("call_id"), text("name"), &item["arguments"])], time);
            }
            "custom_tool_call" => {
                self.add_to_answer(vec![tool_call_part(text("call_id"), text("name"), &item["input"])], time);
            }
            "local_shell_call" | "web_search_call" => {
                self.add_to_answer(vec![tool_call_part(text("call_id"), text("type"), &item["action"])], time);
            }
            "function_call_output" | "custom_tool_call_output" => {
                self.end_answer();
                self.conversation.say("tool", vec![tool_result_part(text("call_id"), &item["output"])]);
            }
            _ => return false,
        }
        true
    }

    /// Reads the usage of the last call. Other events repeat what items say.
    fn add_event(&mut self, event: &JsonValue) -> bool {
        let usage = &event["info"]["last_token_usage"];
        if event["type"] == "token_count" && usage.is_object() {
            if let Some(answer) = &mut self.answer {
                let attributes = &mut answer.attributes;
                set_number(attributes, names::GEN_AI_USAGE_INPUT_TOKENS, &usage["input_tokens"]);
                set_number(attributes, names::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, &usage["cached_input_tokens"]);
                set_number(attributes, names::GEN_AI_USAGE_OUTPUT_TOKENS, &usage["output_tokens"]);
                set_number(attributes, names::GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, &usage["reasoning_output_tokens"]);
            }
            self.end_answer();
        }
        matches!(event["type"].as_str(), Some("token_count" | "user_message" | "agent_message" | "agent_reasoning"))
    }

    fn add_to_answer(&mut self, parts: Vec<JsonValue>, time: Option<Timestamp>) {
        let answer = self.answer.get_or_insert_with(|| Answer { start: time, ..Answer::default() });
        answer.end = time;
        answer.parts.extend(parts);
    }

    fn end_answer(&mut self) {
        // Reasoning alone, which may be encrypted, is not an answer yet.
        if let Some(answer) = self.answer.take().filter(|answer| !answer.parts.is_empty()) {
            self.conversation.answer(answer);
        }
    }

    /// Begins the conversation that goes on after a compaction.
    fn compact(&mut self, payload: &JsonValue) {
        self.end_answer();
        self.compactions += 1;
        let mut next = Conversation::new(self.rollout.clone(), self.attempt.clone(), &self.compactions.to_string());
        next.common.clone_from(&self.common);
        next.say("user", payload["message"].as_str().map(text_part).into_iter().collect());
        self.ended.extend(std::mem::replace(&mut self.conversation, next).finish());
    }

    fn finish(mut self) -> Vec<Span> {
        self.end_answer();
        self.ended.extend(self.conversation.finish());
        self.ended
    }
}

/// The texts of a message.
fn texts(content: &JsonValue) -> Vec<JsonValue> {
    let part = |part: &JsonValue| part["text"].as_str().map_or_else(|| part.clone(), text_part);
    content.as_array().into_iter().flatten().map(part).collect()
}
