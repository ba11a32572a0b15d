//! A conversation that a file tells message by message, as spans of the LLM calls that must have made it.
//!
//! Each answer becomes a call with everything before it as its input, as it is on the wire. A tool that was called has its
//! result in a later message, as there.

use crate::trace::semconv as names;
use crate::trace::span::{Resource, SpanContext};
use crate::trace::{AttemptId, Attributes, IdBytes, RolloutId, Span, SpanKind, Status, Timestamp, TraceId, Value};
use serde_json::{Value as JsonValue, json};
use std::collections::BTreeMap;

/// A conversation, to which messages are added one by one.
pub(super) struct Conversation {
    rollout_id: RolloutId,
    attempt_id: AttemptId,
    // What tells the conversation from others of its rollout.
    name: String,
    /// Attributes of every call: the agent, its role.
    pub(super) common: Attributes,
    messages: Vec<JsonValue>,
    spans: Vec<Span>,
}

/// An answer of a model, as far as a file has it.
#[derive(Default)]
pub(super) struct Answer {
    /// The id of the span. `None`: it is made from the position of the answer.
    pub(super) span_id: Option<String>,
    /// Parts of the message.
    pub(super) parts: Vec<JsonValue>,
    pub(super) start: Option<Timestamp>,
    pub(super) end: Option<Timestamp>,
    /// Model, usage, token ids and what else the file has.
    pub(super) attributes: Attributes,
}

impl Conversation {
    /// An empty conversation.
    pub(super) fn new(rollout_id: RolloutId, attempt_id: AttemptId, name: &str) -> Self {
        let (common, messages, spans) = (Attributes::new(), Vec::new(), Vec::new());
        Self { rollout_id, attempt_id, name: name.to_owned(), common, messages, spans }
    }

    /// Adds a message that no model answered with.
    pub(super) fn say(&mut self, role: &str, parts: Vec<JsonValue>) {
        if !parts.is_empty() {
            self.messages.push(json!({ "role": role, "parts": parts }));
        }
    }

    /// Adds an answer, and the call that it is of.
    pub(super) fn answer(&mut self, answer: Answer) {
        let position = self.spans.len();
        let named = || format!("{}/{}/{}/{position}", self.rollout_id, self.attempt_id, self.name);
        let span_id = answer.span_id.unwrap_or_else(|| IdBytes::<8>::of(&named()).hex());
        let trace_id = TraceId::of_attempt(&self.rollout_id, &self.attempt_id).to_string();
        let message = json!({ "role": "assistant", "parts": answer.parts });
        let mut attributes = self.common.clone();
        let mut set = |name: &str, value: Value| drop(attributes.insert(name.to_owned(), value));
        set(names::GEN_AI_OPERATION_NAME, "chat".into());
        set(names::GEN_AI_INPUT_MESSAGES, JsonValue::from(self.messages.clone()).to_string().into());
        set(names::GEN_AI_OUTPUT_MESSAGES, JsonValue::from(vec![message.clone()]).to_string().into());
        attributes.extend(answer.attributes);
        let model =
            attributes.get(names::GEN_AI_RESPONSE_MODEL).or_else(|| attributes.get(names::GEN_AI_REQUEST_MODEL));
        let model = model.and_then(Value::as_str).unwrap_or("unknown");
        self.spans.push(Span {
            rollout_id: self.rollout_id.clone(),
            attempt_id: self.attempt_id.clone(),
            sequence_id: 0,
            context: Some(SpanContext {
                trace_id: trace_id.clone(),
                span_id: span_id.clone(),
                is_remote: false,
                trace_state: BTreeMap::default(),
            }),
            trace_id,
            span_id,
            parent_id: None,
            name: format!("chat {model}"),
            kind: Some(SpanKind::Client),
            status: Status::default(),
            attributes,
            events: Vec::new(),
            links: Vec::new(),
            start_time: answer.start.or(answer.end),
            end_time: answer.end.or(answer.start),
            parent: None,
            resource: Resource { schema_url: names::SCHEMA_URL.to_owned(), ..Resource::default() },
        });
        self.messages.push(message);
    }

    /// The calls.
    pub(super) fn finish(self) -> Vec<Span> {
        self.spans
    }
}

/// Numbers the calls of all conversations of a rollout by their time.
pub(super) fn numbered(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| span.start_time);
    for (at, span) in spans.iter_mut().enumerate() {
        span.sequence_id = at as u64 + 1;
    }
    spans
}

/// A part with text.
pub(super) fn text_part(text: &str) -> JsonValue {
    json!({ "type": "text", "content": text })
}

/// A part with the reasoning of a model.
pub(super) fn reasoning_part(text: &str) -> JsonValue {
    json!({ "type": "reasoning", "content": text })
}

/// A part with a call of a tool. Arguments that are JSON as text become JSON.
pub(super) fn tool_call_part(id: &str, name: &str, arguments: &JsonValue) -> JsonValue {
    let parsed = arguments.as_str().and_then(|text| serde_json::from_str::<JsonValue>(text).ok());
    json!({ "type": "tool_call", "id": id, "name": name, "arguments": parsed.as_ref().unwrap_or(arguments) })
}

/// A part with the result of a tool.
pub(super) fn tool_result_part(id: &str, response: &JsonValue) -> JsonValue {
    json!({ "type": "tool_call_response", "id": id, "response": response })
}

/// Adds a number to attributes, if it is one.
pub(super) fn set_number(attributes: &mut Attributes, name: &str, number: &JsonValue) {
    if let Some(number) = number.as_i64() {
        attributes.insert(name.to_owned(), Value::Int(number));
    }
}
