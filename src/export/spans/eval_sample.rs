//! A rollout as a sample of an Inspect log: the conversation of its agent in Inspect's messages, with rewards as scores.

use super::atif_steps::object;
use super::format::RecordedRollout;
use super::span_facts::{Times, rfc3339, text};
use super::transcript::{Message, Part, Transcript};
use crate::trace::failure::failure;
use crate::trace::{RolloutStatus, Span, Value, semconv as names};
use crate::trajectory::read;
use crate::util::cut::cut;
use serde_json::{Map, Value as JsonValue, json};

/// The sample. `None` without LLM calls.
pub(super) fn sample(recorded: &RecordedRollout, transcript: &Transcript<'_>) -> Option<JsonValue> {
    let mut conversations = transcript.conversations();
    let is_main = |calls: &Vec<usize>| text(transcript.calls[calls[0]].span, names::CALL_ROLE) == Some("main");
    let main = conversations.iter().position(is_main).unwrap_or_default();
    let main = if conversations.is_empty() { return None } else { conversations.swap_remove(main) };
    let calls: Vec<_> = main.iter().filter_map(|at| transcript.calls.get(*at)).collect();
    let (first, last) = (calls.first()?, calls.last()?);
    let input = messages(first.input.iter());
    let turns = calls.iter().flat_map(|call| call.input.iter().chain(call.output.first()));
    let (spans, rollout) = (&recorded.spans, &recorded.rollout.rollout);
    let times = Times::of_all(spans);
    let start = times.iter().map(|times| times.start).min().unwrap_or_default();
    let end = times.iter().map(|times| times.end).max().unwrap_or_default();
    let failed = rollout.status == RolloutStatus::Failed;
    let cause = || spans.iter().rev().find_map(failure).unwrap_or_else(|| "the rollout failed".to_owned());
    let error = failed.then(|| json!({ "message": cause(), "traceback": "", "traceback_ansi": "" }));
    let sample = json!({
        "id": rollout.rollout_id,
        "epoch": 1,
        "input": input,
        "target": "",
        "messages": messages(turns),
        "output": output(last.span, last.output.first()),
        "scores": scores(spans),
        "metadata": {
            "attempt_id": first.span.attempt_id,
            "status": rollout.status,
            "mode": rollout.mode,
            "task": rollout.input,
            "rollout": rollout.metadata,
            "conversations": conversations.len() + 1,
        },
        "model_usage": usages(transcript),
        "started_at": rfc3339(start),
        "completed_at": rfc3339(end),
        "total_time": end.since(start).as_secs_f64(),
        "error": error,
    });
    Some(sample)
}

/// What lists show of a sample.
pub(super) fn summary(sample: &JsonValue) -> JsonValue {
    let copied = ["id", "epoch", "target", "scores", "model_usage", "started_at", "completed_at", "total_time"];
    let mut fields: Map<String, JsonValue> =
        copied.iter().map(|name| ((*name).to_owned(), sample[*name].clone())).collect();
    let first = sample["input"].as_array().into_iter().flatten().find(|message| message["role"] == "user");
    let task = first.and_then(|message| message["content"].as_str()).unwrap_or_default();
    fields.insert("input".to_owned(), cut(task, MAX_INPUT_CHARACTERS).into());
    fields.insert("error".to_owned(), sample["error"]["message"].clone());
    fields.insert("message_count".to_owned(), sample["messages"].as_array().map_or(0, Vec::len).into());
    fields.insert("completed".to_owned(), true.into());
    fields.into_iter().collect()
}

/// Messages in Inspect's form. The results of tools are messages of their own.
fn messages<'a>(all: impl Iterator<Item = &'a Message>) -> Vec<JsonValue> {
    let mut messages: Vec<JsonValue> = Vec::new();
    for message in all {
        let results: Vec<JsonValue> = message.parts().filter_map(tool_message).collect();
        let has_results = !results.is_empty();
        messages.extend(results);
        let content = content(message);
        if has_results && (content == "" || message.role == "tool") {
            continue;
        }
        messages.push(match message.role.as_str() {
            "system" | "developer" => json!({ "role": "system", "content": content }),
            "assistant" | "model" => assistant(message),
            _ => json!({ "role": "user", "content": content }),
        });
    }
    messages
}

fn tool_message(part: Part<'_>) -> Option<JsonValue> {
    let Part::ToolResult { id, response } = part else { return None };
    let content = response.as_str().map_or_else(|| response.to_string(), str::to_owned);
    Some(json!({ "role": "tool", "content": content, "tool_call_id": id }))
}

fn assistant(message: &Message) -> JsonValue {
    let calls = message.parts().filter_map(|part| match part {
        Part::ToolCall { id, name, arguments } => {
            Some(json!({ "id": id, "function": name, "arguments": object(arguments), "type": "function" }))
        }
        _ => None,
    });
    let (calls, mut json) =
        (calls.collect::<Vec<_>>(), json!({ "role": "assistant", "content": content(message), "source": "generate" }));
    if !calls.is_empty() {
        json["tool_calls"] = calls.into();
    }
    json
}

/// The text of a message, or its parts if it has reasoning or images.
fn content(message: &Message) -> JsonValue {
    let part = |part: Part<'_>| match part {
        Part::Text(text) => Some(json!({ "type": "text", "text": text })),
        Part::Reasoning(text) => Some(json!({ "type": "reasoning", "reasoning": text })),
        Part::Other(part) => image(part),
        Part::ToolCall { .. } | Part::ToolResult { .. } => None,
    };
    let parts: Vec<JsonValue> = message.parts().filter_map(part).collect();
    if parts.iter().any(|part| part["type"] != "text") { parts.into() } else { message.text().into() }
}

fn image(part: &JsonValue) -> Option<JsonValue> {
    let kind = part["mime_type"].as_str().filter(|kind| kind.starts_with("image/"));
    let image = match (part["uri"].as_str(), part["content"].as_str(), kind) {
        (Some(uri), _, Some(_)) => uri.to_owned(),
        (None, Some(base64), Some(kind)) => format!("data:{kind};base64,{base64}"),
        _ => return None,
    };
    Some(json!({ "type": "image", "image": image }))
}

/// The last answer. Inspect's names of finish reasons differ from those of the conventions.
fn output(span: &Span, answer: Option<&Message>) -> JsonValue {
    let model = model(span);
    let Some(answer) = answer else { return json!({ "model": model }) };
    let stop_reason = match answer.finish_reason.as_deref() {
        Some("stop") => "stop",
        Some("length") => "max_tokens",
        Some("tool_call" | "tool_calls") => "tool_calls",
        Some("content_filter") => "content_filter",
        _ => "unknown",
    };
    let choice = json!({ "message": assistant(answer), "stop_reason": stop_reason });
    json!({ "model": model, "choices": [choice], "completion": answer.text(), "usage": usage(span) })
}

/// The last reward of each name.
fn scores(spans: &[Span]) -> JsonValue {
    let rewards = read(spans).rewards.into_iter();
    rewards.map(|reward| (reward.name, json!({ "value": reward.value }))).collect::<Map<_, _>>().into()
}

/// Tokens by model, over all calls.
fn usages(transcript: &Transcript<'_>) -> JsonValue {
    let mut usages: Map<String, JsonValue> = Map::new();
    for call in &transcript.calls {
        let sums = usages.entry(model(call.span)).or_insert_with(|| json!({}));
        for (name, tokens) in usage(call.span).as_object().into_iter().flatten() {
            let sum = sums[name].as_u64().unwrap_or_default().saturating_add(tokens.as_u64().unwrap_or_default());
            sums[name] = sum.into();
        }
    }
    usages.into()
}

/// Tokens of a call. Inspect counts those that the cache had apart from the others.
fn usage(span: &Span) -> JsonValue {
    let count = |name: &str| {
        let count = span.attributes.get(name).and_then(Value::as_int);
        count.and_then(|count| u64::try_from(count).ok())
    };
    let input = count(names::GEN_AI_USAGE_INPUT_TOKENS).unwrap_or(0);
    let output = count(names::GEN_AI_USAGE_OUTPUT_TOKENS).unwrap_or(0);
    let cached = count(names::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS);
    let mut usage = json!({
        "input_tokens": input.saturating_sub(cached.unwrap_or(0)),
        "output_tokens": output,
        "total_tokens": input.saturating_add(output),
    });
    let reasoning = count(names::GEN_AI_USAGE_REASONING_OUTPUT_TOKENS);
    for (name, count) in [("input_tokens_cache_read", cached), ("reasoning_tokens", reasoning)] {
        if let Some(count) = count {
            usage[name] = count.into();
        }
    }
    usage
}

fn model(span: &Span) -> String {
    let model = text(span, names::GEN_AI_RESPONSE_MODEL).or_else(|| text(span, names::GEN_AI_REQUEST_MODEL));
    model.unwrap_or("unknown").to_owned()
}

const MAX_INPUT_CHARACTERS: usize = 240;
