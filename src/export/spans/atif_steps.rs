//! The steps of an ATIF trajectory: what the system and users say, and the agent's turns with the results of its tools.

use super::span_facts::{json_of, rfc3339, text};
use super::transcript::{Message, Part, Transcript, TranscriptCall};
use crate::trace::failure::failure;
use crate::trace::semconv as names;
use crate::trace::{Span, Value};
use serde_json::{Map, Value as JsonValue, json};

/// Steps in their order.
#[derive(Default)]
pub(super) struct Steps(Vec<JsonValue>);

impl Steps {
    /// Adds what a call adds to its conversation.
    pub(super) fn add_call(&mut self, call: &TranscriptCall<'_>) {
        for message in &call.input {
            self.add_input(message);
        }
        let mut step = match call.output.first() {
            Some(answer) => agent_step(answer),
            None => json!({ "source": "agent", "message": "" }),
        };
        let span = call.span;
        step["llm_call_count"] = 1.into();
        if let Some(start) = span.start_time {
            step["timestamp"] = rfc3339(start).into();
        }
        if let Some(model) = text(span, names::GEN_AI_RESPONSE_MODEL) {
            step["model_name"] = model.into();
        }
        let metrics = metrics(span);
        if !metrics.is_empty() {
            step["metrics"] = metrics.into();
        }
        let mut extra = json!({ "span_id": span.span_id, "sequence_id": span.sequence_id });
        if let Some(reason) = call.output.first().and_then(|answer| answer.finish_reason.as_deref()) {
            extra["finish_reason"] = reason.into();
        }
        if call.output.len() > 1 {
            extra["choices"] = call.output.len().into();
        }
        if let Some(failure) = failure(span) {
            extra["failure"] = failure.into();
        }
        step["extra"] = extra;
        self.push(step);
    }

    /// The steps as JSON.
    pub(super) fn finish(self) -> Vec<JsonValue> {
        self.0
    }

    /// Adds a message of a request. The results of tools belong to the step that called them.
    fn add_input(&mut self, message: &Message) {
        let results: Vec<JsonValue> = message
            .parts()
            .filter_map(|part| match part {
                Part::ToolResult { id, response } => Some(json!({ "source_call_id": id, "content": shown(response) })),
                _ => None,
            })
            .collect();
        let has_results = !results.is_empty();
        results.into_iter().for_each(|result| self.add_result(result));
        let content = content(message);
        if has_results && content == "" {
            return;
        }
        let step = match message.role.as_str() {
            "system" | "developer" => json!({ "source": "system", "message": content }),
            // A turn that no recorded call made.
            "assistant" | "model" => {
                let mut step = agent_step(message);
                step["is_copied_context"] = true.into();
                step
            }
            _ => json!({ "source": "user", "message": content }),
        };
        self.push(step);
    }

    fn add_result(&mut self, mut result: JsonValue) {
        if !self.0.last().is_some_and(|step| step["source"] == "agent") {
            self.push(json!({ "source": "system", "message": "" }));
        }
        let Some(step) = self.0.last_mut() else { return };
        let calls = step["tool_calls"].as_array();
        let is_call = |call: &JsonValue| call["tool_call_id"] == result["source_call_id"];
        // A result of a call that the step does not have is valid without the id of the call only.
        if !calls.is_some_and(|calls| calls.iter().any(is_call)) {
            let id = result["source_call_id"].take();
            result["extra"] = json!({ "source_call_id": id });
        }
        match step["observation"]["results"].as_array_mut() {
            Some(results) => results.push(result),
            None => step["observation"] = json!({ "results": [result] }),
        }
    }

    fn push(&mut self, mut step: JsonValue) {
        step["step_id"] = (self.0.len() + 1).into();
        self.0.push(step);
    }
}

fn agent_step(answer: &Message) -> JsonValue {
    let mut step = json!({ "source": "agent", "message": content(answer) });
    let reasoning = answer.parts().filter_map(|part| if let Part::Reasoning(text) = part { Some(text) } else { None });
    let reasoning: Vec<&str> = reasoning.collect();
    if !reasoning.is_empty() {
        step["reasoning_content"] = reasoning.join("\n").into();
    }
    let mut calls = Vec::new();
    for part in answer.parts() {
        if let Part::ToolCall { id, name, arguments } = part {
            let id = if id.is_empty() { format!("call_{}", calls.len() + 1) } else { id.to_owned() };
            calls.push(json!({ "tool_call_id": id, "function_name": name, "arguments": object(arguments) }));
        }
    }
    if !calls.is_empty() {
        step["tool_calls"] = calls.into();
    }
    step
}

/// Arguments are an object; what is none is the only member of one.
pub(super) fn object(arguments: &JsonValue) -> JsonValue {
    let parsed = arguments.as_str().and_then(|text| serde_json::from_str::<JsonValue>(text).ok());
    match parsed.as_ref().unwrap_or(arguments) {
        JsonValue::Object(fields) => JsonValue::Object(fields.clone()),
        JsonValue::Null => json!({}),
        other => json!({ "input": other }),
    }
}

/// The text of a message, or its parts if it has images.
fn content(message: &Message) -> JsonValue {
    let image = |part: &JsonValue| -> Option<JsonValue> {
        let kind = part["mime_type"].as_str().filter(|kind| IMAGES.contains(kind))?;
        let path = match (part["uri"].as_str(), part["content"].as_str()) {
            (Some(uri), _) => uri.to_owned(),
            (None, Some(base64)) => format!("data:{kind};base64,{base64}"),
            (None, None) => return None,
        };
        Some(json!({ "type": "image", "source": { "media_type": kind, "path": path } }))
    };
    let part = |part: Part<'_>| match part {
        Part::Text(text) => Some(json!({ "type": "text", "text": text })),
        Part::Other(part) => image(part),
        Part::Reasoning(_) | Part::ToolCall { .. } | Part::ToolResult { .. } => None,
    };
    let parts: Vec<JsonValue> = message.parts().filter_map(part).collect();
    if parts.iter().any(|part| part["type"] == "image") { parts.into() } else { message.text().into() }
}

/// The types of images that ATIF has.
const IMAGES: &[&str] = &["image/jpeg", "image/png", "image/gif", "image/webp"];

fn shown(response: &JsonValue) -> String {
    response.as_str().map_or_else(|| response.to_string(), str::to_owned)
}

/// The tools of a call, as chat completions have them.
pub(super) fn tool_definitions(span: &Span) -> Vec<JsonValue> {
    let tools = text(span, names::GEN_AI_TOOL_DEFINITIONS).and_then(|json| serde_json::from_str(json).ok());
    let tools: Vec<JsonValue> = tools.unwrap_or_default();
    let tool = |tool: JsonValue| {
        if tool.get("function").is_some() { tool } else { json!({ "type": "function", "function": tool }) }
    };
    tools.into_iter().filter(JsonValue::is_object).map(tool).collect()
}

/// Metrics of ATIF and the attributes that they come from.
const METRICS: [(&str, &str); 3] = [
    ("prompt_tokens", names::GEN_AI_USAGE_INPUT_TOKENS),
    ("completion_tokens", names::GEN_AI_USAGE_OUTPUT_TOKENS),
    ("cached_tokens", names::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS),
];

fn metrics(span: &Span) -> Map<String, JsonValue> {
    let ids = [("prompt_token_ids", names::PROMPT_TOKEN_IDS), ("completion_token_ids", names::RESPONSE_TOKEN_IDS)];
    let is_list = |name: &str| matches!(span.attributes.get(name), Some(Value::Ints(ids)) if !ids.is_empty());
    let mut metrics: Map<String, JsonValue> = METRICS
        .iter()
        .filter(|(_, name)| span.attributes.get(*name).and_then(Value::as_int).is_some())
        .chain(ids.iter().filter(|(_, name)| is_list(name)))
        .map(|(metric, name)| ((*metric).to_owned(), json_of(span, name)))
        .collect();
    let logprobs = span.attributes.get(names::RESPONSE_LOGPROBS);
    if let (Some(Value::Floats(logprobs)), Some(Value::Ints(ids))) =
        (logprobs, span.attributes.get(names::RESPONSE_TOKEN_IDS))
        && logprobs.len() == ids.len()
    {
        metrics.insert("logprobs".to_owned(), json!(logprobs));
    }
    metrics
}

/// The sums over the calls of a trajectory.
pub(super) fn final_metrics(transcript: &Transcript<'_>, calls: &[usize], steps: usize) -> JsonValue {
    let sum = |name: &str| {
        let number = |at: &usize| transcript.calls[*at].span.attributes.get(name).and_then(Value::as_int);
        calls.iter().filter_map(number).reduce(i64::saturating_add)
    };
    let mut totals = json!({ "total_steps": steps });
    for (metric, name) in METRICS {
        if let Some(total) = sum(name) {
            totals[format!("total_{metric}")] = total.into();
        }
    }
    totals
}
