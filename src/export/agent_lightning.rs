//! Converts recorded LLM calls to the spans that Agent Lightning's triplet and message adapters (0.3) expect.
//!
//! The result is computed for each request and never stored. Spans of other tracers are unchanged, except for attributes
//! that make those adapters fail.

use crate::trace::semconv as names;
use crate::trace::span::SpanContext;
use crate::trace::{Attributes, Span, SpanKind, Status, Value};
use serde::Serialize;
use serde_json::{Value as JsonValue, json};
use std::collections::BTreeMap;

/// Converts a span: to itself, followed by the child spans of a recorded call. An outline is converted to as many spans, with
/// the same names and ids.
pub(crate) fn view(mut span: Span) -> Vec<Span> {
    remove_conflicting_names(&mut span.attributes);
    if is_completed_call(&span) {
        let mut children = to_agent_lightning(&mut span);
        children.insert(0, span);
        return children;
    }
    if is_recorded(&span) {
        hide_llm_attributes(&mut span.attributes);
    }
    vec![span]
}

/// The long attributes that [`view`] needs of an outline.
pub(crate) const OUTLINE: &[&str] = &[names::GEN_AI_OUTPUT_MESSAGES, names::GEN_AI_RESPONSE_ID];

/// True for a span that Tracewire has recorded, and not an agent's tracer.
pub(crate) fn is_recorded(span: &Span) -> bool {
    span.attributes.contains_key(names::DIALECT)
}

/// The id of the response that a span is about. The adapters count one once, and may use the agent's own span or the recorded one.
pub(crate) fn response_id(span: &Span) -> Option<&str> {
    span.attributes.get(names::GEN_AI_RESPONSE_ID).and_then(Value::as_str)
}

/// The long attributes that [`copy_token_ids`] needs of the recorded span.
pub(crate) const COPIED: &[&str] = &[names::PROMPT_TOKEN_IDS, names::RESPONSE_TOKEN_IDS, names::RESPONSE_LOGPROBS];

/// Copies token ids and logprobs to the agent's own span of the response that `recorded` has, which [`view`] has converted.
pub(crate) fn copy_token_ids(span: &mut Span, recorded: &Span) {
    for name in [names::PROMPT_TOKEN_IDS, names::RESPONSE_TOKEN_IDS, "logprobs.content"] {
        if let Some(value) = recorded.attributes.get(name) {
            span.attributes.entry(name.to_owned()).or_insert_with(|| value.clone());
        }
    }
}

/// Renames the attributes of a call that is not a sample (embeddings, a failed call), which would otherwise become an empty
/// conversation.
fn hide_llm_attributes(attributes: &mut Attributes) {
    let is_llm = |name: &&String| name.starts_with("gen_ai.request.") || name.starts_with("gen_ai.response.");
    let names: Vec<String> = attributes.keys().filter(is_llm).cloned().collect();
    for name in names {
        if let Some(value) = attributes.remove(&name) {
            attributes.insert(format!("tracewire.{name}"), value);
        }
    }
}

/// True for a recorded LLM call with a response. A failed call is not a sample.
fn is_completed_call(span: &Span) -> bool {
    let operation = span.attributes.get(names::GEN_AI_OPERATION_NAME).and_then(Value::as_str);
    is_recorded(span) && matches!(operation, Some("chat" | "generate_content" | "text_completion")) && !span.is_error()
}

/// Renames attributes that the adapters cannot read. They treat dots as nesting, so that `a` and `a.b` conflict.
fn remove_conflicting_names(attributes: &mut Attributes) {
    for (name, replacement) in [
        ("gen_ai.prompt", "tracewire.gen_ai.prompt"),
        ("gen_ai.completion", "tracewire.gen_ai.completion"),
        ("gen_ai.prompt.name", "tracewire.gen_ai.prompt.name"),
        ("gen_ai.prompt.version", "tracewire.gen_ai.prompt.version"),
        ("gen_ai.completion.chunk", "tracewire.gen_ai.completion.chunk"),
        ("agentlightning.reward", "tracewire.agentlightning.reward"),
    ] {
        if let Some(value) = attributes.remove(name) {
            attributes.insert(replacement.to_owned(), value);
        }
    }
    let variables: Vec<String> =
        attributes.keys().filter(|name| name.starts_with("gen_ai.prompt.variable.")).cloned().collect();
    for name in variables {
        if let Some(value) = attributes.remove(&name) {
            attributes.insert(format!("tracewire.{name}"), value);
        }
    }
}

/// Adds the flattened attributes to a call, and returns child spans with its token ids and tool calls.
fn to_agent_lightning(span: &mut Span) -> Vec<Span> {
    let parsed = |name: &str| -> Vec<JsonValue> {
        let text = span.attributes.get(name).and_then(Value::as_str).unwrap_or_default();
        serde_json::from_str(text).unwrap_or_default()
    };
    let system = parsed(names::GEN_AI_SYSTEM_INSTRUCTIONS);
    let mut prompt = parsed(names::GEN_AI_INPUT_MESSAGES);
    let outputs = parsed(names::GEN_AI_OUTPUT_MESSAGES);
    let tools = parsed(names::GEN_AI_TOOL_DEFINITIONS);
    if !system.is_empty() {
        prompt.insert(0, json!({ "role": "system", "parts": system }));
    }
    "openai.chat.completion".clone_into(&mut span.name);
    for (at, message) in prompt.iter().enumerate() {
        flatten(span, &format!("gen_ai.prompt.{at}"), message);
    }
    for (at, message) in outputs.iter().enumerate() {
        flatten(span, &format!("gen_ai.completion.{at}"), message);
    }
    for (at, tool) in tools.iter().enumerate() {
        for field in ["name", "description"] {
            if let Some(text) = tool[field].as_str() {
                span.set(&format!("gen_ai.request.functions.{at}.{field}"), text);
            }
        }
        if !tool["parameters"].is_null() {
            span.set(&format!("gen_ai.request.functions.{at}.parameters"), tool["parameters"].to_string());
        }
    }
    let mut children = Vec::new();
    if let (Some(Value::Ints(prompt)), Some(Value::Ints(response))) =
        (span.attributes.get(names::PROMPT_TOKEN_IDS), span.attributes.get(names::RESPONSE_TOKEN_IDS))
    {
        let (prompt, response) = (text(prompt), text(&[response]));
        let logprobs = logprobs(span);
        let mut child = child(span, children.len(), TOKEN_IDS_CHILD);
        child.set_some("llm.hosted_vllm.id", span.attributes.get(names::GEN_AI_RESPONSE_ID).cloned());
        child.set("llm.hosted_vllm.prompt_token_ids", prompt);
        child.set("llm.hosted_vllm.response_token_ids", response);
        children.push(child);
        span.set_some("logprobs.content", logprobs);
    }
    // Of the first choice only: its token ids are the sample.
    for call in tool_calls(outputs.first().unwrap_or(&JsonValue::Null)) {
        let name = call["name"].as_str().unwrap_or_default();
        let mut child = child(span, children.len(), &format!("{TOOL_CALL_CHILD}{name}"));
        child.set("tool.name", name);
        child.set("tool.parameters", arguments(call));
        child.set("tool.call.id", call["id"].as_str().unwrap_or_default());
        child.set("tool.call.type", "function");
        children.push(child);
    }
    children
}

/// A list as JSON text, without a JSON value for each of its numbers. Lists can't fail.
fn text(list: &impl Serialize) -> String {
    serde_json::to_string(list).unwrap_or_default()
}

/// One logprob per token id, as in OpenAI's chat completions. `token` contains the id, because its text is unknown here.
fn logprobs(span: &Span) -> Option<String> {
    let Some(Value::Floats(logprobs)) = span.attributes.get(names::RESPONSE_LOGPROBS) else { return None };
    let Some(Value::Ints(ids)) = span.attributes.get(names::RESPONSE_TOKEN_IDS) else { return None };
    let token = |(id, logprob): (&i64, &f64)| json!({ "token": format!("token_id:{id}"), "logprob": logprob, "bytes": null, "top_logprobs": [] });
    Some(JsonValue::Array(ids.iter().zip(logprobs).map(token).collect()).to_string())
}

fn flatten(span: &mut Span, prefix: &str, message: &JsonValue) {
    let role = match message["role"].as_str().unwrap_or_default() {
        "model" => "assistant",
        role @ ("system" | "developer" | "user" | "assistant" | "tool" | "function") => role,
        _ => "user",
    };
    span.set(&format!("{prefix}.role"), role);
    let parts = message["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(content) = content(parts) {
        span.set(&format!("{prefix}.content"), content);
    }
    if let Some(reason) = message["finish_reason"].as_str() {
        span.set(&format!("{prefix}.finish_reason"), reason);
    }
    let response = parts.iter().find(|part| part["type"] == "tool_call_response");
    if let Some(id) = response.and_then(|part| part["id"].as_str()) {
        span.set(&format!("{prefix}.tool_call_id"), id);
    }
    for (at, call) in tool_calls(message).enumerate() {
        let prefix = format!("{prefix}.tool_calls.{at}");
        span.set(&format!("{prefix}.id"), call["id"].as_str().unwrap_or_default());
        span.set(&format!("{prefix}.name"), call["name"].as_str().unwrap_or_default());
        span.set(&format!("{prefix}.arguments"), arguments(call));
    }
}

/// The texts of a message. With images: OpenAI's list of content parts, as JSON.
fn content(parts: &[JsonValue]) -> Option<String> {
    let image =
        |part: &&JsonValue| part["modality"] == "image" && matches!(part["type"].as_str(), Some("uri" | "blob"));
    if parts.iter().any(|part| image(&part)) {
        let part = |part: &JsonValue| match part["type"].as_str() {
            Some("text") => Some(json!({ "type": "text", "text": part["content"] })),
            Some("uri") => Some(json!({ "type": "image_url", "image_url": { "url": part["uri"] } })),
            Some("blob") => {
                let (kind, bytes) = (part["mime_type"].as_str(), part["content"].as_str());
                let url = format!("data:{};base64,{}", kind.unwrap_or("image/png"), bytes.unwrap_or_default());
                Some(json!({ "type": "image_url", "image_url": { "url": url } }))
            }
            _ => None,
        };
        return Some(JsonValue::Array(parts.iter().filter_map(part).collect()).to_string());
    }
    let texts: Vec<String> = parts
        .iter()
        .filter_map(|part| match part["type"].as_str() {
            Some("text") => part["content"].as_str().map(str::to_owned),
            Some("tool_call_response") => Some(match &part["response"] {
                JsonValue::String(text) => text.clone(),
                other => other.to_string(),
            }),
            _ => None,
        })
        .collect();
    (!texts.is_empty()).then(|| texts.concat())
}

fn tool_calls(message: &JsonValue) -> impl Iterator<Item = &JsonValue> {
    message["parts"].as_array().into_iter().flatten().filter(|part| part["type"] == "tool_call")
}

fn arguments(call: &JsonValue) -> String {
    match &call["arguments"] {
        JsonValue::String(text) => text.clone(),
        JsonValue::Null => "{}".to_owned(),
        other => other.to_string(),
    }
}

/// True for a child span that [`view`] has made, of whatever span. A client that read it here, or from another server, gives it
/// back together with its parent, of which it is made again.
pub(crate) fn is_derived(span: &Span) -> bool {
    let Some(parent) = &span.parent_id else { return false };
    let has_name = span.name == TOKEN_IDS_CHILD || span.name.starts_with(TOOL_CALL_CHILD);
    has_name && (0..MAX_RECOGNIZED).any(|number| child_id(parent, number) == span.span_id)
}

fn child_id(parent: &str, number: usize) -> String {
    let id = u64::from_str_radix(parent, 16).unwrap_or(0);
    format!("{:016x}", id.wrapping_add((number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

const TOKEN_IDS_CHILD: &str = "raw_gen_ai_request";
const TOOL_CALL_CHILD: &str = "tool_call.";
/// Children of a call that are recognized; a model makes far fewer tool calls at once.
const MAX_RECOGNIZED: usize = 1024;

/// A child span with the parent's sequence id and times. Its id depends on `of` and `number` only.
fn child(of: &Span, number: usize, name: &str) -> Span {
    let span_id = child_id(&of.span_id, number);
    let context = |span_id: &str| SpanContext {
        trace_id: of.trace_id.clone(),
        span_id: span_id.to_owned(),
        is_remote: false,
        trace_state: BTreeMap::default(),
    };
    Span {
        rollout_id: of.rollout_id.clone(),
        attempt_id: of.attempt_id.clone(),
        sequence_id: of.sequence_id,
        trace_id: of.trace_id.clone(),
        parent_id: Some(of.span_id.clone()),
        name: name.to_owned(),
        kind: Some(SpanKind::Internal),
        status: Status::default(),
        attributes: Attributes::new(),
        events: Vec::new(),
        links: Vec::new(),
        start_time: of.start_time,
        end_time: of.end_time,
        context: Some(context(&span_id)),
        parent: Some(context(&of.span_id)),
        resource: of.resource.clone(),
        span_id,
    }
}
