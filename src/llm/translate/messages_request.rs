//! Requests of Anthropic messages become requests of chat completions.
//!
//! Fields that can't be expressed are refused.

use super::chat_request::{
    ChatMessages, content, data_url, function, image_part, json_schema, named_function, stream_options, text_part,
};
use super::node::{NO_COUNTERPART, Node};
use super::untranslatable::Untranslatable;
use crate::llm::json_object::{object, text_of};
use crate::wire::json::Json;

/// The known fields of a request. Those of the last line have no effect on the answer: they are about versions, billing,
/// routing and caching. They are left out.
#[rustfmt::skip]
const FIELDS: &[&str] = &[
    "context_management", "max_tokens", "mcp_servers", "messages", "metadata", "model", "output_config",
    "output_format", "stop_sequences", "stream", "system", "temperature", "thinking", "tool_choice", "tools", "top_k",
    "top_p",
    "anthropic_beta", "anthropic_version", "betas", "cache_control", "inference_geo", "service_tier", "speed",
];

/// The known fields of a tool. The last two have no effect on the answer.
#[rustfmt::skip]
const TOOL_FIELDS: &[&str] = &[
    "defer_loading", "description", "input_schema", "name", "strict", "type", "cache_control", "eager_input_streaming",
];

/// Translates a request.
pub(super) fn to_chat<'a>(root: &Node<'a>) -> Result<Json<'a>, Untranslatable> {
    root.only(FIELDS)?;
    if let Some(server) = root.get("mcp_servers").list()?.first() {
        return Err(server.refuse("the backend calls no MCP servers"));
    }
    check_context_management(&root.get("context_management"))?;
    let mut messages = ChatMessages::default();
    if let Some(system) = system(&root.get("system"))? {
        messages.system(&system);
    }
    for message in root.get("messages").list()? {
        message.only(&["role", "content"])?;
        let role = message.get("role");
        match role.text()? {
            "user" => user(&message.get("content"), &mut messages)?,
            "assistant" => assistant(&message.get("content"), &mut messages)?,
            other => return Err(role.refuse(format!("`{other}` is no role of a message"))),
        }
    }
    let messages = messages.finish();
    // The answer continues a last message of the assistant.
    let last = messages.last().filter(|last| last.get("tool_calls").is_null());
    let continues = last.is_some_and(|last| last.get("role").text() == Some("assistant"));
    let choice = root.get("tool_choice");
    let forbids_parallel_calls = choice.get("disable_parallel_tool_use").flag();
    let enable_thinking = thinking(&root.get("thinking"))?;
    let (effort, format) = output(root)?;
    let streams = root.get("stream").flag();
    Ok(object! {
        "model": root.get("model").json(),
        "messages": messages,
        "tools": root.get("tools").list()?.iter().map(tool).collect::<Result<Vec<_>, _>>()?,
        "tool_choice": tool_choice(&choice)?,
        "parallel_tool_calls": forbids_parallel_calls.then_some(false),
        "max_tokens": root.get("max_tokens").json(),
        "temperature": root.get("temperature").json(),
        "top_p": root.get("top_p").json(),
        "top_k": root.get("top_k").json(),
        "stop": root.get("stop_sequences").json(),
        "continue_final_message": continues.then_some(true),
        "add_generation_prompt": continues.then_some(false),
        "chat_template_kwargs": enable_thinking.map(|enabled| object! {"enable_thinking": enabled}),
        "reasoning_effort": effort,
        "response_format": format,
        "user": root.get("metadata").get("user_id").json(),
        "stream": streams.then_some(true),
        "stream_options": streams.then(stream_options),
    })
}

/// Refuses edits of the context, except the one that keeps everything.
fn check_context_management(node: &Node<'_>) -> Result<(), Untranslatable> {
    node.only(&["edits"])?;
    for edit in node.get("edits").list()? {
        let keeps_all = edit.get("keep").json().text() == Some("all");
        if edit.get("type").text()? != "clear_thinking_20251015" || !keeps_all {
            return Err(edit.refuse(NO_COUNTERPART));
        }
    }
    Ok(())
}

fn system(node: &Node<'_>) -> Result<Option<String>, Untranslatable> {
    if node.is_null() {
        return Ok(None);
    }
    if let Some(text) = node.json().text() {
        return Ok(Some(text.to_owned()));
    }
    let texts: Result<Vec<&str>, Untranslatable> = node.list()?.iter().map(text).collect();
    Ok(Some(texts?.join("\n")))
}

/// The text of a block that must be text.
fn text<'a>(block: &Node<'a>) -> Result<&'a str, Untranslatable> {
    let kind = block.get("type").text()?;
    if kind != "text" {
        return Err(block.refuse(format!("`{kind}` {NO_COUNTERPART} here")));
    }
    block.only(&["type", "text", "cache_control", "citations"])?;
    let citations = block.get("citations");
    if !citations.is_null() && !citations.json().is_empty_list() {
        return Err(citations.refuse(NO_COUNTERPART));
    }
    block.get("text").text()
}

/// Results of tools come first, as messages of their own, then the other parts as one message.
fn user<'a>(node: &Node<'a>, messages: &mut ChatMessages<'a>) -> Result<(), Untranslatable> {
    if let Some(text) = node.json().text() {
        messages.user(vec![text_part(text)]);
        return Ok(());
    }
    let mut parts = Vec::new();
    for block in node.list()? {
        if block.get("type").text()? == "tool_result" {
            tool_result(&block, messages)?;
        } else {
            parts.push(part(&block)?);
        }
    }
    if !parts.is_empty() {
        messages.user(parts);
    }
    Ok(())
}

/// A block of the user, or of a tool's result.
fn part<'a>(block: &Node<'a>) -> Result<Json<'a>, Untranslatable> {
    let source = block.get("source");
    match (block.get("type").text()?, source.get("type").json().text()) {
        ("image", Some(kind)) => {
            block.only(&["type", "source", "cache_control"])?;
            match kind {
                "base64" => {
                    let (media_type, data) = (source.get("media_type").text()?, source.get("data").text()?);
                    Ok(image_part(data_url(media_type, data), None))
                }
                "url" => Ok(image_part(source.get("url").text()?, None)),
                _ => Err(source.refuse(format!("an image of the source `{kind}` {NO_COUNTERPART}"))),
            }
        }
        ("document", Some("text")) => {
            block.only(&["type", "source", "cache_control"])?;
            Ok(text_part(source.get("data").text()?))
        }
        ("document", _) => Err(block.refuse("documents other than plain text have no counterpart in chat completions")),
        _ => Ok(text_part(text(block)?)),
    }
}

fn tool_result<'a>(block: &Node<'a>, messages: &mut ChatMessages<'a>) -> Result<(), Untranslatable> {
    block.only(&["type", "tool_use_id", "content", "is_error", "cache_control"])?;
    let node = block.get("content");
    let mut parts = match node.json().text() {
        Some(text) => vec![text_part(text)],
        None => node.list()?.iter().map(part).collect::<Result<Vec<_>, _>>()?,
    };
    // Chat completions have no field for failure: the text says it.
    if block.get("is_error").flag() {
        let text = parts.first().and_then(|first| first.get("text").text()).map(|text| format!("Error: {text}"));
        if text.is_some() {
            parts.remove(0);
        }
        parts.insert(0, text_part(text.unwrap_or_else(|| "Error:".to_owned())));
    }
    messages.tool(block.get("tool_use_id").text()?, content(parts));
    Ok(())
}

fn assistant<'a>(node: &Node<'a>, messages: &mut ChatMessages<'a>) -> Result<(), Untranslatable> {
    let assistant = messages.assistant();
    if let Some(text) = node.json().text() {
        assistant.text.push_str(text);
        return Ok(());
    }
    for block in node.list()? {
        match block.get("type").text()? {
            "tool_use" => {
                block.only(&["type", "id", "name", "input", "cache_control", "caller"])?;
                let caller = block.get("caller").get("type");
                if caller.word()?.is_some_and(|caller| caller != "direct") {
                    return Err(caller.refuse(NO_COUNTERPART));
                }
                let arguments = text_of(block.get("input").json());
                assistant.call(block.get("id").text()?, block.get("name").text()?, arguments);
            }
            // The signature can't be checked here and is left out.
            "thinking" => {
                block.only(&["type", "thinking", "signature", "cache_control"])?;
                assistant.reasoning.push_str(block.get("thinking").text()?);
            }
            _ => assistant.text.push_str(text(&block)?),
        }
    }
    Ok(())
}

fn tool<'a>(node: &Node<'a>) -> Result<Json<'a>, Untranslatable> {
    if let Some(kind) = node.get("type").word()?.filter(|kind| *kind != "custom") {
        return Err(node.refuse(format!("the tool `{kind}` is run by Anthropic's server, and the backend has none")));
    }
    node.only(TOOL_FIELDS)?;
    let deferred = node.get("defer_loading");
    if deferred.flag() {
        return Err(deferred.refuse(NO_COUNTERPART));
    }
    let schema = node.get("input_schema").json();
    let (description, strict) = (node.get("description").json(), node.get("strict").json());
    Ok(function(node.get("name").text()?, description, schema, strict))
}

fn tool_choice<'a>(node: &Node<'a>) -> Result<Json<'a>, Untranslatable> {
    node.only(&["type", "name", "disable_parallel_tool_use"])?;
    match node.get("type").word()? {
        None => Ok(Json::Null),
        Some(same @ ("auto" | "none")) => Ok(Json::Text(same.into())),
        Some("any") => Ok(Json::Text("required".into())),
        Some("tool") => Ok(named_function(node.get("name").text()?)),
        Some(other) => Err(node.refuse(format!("the choice `{other}` {NO_COUNTERPART}"))),
    }
}

/// Whether reasoning is enabled. Its budget is an upper bound and is left out.
fn thinking(node: &Node<'_>) -> Result<Option<bool>, Untranslatable> {
    node.only(&["type", "budget_tokens", "display"])?;
    match node.get("type").word()? {
        None => Ok(None),
        Some("enabled" | "adaptive") => Ok(Some(true)),
        Some("disabled") => Ok(Some(false)),
        Some(other) => Err(node.refuse(format!("thinking `{other}` {NO_COUNTERPART}"))),
    }
}

/// The effort, and the format of the answer, which older clients send at the root.
fn output<'a>(root: &Node<'a>) -> Result<(&'a Json<'a>, Option<Json<'a>>), Untranslatable> {
    let config = root.get("output_config");
    config.only(&["effort", "format"])?;
    let (new, old) = (config.get("format"), root.get("output_format"));
    let format = if new.is_null() { old } else { new };
    format.only(&["type", "schema"])?;
    let schema = match format.get("type").word()? {
        None => None,
        Some("json_schema") => Some(json_schema("answer", None, format.get("schema").json(), true)),
        Some(other) => return Err(format.refuse(format!("the format `{other}` {NO_COUNTERPART}"))),
    };
    Ok((config.get("effort").json(), schema))
}

#[cfg(test)]
mod tests {
    use crate::llm::translate::SourceApi::Messages;
    use crate::llm::translate::tests::{chat, refused_at};
    use serde_json::json;

    #[test]
    fn a_conversation_with_tools() {
        let request = json!({
            "model": "m",
            "max_tokens": 9,
            "system": [{"type": "text", "text": "be", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "kind"}],
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "one moment", "citations": null},
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"z": 1, "a": [2.5]}},
                ]},
                {"role": "user", "content": [
                    {"type": "text", "text": "and"},
                    {"type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": [
                        {"type": "text", "text": "no"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                    ]},
                    {"type": "image", "source": {"type": "url", "url": "http://x/y.png"}},
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "doc"}},
                ]},
            ],
            "tools": [{"name": "look", "description": "looks", "input_schema": {"type": "object"}, "type": "custom"}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "stop_sequences": ["x"],
            "top_k": 5,
            "metadata": {"user_id": "u"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
            "stream": true,
        });
        let expected = json!({
            "model": "m",
            "max_tokens": 9,
            "messages": [
                {"role": "system", "content": "be\nkind"},
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "one moment", "reasoning_content": "hm", "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "look", "arguments": "ARGUMENTS"}},
                ]},
                {"role": "tool", "tool_call_id": "t1", "content": [
                    {"type": "text", "text": "Error: no"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                ]},
                {"role": "user", "content": [
                    {"type": "text", "text": "and"},
                    {"type": "image_url", "image_url": {"url": "http://x/y.png"}},
                    {"type": "text", "text": "doc"},
                ]},
            ],
            "tools": [{"type": "function", "function": {
                "name": "look", "description": "looks", "parameters": {"type": "object"},
            }}],
            "tool_choice": "required",
            "parallel_tool_calls": false,
            "chat_template_kwargs": {"enable_thinking": true},
            "reasoning_effort": "low",
            "response_format": {"type": "json_schema", "json_schema": {
                "name": "answer", "schema": {"type": "object"}, "strict": true,
            }},
            "stop": ["x"],
            "top_k": 5,
            "user": "u",
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        // The arguments keep the order in which the model wrote them.
        let request = request.to_string().replace(r#"{"a":[2.5],"z":1}"#, r#"{"z":1,"a":[2.5]}"#);
        let expected = expected.to_string().replace("ARGUMENTS", r#"{\"z\":1,\"a\":[2.5]}"#);
        assert_eq!(chat(Messages, &request), serde_json::from_str::<serde_json::Value>(&expected).unwrap());
    }

    #[test]
    fn a_last_message_of_the_assistant_is_continued() {
        let request =
            json!({"model": "m", "messages": [{"role": "assistant", "content": [{"type": "text", "text": "{"}]}]});
        let expected = json!({
            "model": "m",
            "messages": [{"role": "assistant", "content": "{"}],
            "continue_final_message": true,
            "add_generation_prompt": false,
        });
        assert_eq!(chat(Messages, &request.to_string()), expected);
    }

    #[test]
    fn fields_without_counterpart_are_refused_with_their_place() {
        let user = |block: serde_json::Value| json!({"messages": [{"role": "user", "content": [block]}]});
        let assistant = |block: serde_json::Value| json!({"messages": [{"role": "assistant", "content": [block]}]});
        for (request, place) in [
            (json!({"new_thing": 1}), "new_thing"),
            (json!({"container": "c"}), "container"),
            (json!({"mcp_servers": [{"url": "u"}]}), "mcp_servers[0]"),
            (
                json!({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}),
                "context_management.edits[0]",
            ),
            (json!({"messages": [{"role": "system", "content": ""}]}), "messages[0].role"),
            (user(json!({"type": "search_result"})), "messages[0].content[0]"),
            (
                user(json!({"type": "image", "source": {"type": "file", "file_id": "f"}})),
                "messages[0].content[0].source",
            ),
            (user(json!({"type": "document", "source": {"type": "base64"}})), "messages[0].content[0]"),
            (user(json!({"type": "text", "text": "", "citations": [1]})), "messages[0].content[0].citations"),
            (
                user(json!({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference"}]})),
                "messages[0].content[0].content[0]",
            ),
            (assistant(json!({"type": "redacted_thinking", "data": "x"})), "messages[0].content[0]"),
            (assistant(json!({"type": "server_tool_use"})), "messages[0].content[0]"),
            (json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}), "tools[0]"),
            (json!({"tools": [{"name": "f", "defer_loading": true}]}), "tools[0].defer_loading"),
            (json!({"tool_choice": {"type": "some"}}), "tool_choice"),
            (json!({"thinking": {"type": "deep"}}), "thinking"),
            (json!({"output_config": {"task_budget": {}}}), "output_config.task_budget"),
        ] {
            assert_eq!(refused_at(Messages, &request), place, "{request}");
        }
    }
}
