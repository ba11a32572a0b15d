//! Requests of OpenAI responses become requests of chat completions.
//!
//! Fields that can't be expressed are refused.

use super::chat_request::{
    ChatMessages, content, function, image_part, json_schema, named_function, stream_options, text_part,
};
use super::node::{NO_COUNTERPART, Node};
use super::untranslatable::Untranslatable;
use crate::llm::json_object::object;
use crate::wire::json::Json;

/// The known fields of a request. Those of the last two lines have no effect on the answer: they are about storage,
/// billing, routing, caching and usage. They are left out.
#[rustfmt::skip]
const FIELDS: &[&str] = &[
    "background", "include", "input", "instructions", "max_output_tokens", "model", "parallel_tool_calls",
    "previous_response_id", "reasoning", "stream", "temperature", "text", "tool_choice", "tools", "top_p",
    "truncation", "user",
    "client_metadata", "metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier",
    "store", "stream_options",
];

/// Translates a request.
pub(super) fn to_chat<'a>(root: &Node<'a>) -> Result<Json<'a>, Untranslatable> {
    root.only(FIELDS)?;
    check(root)?;
    let mut messages = ChatMessages::default();
    if let Some(text) = root.get("instructions").word()? {
        messages.system(text);
    }
    let input = root.get("input");
    match input.json().text() {
        Some(text) => messages.user(vec![text_part(text)]),
        None => input.list()?.iter().try_for_each(|node| item(node, &mut messages))?,
    }
    let reasoning = root.get("reasoning");
    reasoning.only(&["effort", "summary", "generate_summary"])?;
    let text = root.get("text");
    text.only(&["format", "verbosity"])?;
    let streams = root.get("stream").flag();
    Ok(object! {
        "model": root.get("model").json(),
        "messages": messages.finish(),
        "tools": root.get("tools").list()?.iter().map(tool).collect::<Result<Vec<_>, _>>()?,
        "tool_choice": tool_choice(&root.get("tool_choice"))?,
        "parallel_tool_calls": root.get("parallel_tool_calls").json(),
        "max_tokens": root.get("max_output_tokens").json(),
        "temperature": root.get("temperature").json(),
        "top_p": root.get("top_p").json(),
        "reasoning_effort": reasoning.get("effort").json(),
        "verbosity": text.get("verbosity").json(),
        "response_format": response_format(&text.get("format"))?,
        "user": root.get("user").json(),
        "stream": streams.then_some(true),
        "stream_options": streams.then(stream_options),
    })
}

/// Refuses fields that need a server which stores responses.
fn check(root: &Node<'_>) -> Result<(), Untranslatable> {
    let previous = root.get("previous_response_id");
    if !previous.is_null() {
        return Err(previous.refuse("the gateway stores no responses"));
    }
    let background = root.get("background");
    if background.flag() {
        return Err(background.refuse("the gateway stores no responses"));
    }
    let truncation = root.get("truncation");
    if truncation.word()?.is_some_and(|how| how != "disabled") {
        return Err(truncation.refuse(NO_COUNTERPART));
    }
    for included in root.get("include").list()? {
        // Reasoning is sent unencrypted, and the agent gets no logprobs.
        if !matches!(included.text()?, "reasoning.encrypted_content" | "message.output_text.logprobs") {
            return Err(included.refuse(NO_COUNTERPART));
        }
    }
    Ok(())
}

fn item<'a>(node: &Node<'a>, messages: &mut ChatMessages<'a>) -> Result<(), Untranslatable> {
    let kind = node.get("type").word()?;
    match kind.or_else(|| node.json().has("role").then_some("message")) {
        Some("message") => message(node, messages),
        Some("function_call") => {
            node.only(&["type", "id", "call_id", "name", "arguments", "status"])?;
            let arguments = node.get("arguments").text()?.to_owned();
            messages.assistant().call(node.get("call_id").text()?, node.get("name").text()?, arguments);
            Ok(())
        }
        Some("function_call_output") => {
            node.only(&["type", "id", "call_id", "output", "status"])?;
            let parts = parts(&node.get("output"))?;
            messages.tool(node.get("call_id").text()?, content(parts));
            Ok(())
        }
        Some("reasoning") => reasoning(node, messages),
        Some("item_reference") | None => Err(node.refuse("the gateway stores no items")),
        Some(other) => Err(node.refuse(format!("`{other}` {NO_COUNTERPART}"))),
    }
}

fn message<'a>(node: &Node<'a>, messages: &mut ChatMessages<'a>) -> Result<(), Untranslatable> {
    node.only(&["type", "id", "role", "content", "status"])?;
    let (role, parts) = (node.get("role"), parts(&node.get("content"))?);
    match role.text()? {
        "user" => messages.user(parts),
        "system" | "developer" => messages.system(&texts(node, &parts)?.join("\n")),
        "assistant" => messages.assistant().text.push_str(&texts(node, &parts)?.concat()),
        other => return Err(role.refuse(format!("`{other}` is no role of a message"))),
    }
    Ok(())
}

/// The texts of parts that must all be text.
fn texts<'b>(node: &Node<'_>, parts: &'b [Json<'_>]) -> Result<Vec<&'b str>, Untranslatable> {
    let texts: Option<Vec<&str>> = parts.iter().map(|part| part.get("text").text()).collect();
    texts.ok_or_else(|| node.get("content").refuse("only messages of the user and results of tools can have images"))
}

/// A text, or a list of parts.
fn parts<'a>(node: &Node<'a>) -> Result<Vec<Json<'a>>, Untranslatable> {
    match node.json().text() {
        Some(text) => Ok(vec![text_part(text)]),
        None => node.list()?.iter().map(part).collect(),
    }
}

fn part<'a>(node: &Node<'a>) -> Result<Json<'a>, Untranslatable> {
    match node.get("type").text()? {
        "input_text" | "output_text" | "text" => {
            node.only(&["type", "text", "annotations", "logprobs"])?;
            let annotations = node.get("annotations");
            if annotations.is_null() || annotations.json().is_empty_list() {
                return Ok(text_part(node.get("text").text()?));
            }
            Err(annotations.refuse(NO_COUNTERPART))
        }
        "refusal" => Ok(text_part(node.get("refusal").text()?)),
        "input_image" => {
            node.only(&["type", "image_url", "detail"])?;
            Ok(image_part(node.get("image_url").text()?, node.get("detail").word()?))
        }
        other => Err(node.refuse(format!("`{other}` {NO_COUNTERPART}"))),
    }
}

/// Reasoning: its content if there is any, else its summary.
fn reasoning<'a>(node: &Node<'a>, messages: &mut ChatMessages<'a>) -> Result<(), Untranslatable> {
    node.only(&["type", "id", "summary", "content", "encrypted_content", "status"])?;
    let (content, summary) = (node.get("content").list()?, node.get("summary").list()?);
    let encrypted = node.get("encrypted_content");
    if content.is_empty() && !encrypted.is_null() {
        return Err(encrypted.refuse("the gateway can't read encrypted reasoning"));
    }
    let parts = if content.is_empty() { summary } else { content };
    for part in parts {
        part.only(&["type", "text"])?;
        messages.assistant().reasoning.push_str(part.get("text").text()?);
    }
    Ok(())
}

fn tool<'a>(node: &Node<'a>) -> Result<Json<'a>, Untranslatable> {
    let kind = node.get("type").text()?;
    if kind != "function" {
        return Err(node.refuse(format!("the tool `{kind}` {NO_COUNTERPART}")));
    }
    node.only(&["type", "name", "description", "parameters", "strict", "defer_loading"])?;
    let deferred = node.get("defer_loading");
    if deferred.flag() {
        return Err(deferred.refuse(NO_COUNTERPART));
    }
    let parameters = node.get("parameters").json();
    let (description, strict) = (node.get("description").json(), node.get("strict").json());
    Ok(function(node.get("name").text()?, description, parameters, strict))
}

fn tool_choice<'a>(node: &Node<'a>) -> Result<Json<'a>, Untranslatable> {
    if node.is_null() || matches!(node.json().text(), Some("auto" | "none" | "required")) {
        return Ok(node.json().clone());
    }
    if node.get("type").json().text() != Some("function") {
        return Err(node.refuse(NO_COUNTERPART));
    }
    node.only(&["type", "name"])?;
    Ok(named_function(node.get("name").text()?))
}

fn response_format<'a>(node: &Node<'a>) -> Result<Option<Json<'a>>, Untranslatable> {
    node.only(&["type", "name", "description", "schema", "strict"])?;
    match node.get("type").word()? {
        None | Some("text") => Ok(None),
        Some("json_object") => Ok(Some(object! {"type": "json_object"})),
        Some("json_schema") => {
            let (name, description) = (node.get("name").text()?, node.get("description").word()?);
            let (schema, strict) = (node.get("schema").json(), node.get("strict").json());
            Ok(Some(json_schema(name, description, schema, strict)))
        }
        Some(other) => Err(node.refuse(format!("the format `{other}` {NO_COUNTERPART}"))),
    }
}

#[cfg(test)]
mod tests {
    use crate::llm::translate::SourceApi::Responses;
    use crate::llm::translate::tests::{chat, refused_at};
    use serde_json::json;

    #[test]
    fn a_conversation_with_tools() {
        let request = json!({
            "model": "m",
            "instructions": "be kind",
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "really"}]},
                {"role": "user", "content": "hi"},
                {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [
                    {"type": "output_text", "text": "one ", "annotations": []}, {"type": "refusal", "refusal": "moment"},
                ]},
                {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": "{ }"},
                {"type": "function_call", "call_id": "c2", "name": "hear", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "seen"},
                {"type": "function_call_output", "call_id": "c2", "output": [
                    {"type": "input_image", "image_url": "http://x/y.png", "detail": "low"},
                ]},
            ],
            "tools": [{"type": "function", "name": "look", "description": "looks", "parameters": {"type": "object"}, "strict": false}],
            "tool_choice": {"type": "function", "name": "look"},
            "parallel_tool_calls": true,
            "max_output_tokens": 9,
            "reasoning": {"effort": "low", "summary": "auto"},
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": true}, "verbosity": "low"},
            "include": ["reasoning.encrypted_content"],
            "store": false,
            "truncation": "disabled",
            "prompt_cache_key": "k",
        });
        let call = |id: &str, name: &str, arguments: &str| {
            let function = json!({"name": name, "arguments": arguments});
            json!({"id": id, "type": "function", "function": function})
        };
        let expected = json!({
            "model": "m",
            "messages": [
                {"role": "system", "content": "be kind\n\nreally"},
                {"role": "user", "content": "hi"},
                {
                    "role": "assistant",
                    "content": "one moment",
                    "reasoning_content": "hm",
                    "tool_calls": [call("c1", "look", "{ }"), call("c2", "hear", "{}")],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "seen"},
                {"role": "tool", "tool_call_id": "c2", "content": [
                    {"type": "image_url", "image_url": {"url": "http://x/y.png", "detail": "low"}},
                ]},
            ],
            "tools": [{"type": "function", "function": {
                "name": "look", "description": "looks", "parameters": {"type": "object"}, "strict": false,
            }}],
            "tool_choice": {"type": "function", "function": {"name": "look"}},
            "parallel_tool_calls": true,
            "max_tokens": 9,
            "reasoning_effort": "low",
            "verbosity": "low",
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": true}},
        });
        assert_eq!(chat(Responses, &request.to_string()), expected);
    }

    #[test]
    fn an_input_may_be_a_text() {
        let expected = json!({
            "model": "m",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        assert_eq!(chat(Responses, r#"{"model":"m","input":"hi","stream":true,"tool_choice":"auto"}"#), expected);
    }

    #[test]
    fn fields_without_counterpart_are_refused_with_their_place() {
        let input = |item: serde_json::Value| json!({"input": [item]});
        for (request, place) in [
            (json!({"previous_response_id": "r"}), "previous_response_id"),
            (json!({"conversation": "c"}), "conversation"),
            (json!({"background": true}), "background"),
            (json!({"truncation": "auto"}), "truncation"),
            (json!({"include": ["file_search_call.results"]}), "include[0]"),
            (input(json!({"type": "item_reference", "id": "i"})), "input[0]"),
            (input(json!({"id": "i"})), "input[0]"),
            (input(json!({"type": "local_shell_call"})), "input[0]"),
            (
                input(json!({"type": "reasoning", "summary": [], "encrypted_content": "x"})),
                "input[0].encrypted_content",
            ),
            (input(json!({"role": "user", "content": [{"type": "input_file"}]})), "input[0].content[0]"),
            (input(json!({"role": "tool", "content": ""})), "input[0].role"),
            (
                input(json!({"role": "system", "content": [{"type": "input_image", "image_url": "u"}]})),
                "input[0].content",
            ),
            (json!({"tools": [{"type": "custom", "name": "apply_patch"}]}), "tools[0]"),
            (json!({"tools": [{"type": "web_search"}]}), "tools[0]"),
            (json!({"tool_choice": {"type": "allowed_tools"}}), "tool_choice"),
            (json!({"text": {"format": {"type": "grammar"}}}), "text.format"),
        ] {
            assert_eq!(refused_at(Responses, &request), place, "{request}");
        }
    }
}
