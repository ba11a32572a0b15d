//! ATIF, 1.0 to 1.8: a trajectory as the calls of its agent. Embedded trajectories of sub-agents are in the same rollout.
//!
//! Steps that were copied from another trajectory, and those without a call of a model, are messages before the next call.

use super::conversation::{
    Answer, Conversation, numbered, reasoning_part, set_number, text_part, tool_call_part, tool_result_part,
};
use super::imported::{ImportError, Imported};
use super::rfc3339;
use crate::trace::semconv as names;
use crate::trace::{AttemptId, Attributes, RolloutId, Span, Value};
use serde_json::Value as JsonValue;

/// Reads a trajectory, or a list of some. `text` is the same as `value`.
pub(super) fn read(text: &[u8], value: &JsonValue) -> Result<Imported, ImportError> {
    let mut imported = Imported::default();
    let list = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text);
    let made = format!("atif-{}", const_hex::encode(&digest.as_ref()[..6]));
    for trajectory in list {
        let text = |value: &JsonValue| value.as_str().filter(|id| !id.is_empty()).map(str::to_owned);
        let extra = &trajectory["extra"];
        let rollout = text(&extra["rollout_id"]).or_else(|| text(&trajectory["session_id"]));
        let rollout: RolloutId = rollout.unwrap_or_else(|| made.clone()).as_str().into();
        let attempt =
            text(&extra["attempt_id"]).map_or_else(|| AttemptId::default_of(&rollout), |id| id.as_str().into());
        let mut spans = Vec::new();
        add_trajectory(trajectory, &rollout, &attempt, "main", 0, &mut spans, &mut imported)?;
        imported.spans.extend(numbered(spans));
    }
    Ok(imported)
}

fn add_trajectory(
    trajectory: &JsonValue,
    rollout: &RolloutId,
    attempt: &AttemptId,
    role: &str,
    depth: usize,
    spans: &mut Vec<Span>,
    imported: &mut Imported,
) -> Result<(), ImportError> {
    let steps =
        trajectory["steps"].as_array().ok_or(ImportError::Shape("a trajectory of ATIF has no list of steps"))?;
    let id = trajectory["trajectory_id"].as_str().unwrap_or_default();
    let mut conversation = Conversation::new(rollout.clone(), attempt.clone(), id);
    let agent = &trajectory["agent"];
    let texts = [
        (names::GEN_AI_AGENT_NAME, &agent["name"]),
        (names::CLIENT_VERSION, &agent["version"]),
        (names::GEN_AI_REQUEST_MODEL, &agent["model_name"]),
    ];
    for (name, value) in texts {
        if let Some(text) = value.as_str() {
            conversation.common.insert(name.to_owned(), text.into());
        }
    }
    conversation.common.insert(names::CALL_ROLE.to_owned(), role.into());
    if agent["tool_definitions"].is_array() {
        let tools = agent["tool_definitions"].to_string();
        conversation.common.insert(names::GEN_AI_TOOL_DEFINITIONS.to_owned(), tools.into());
    }
    for step in steps {
        add_step(&mut conversation, step, imported);
    }
    spans.extend(conversation.finish());
    let embedded = trajectory["subagent_trajectories"].as_array().map(Vec::as_slice).unwrap_or_default();
    for one in embedded {
        if depth == MAX_DEPTH {
            imported.leave_out("a trajectory that is embedded too deep");
            continue;
        }
        let role = one["extra"]["role"].as_str().unwrap_or("subagent");
        add_trajectory(one, rollout, attempt, role, depth + 1, spans, imported)?;
    }
    for name in trajectory.as_object().into_iter().flatten().map(|(name, _)| name) {
        if !KNOWN_FIELDS.contains(&name.as_str()) {
            imported.leave_out(format!("the field {name} of a trajectory"));
        }
    }
    Ok(())
}

fn add_step(conversation: &mut Conversation, step: &JsonValue, imported: &mut Imported) {
    for name in step.as_object().into_iter().flatten().map(|(name, _)| name) {
        if !KNOWN_STEP_FIELDS.contains(&name.as_str()) {
            imported.leave_out(format!("the field {name} of a step"));
        }
    }
    let mut parts = content(&step["message"]);
    match step["source"].as_str() {
        Some("agent") => {
            if let Some(text) = step["reasoning_content"].as_str() {
                parts.insert(0, reasoning_part(text));
            }
            for call in step["tool_calls"].as_array().into_iter().flatten() {
                let text = |name: &str| call[name].as_str().unwrap_or_default();
                parts.push(tool_call_part(text("tool_call_id"), text("function_name"), &call["arguments"]));
            }
            // An older step does not say how many calls it has.
            let has_call = step["llm_call_count"].as_u64() != Some(0) && step["is_copied_context"] != true;
            if has_call { conversation.answer(answer(step, parts)) } else { conversation.say("assistant", parts) }
        }
        Some("system") => conversation.say("system", parts),
        _ => conversation.say("user", parts),
    }
    for result in step["observation"]["results"].as_array().into_iter().flatten() {
        let id = result["source_call_id"].as_str().or(result["extra"]["source_call_id"].as_str());
        conversation.say("tool", vec![tool_result_part(id.unwrap_or_default(), &result["content"])]);
    }
}

/// The parts of a message: a text, or a list of texts, images and sounds.
fn content(message: &JsonValue) -> Vec<JsonValue> {
    let part = |part: &JsonValue| match part["text"].as_str() {
        Some(text) => text_part(text),
        None => serde_json::json!({
            "type": "uri",
            "modality": part["type"],
            "mime_type": part["source"]["media_type"],
            "uri": part["source"]["path"],
        }),
    };
    match message {
        JsonValue::String(text) if text.is_empty() => Vec::new(),
        JsonValue::String(text) => vec![text_part(text)],
        JsonValue::Array(parts) => parts.iter().map(part).collect(),
        _ => Vec::new(),
    }
}

fn answer(step: &JsonValue, parts: Vec<JsonValue>) -> Answer {
    let (mut attributes, metrics) = (Attributes::new(), &step["metrics"]);
    set_number(&mut attributes, names::GEN_AI_USAGE_INPUT_TOKENS, &metrics["prompt_tokens"]);
    set_number(&mut attributes, names::GEN_AI_USAGE_OUTPUT_TOKENS, &metrics["completion_tokens"]);
    set_number(&mut attributes, names::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, &metrics["cached_tokens"]);
    let mut set = |name: &str, value: Option<Value>| {
        value.into_iter().for_each(|value| drop(attributes.insert(name.to_owned(), value)));
    };
    let numbers = |name: &str| serde_json::from_value::<Vec<i64>>(metrics[name].clone()).ok().map(Value::Ints);
    set(names::PROMPT_TOKEN_IDS, numbers("prompt_token_ids"));
    set(names::RESPONSE_TOKEN_IDS, numbers("completion_token_ids"));
    set(
        names::RESPONSE_LOGPROBS,
        serde_json::from_value::<Vec<f64>>(metrics["logprobs"].clone()).ok().map(Value::Floats),
    );
    set(names::GEN_AI_RESPONSE_MODEL, step["model_name"].as_str().map(Value::from));
    set(
        names::GEN_AI_RESPONSE_FINISH_REASONS,
        step["extra"]["finish_reason"].as_str().map(|reason| vec![reason.to_owned()].into()),
    );
    let time = step["timestamp"].as_str().and_then(rfc3339::parsed);
    let span_id = step["extra"]["span_id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
    Answer { span_id, parts, start: time, end: time, attributes }
}

/// Trajectories may be embedded in others that deep.
const MAX_DEPTH: usize = 16;

const KNOWN_FIELDS: &[&str] = &[
    "schema_version",
    "session_id",
    "trajectory_id",
    "agent",
    "steps",
    "notes",
    "final_metrics",
    "continued_trajectory_ref",
    "extra",
    "subagent_trajectories",
];
const KNOWN_STEP_FIELDS: &[&str] = &[
    "step_id",
    "timestamp",
    "source",
    "model_name",
    "reasoning_effort",
    "message",
    "reasoning_content",
    "tool_calls",
    "observation",
    "metrics",
    "extra",
    "llm_call_count",
    "is_copied_context",
];
