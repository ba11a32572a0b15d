//! The attributes of OpenInference, by which Phoenix and Arize show calls of models and tools, made from those of the GenAI conventions.
//!
//! <https://arize-ai.github.io/openinference/spec/>. They are added when spans are exported, and never stored. A span of a
//! tracer that writes them itself keeps its own.

use super::open_inference_messages::{Put, messages, summary, value};
use super::span_facts::text;
use super::transcript::{Message, input, parsed};
use crate::trace::semconv as names;
use crate::trace::{Span, Value};
use serde_json::{Map, Value as JsonValue, json};

/// Adds the attributes to a span of a call, a tool or an agent; other spans have none.
pub(super) fn add_open_inference(span: &mut Span) {
    if span.attributes.contains_key(SPAN_KIND) {
        return;
    }
    let kind = match text(span, names::GEN_AI_OPERATION_NAME) {
        Some("chat" | "text_completion" | "generate_content") => "LLM",
        Some("embeddings") => "EMBEDDING",
        Some("execute_tool") => "TOOL",
        Some("invoke_agent" | "create_agent") => "AGENT",
        Some("invoke_workflow" | "plan") => "CHAIN",
        Some("retrieval") => "RETRIEVER",
        _ => return,
    };
    let mut added = Vec::new();
    let mut put = |name: &str, value: Value| added.push((name.to_owned(), value));
    put(SPAN_KIND, kind.into());
    put("session.id", span.rollout_id.as_str().into());
    if let Some(agent) = text(span, names::GEN_AI_AGENT_NAME) {
        put("agent.name", agent.into());
    }
    match kind {
        "LLM" => call(span, &mut put),
        "EMBEDDING" => embedding(span, &mut put),
        "TOOL" => tool(span, &mut put),
        _ => in_and_out(span, &mut put),
    }
    span.attributes.extend(added);
}

fn call(span: &Span, put: Put<'_>) {
    let model = |name| text(span, name);
    let (requested, used) = (model(names::GEN_AI_REQUEST_MODEL), model(names::GEN_AI_RESPONSE_MODEL));
    for (name, model) in [
        ("llm.model_name", used.or(requested)),
        ("llm.request.model_name", requested),
        ("llm.response.model_name", used),
        ("llm.finish_reason", finish_reason(span)),
    ] {
        if let Some(model) = model {
            put(name, model.into());
        }
    }
    if let Some(provider) = text(span, names::GEN_AI_PROVIDER_NAME) {
        let (system, provider) = system_and_provider(provider);
        put("llm.provider", provider.into());
        if let Some(system) = system {
            put("llm.system", system.into());
        }
    }
    if let Some(parameters) = invocation_parameters(span) {
        put("llm.invocation_parameters", parameters.into());
    }
    token_counts(span, put);
    let tools: Vec<JsonValue> = parsed(text(span, names::GEN_AI_TOOL_DEFINITIONS));
    for (at, tool) in tools.into_iter().enumerate() {
        put(&format!("llm.tools.{at}.tool.json_schema"), in_form_of_openai(tool).to_string().into());
    }
    let input = input(span);
    let output: Vec<Message> = parsed(text(span, names::GEN_AI_OUTPUT_MESSAGES));
    messages("llm.input_messages", &input, put);
    messages("llm.output_messages", &output, put);
    summary("input", input.last(), put);
    summary("output", output.first(), put);
}

fn embedding(span: &Span, put: Put<'_>) {
    let model = text(span, names::GEN_AI_RESPONSE_MODEL).or_else(|| text(span, names::GEN_AI_REQUEST_MODEL));
    if let Some(model) = model {
        put("embedding.model_name", model.into());
    }
    if let Some(parameters) = invocation_parameters(span) {
        put("embedding.invocation_parameters", parameters.into());
    }
    token_counts(span, put);
}

fn tool(span: &Span, put: Put<'_>) {
    for (name, attribute) in [("tool.name", names::GEN_AI_TOOL_NAME), ("tool.id", names::GEN_AI_TOOL_CALL_ID)] {
        if let Some(text) = text(span, attribute) {
            put(name, text.into());
        }
    }
    for (name, attribute) in [("input", names::GEN_AI_TOOL_CALL_ARGUMENTS), ("output", names::GEN_AI_TOOL_CALL_RESULT)]
    {
        if let Some(text) = text(span, attribute) {
            value(name, text, put);
        }
    }
}

/// What an agent was told, and what it said.
fn in_and_out(span: &Span, put: Put<'_>) {
    let output: Vec<Message> = parsed(text(span, names::GEN_AI_OUTPUT_MESSAGES));
    summary("input", input(span).last(), put);
    summary("output", output.first(), put);
}

fn finish_reason(span: &Span) -> Option<&str> {
    match span.attributes.get(names::GEN_AI_RESPONSE_FINISH_REASONS)? {
        Value::Strings(reasons) => reasons.first().map(String::as_str),
        other => other.as_str(),
    }
}

fn token_counts(span: &Span, put: Put<'_>) {
    let count = |name: &str| span.attributes.get(name).and_then(Value::as_int);
    let (prompt, completion) = (count(names::GEN_AI_USAGE_INPUT_TOKENS), count(names::GEN_AI_USAGE_OUTPUT_TOKENS));
    let written = count(names::GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS)
        .or_else(|| count(names::GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS));
    for (name, tokens) in [
        ("llm.token_count.prompt", prompt),
        ("llm.token_count.completion", completion),
        ("llm.token_count.total", prompt.zip(completion).and_then(|(prompt, rest)| prompt.checked_add(rest))),
        ("llm.token_count.prompt_details.cache_read", count(names::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS)),
        ("llm.token_count.prompt_details.cache_write", written),
        ("llm.token_count.completion_details.reasoning", count(names::GEN_AI_USAGE_REASONING_OUTPUT_TOKENS)),
    ] {
        if let Some(tokens) = tokens {
            put(name, tokens.into());
        }
    }
}

/// The parameters of the request, with their names in OpenAI's API.
fn invocation_parameters(span: &Span) -> Option<String> {
    let parameters: Map<String, JsonValue> = PARAMETERS
        .iter()
        .filter_map(|(name, attribute)| {
            let value = serde_json::to_value(span.attributes.get(*attribute)?).ok()?;
            Some(((*name).to_owned(), value))
        })
        .collect();
    (!parameters.is_empty()).then(|| JsonValue::Object(parameters).to_string())
}

/// A tool as OpenAI's chat completions have it.
fn in_form_of_openai(mut tool: JsonValue) -> JsonValue {
    let is_flat_function = tool["type"] == "function" && tool.get("function").is_none();
    match tool.as_object_mut().filter(|_| is_flat_function) {
        Some(fields) => {
            fields.shift_remove("type");
            json!({ "type": "function", "function": fields })
        }
        None => tool,
    }
}

/// OpenInference's names of an API and of its host.
fn system_and_provider(provider: &str) -> (Option<&'static str>, &str) {
    match provider {
        "openai" => (Some("openai"), "openai"),
        "anthropic" => (Some("anthropic"), "anthropic"),
        "cohere" => (Some("cohere"), "cohere"),
        "mistral_ai" => (Some("mistralai"), "mistralai"),
        "azure.ai.openai" => (Some("openai"), "azure"),
        "azure.ai.inference" => (None, "azure"),
        "gcp.vertex_ai" => (Some("vertexai"), "google"),
        "gcp.gemini" | "gcp.gen_ai" => (None, "google"),
        "aws.bedrock" => (None, "aws"),
        "x_ai" => (None, "xai"),
        "moonshot_ai" => (None, "moonshot"),
        other => (None, other),
    }
}

const SPAN_KIND: &str = "openinference.span.kind";
const PARAMETERS: [(&str, &str); 11] = [
    ("model", names::GEN_AI_REQUEST_MODEL),
    ("stream", names::GEN_AI_REQUEST_STREAM),
    ("temperature", names::GEN_AI_REQUEST_TEMPERATURE),
    ("top_p", names::GEN_AI_REQUEST_TOP_P),
    ("top_k", names::GEN_AI_REQUEST_TOP_K),
    ("max_tokens", names::GEN_AI_REQUEST_MAX_TOKENS),
    ("frequency_penalty", names::GEN_AI_REQUEST_FREQUENCY_PENALTY),
    ("presence_penalty", names::GEN_AI_REQUEST_PRESENCE_PENALTY),
    ("seed", names::GEN_AI_REQUEST_SEED),
    ("stop", names::GEN_AI_REQUEST_STOP_SEQUENCES),
    ("n", names::GEN_AI_REQUEST_CHOICE_COUNT),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn converted(attributes: &[(&str, Value)]) -> BTreeMap<String, Value> {
        let mut span: Span = serde_json::from_value(json!({
            "rollout_id": "ro-1", "attempt_id": "at-1", "sequence_id": 1, "trace_id": "t", "span_id": "s", "parent_id": null,
            "name": "chat", "status": { "status_code": "UNSET", "description": null }, "attributes": {}, "events": [],
            "links": [], "start_time": null, "end_time": null, "context": null, "parent": null,
            "resource": { "attributes": {}, "schema_url": "" },
        })).unwrap();
        attributes.iter().for_each(|(name, value)| span.set(name, value.clone()));
        let before = span.attributes.clone();
        add_open_inference(&mut span);
        span.attributes.into_iter().filter(|(name, _)| !before.contains_key(name)).collect()
    }

    #[test]
    fn messages_tools_and_counts_of_a_call_are_flat() {
        let input = json!([
            { "role": "user", "parts": [{ "type": "text", "content": "look" },
                { "type": "uri", "modality": "image", "uri": "https://i.example/a.png" }] },
            { "role": "assistant", "parts": [{ "type": "reasoning", "content": "hm" },
                { "type": "tool_call", "id": "c1", "name": "add", "arguments": { "a": 1 } }] },
            { "role": "tool", "parts": [{ "type": "tool_call_response", "id": "c1", "response": { "sum": 2 } },
                { "type": "tool_call_response", "id": "c2", "response": "two" }] },
        ]);
        let output =
            json!([{ "role": "assistant", "parts": [{ "type": "text", "content": "2" }], "finish_reason": "stop" }]);
        let added = converted(&[
            (names::GEN_AI_OPERATION_NAME, "chat".into()),
            (names::GEN_AI_PROVIDER_NAME, "azure.ai.openai".into()),
            (names::GEN_AI_REQUEST_MODEL, "m".into()),
            (names::GEN_AI_RESPONSE_MODEL, "m-1".into()),
            (names::GEN_AI_REQUEST_TEMPERATURE, 0.5.into()),
            (names::GEN_AI_USAGE_INPUT_TOKENS, 3.into()),
            (names::GEN_AI_USAGE_OUTPUT_TOKENS, 4.into()),
            (names::GEN_AI_SYSTEM_INSTRUCTIONS, r#"[{"type":"text","content":"be brief"}]"#.into()),
            (names::GEN_AI_TOOL_DEFINITIONS, r#"[{"type":"function","name":"add","parameters":{}}]"#.into()),
            (names::GEN_AI_INPUT_MESSAGES, input.to_string().into()),
            (names::GEN_AI_OUTPUT_MESSAGES, output.to_string().into()),
        ]);
        let expected: BTreeMap<String, Value> = [
            ("openinference.span.kind", "LLM".into()),
            ("session.id", "ro-1".into()),
            ("llm.provider", "azure".into()),
            ("llm.system", "openai".into()),
            ("llm.model_name", "m-1".into()),
            ("llm.request.model_name", "m".into()),
            ("llm.response.model_name", "m-1".into()),
            ("llm.invocation_parameters", r#"{"model":"m","temperature":0.5}"#.into()),
            ("llm.token_count.prompt", 3.into()),
            ("llm.token_count.completion", 4.into()),
            ("llm.token_count.total", 7.into()),
            ("llm.tools.0.tool.json_schema", r#"{"type":"function","function":{"name":"add","parameters":{}}}"#.into()),
            ("llm.input_messages.0.message.role", "system".into()),
            ("llm.input_messages.0.message.content", "be brief".into()),
            ("llm.input_messages.1.message.role", "user".into()),
            ("llm.input_messages.1.message.contents.0.message_content.type", "text".into()),
            ("llm.input_messages.1.message.contents.0.message_content.text", "look".into()),
            ("llm.input_messages.1.message.contents.1.message_content.type", "image".into()),
            (
                "llm.input_messages.1.message.contents.1.message_content.image.image.url",
                "https://i.example/a.png".into(),
            ),
            ("llm.input_messages.2.message.role", "assistant".into()),
            ("llm.input_messages.2.message.contents.0.message_content.type", "reasoning".into()),
            ("llm.input_messages.2.message.contents.0.message_content.text", "hm".into()),
            ("llm.input_messages.2.message.tool_calls.0.tool_call.id", "c1".into()),
            ("llm.input_messages.2.message.tool_calls.0.tool_call.function.name", "add".into()),
            ("llm.input_messages.2.message.tool_calls.0.tool_call.function.arguments", r#"{"a":1}"#.into()),
            ("llm.input_messages.3.message.role", "tool".into()),
            ("llm.input_messages.3.message.tool_call_id", "c1".into()),
            ("llm.input_messages.3.message.content", r#"{"sum":2}"#.into()),
            ("llm.input_messages.4.message.role", "tool".into()),
            ("llm.input_messages.4.message.tool_call_id", "c2".into()),
            ("llm.input_messages.4.message.content", "two".into()),
            ("llm.output_messages.0.message.role", "assistant".into()),
            ("llm.output_messages.0.message.content", "2".into()),
            ("input.value", r#"{"sum":2}"#.into()),
            ("input.mime_type", "application/json".into()),
            ("output.value", "2".into()),
            ("output.mime_type", "text/plain".into()),
        ]
        .into_iter()
        .map(|(name, value): (&str, Value)| (name.to_owned(), value))
        .collect();
        assert_eq!(added, expected);
    }

    #[test]
    fn other_spans_keep_what_they_have() {
        let tool = converted(&[
            (names::GEN_AI_OPERATION_NAME, "execute_tool".into()),
            (names::GEN_AI_TOOL_NAME, "add".into()),
            (names::GEN_AI_TOOL_CALL_ARGUMENTS, r#"{"a":1}"#.into()),
        ]);
        assert_eq!(tool.get(SPAN_KIND), Some(&"TOOL".into()));
        assert_eq!((tool.get("tool.name"), tool.get("input.value")), (Some(&"add".into()), Some(&r#"{"a":1}"#.into())));
        assert!(converted(&[(SPAN_KIND, "CHAIN".into()), (names::GEN_AI_OPERATION_NAME, "chat".into())]).is_empty());
        assert!(converted(&[(names::URL_FULL, "http://a/".into())]).is_empty());
        // What is no list of messages has no messages.
        let odd = converted(&[
            (names::GEN_AI_OPERATION_NAME, "chat".into()),
            (names::GEN_AI_INPUT_MESSAGES, "{\"role\":".into()),
            (names::GEN_AI_OUTPUT_MESSAGES, "[1, null, {\"parts\": 5}]".into()),
        ]);
        assert_eq!(odd.len(), 2, "{odd:?}");
    }
}
