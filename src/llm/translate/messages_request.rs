//! Requests of Anthropic messages become requests of chat completions.
//!
//! What would change the answer and can't be expressed is refused. Other fields are left out, and named.

use super::chat_request::{
    ChatMessages, content, data_url, function, image_part, json_schema, stream_options, text_part,
};
use super::node::{NO_COUNTERPART, Node};
use super::options::TranslationOptions;
use super::tools::{self, Choice};
use super::untranslatable::Untranslatable;
use crate::llm::clients::BILLING_LINE;
use crate::llm::json_object::{object, text_of};
use crate::wire::json::Json;
use std::collections::BTreeSet;

/// The fields that are read, and behind them those that never have an effect: they are about versions, billing, routing
/// and caching.
#[rustfmt::skip]
const FIELDS: &[&str] = &[
    "max_tokens", "mcp_servers", "messages", "metadata", "model", "output_config", "output_format", "stop_sequences",
    "stream", "system", "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p",
    "anthropic_beta", "anthropic_version", "betas", "cache_control", "inference_geo", "service_tier", "speed",
];

/// The fields of a tool that are read, and behind them those without an effect.
#[rustfmt::skip]
const TOOL_FIELDS: &[&str] = &[
    "defer_loading", "description", "input_schema", "name", "strict", "type", "cache_control", "eager_input_streaming",
];

/// Translates a request.
pub(super) fn to_chat<'a>(root: &Node<'a>, options: TranslationOptions) -> Result<Json<'a>, Untranslatable> {
    root.only(FIELDS)?;
    if let Some(server) = root.get("mcp_servers").list()?.first() {
        return Err(server.refuse("the backend calls no MCP servers"));
    }
    let mut messages = ChatMessages::new(options.turns);
    messages.system(&system(&root.get("system"))?);
    // Tools that a search has found so far.
    let mut found = BTreeSet::new();
    for message in root.get("messages").list()? {
        message.only(&["role", "content"])?;
        let role = message.get("role");
        match role.text()? {
            "user" => user(&message.get("content"), &mut messages, &mut found)?,
            "assistant" => assistant(&message.get("content"), &mut messages)?,
            "system" => messages.system(&system(&message.get("content"))?),
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
    let mut functions = Vec::new();
    for node in root.get("tools").list()? {
        functions.extend(tool(&node, &found, options)?);
    }
    Ok(object! {
        "model": root.get("model").json(),
        "messages": messages,
        "tool_choice": tools::chosen(&choice, tool_choice(&choice)?, &functions),
        "tools": functions,
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

fn system(node: &Node<'_>) -> Result<String, Untranslatable> {
    if let Some(text) = node.json().text() {
        return Ok(without_billing_line(node, text).unwrap_or_default().to_owned());
    }
    let mut texts = Vec::new();
    for block in node.list()? {
        texts.extend(without_billing_line(&block, text(&block)?));
    }
    Ok(texts.join("\n"))
}

/// The text without [`BILLING_LINE`]; `None` if it has no other line.
fn without_billing_line<'a>(node: &Node<'a>, text: &'a str) -> Option<&'a str> {
    if !text.starts_with(BILLING_LINE) {
        return Some(text);
    }
    node.leave_out();
    let (line, rest) = text.split_once('\n').map_or((text, None), |(line, rest)| (line, Some(rest)));
    node.note_billing_line(line);
    rest
}

/// The text of a block that must be text.
fn text<'a>(block: &Node<'a>) -> Result<&'a str, Untranslatable> {
    let kind = block.get("type").text()?;
    if kind != "text" {
        return Err(block.refuse(format!("`{kind}` {NO_COUNTERPART} here")));
    }
    // Citations are not part of what a model reads.
    block.only(&["type", "text", "cache_control"])?;
    block.get("text").text()
}

/// Results of tools come first, as messages of their own, then the other parts as one message.
fn user<'a>(
    node: &Node<'a>,
    messages: &mut ChatMessages<'a>,
    found: &mut BTreeSet<&'a str>,
) -> Result<(), Untranslatable> {
    if let Some(text) = node.json().text() {
        messages.user(vec![text_part(text)]);
        return Ok(());
    }
    let mut parts = Vec::new();
    for block in node.list()? {
        if block.get("type").text()? == "tool_result" {
            tool_result(&block, messages, found)?;
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

fn tool_result<'a>(
    block: &Node<'a>,
    messages: &mut ChatMessages<'a>,
    found: &mut BTreeSet<&'a str>,
) -> Result<(), Untranslatable> {
    block.only(&["type", "tool_use_id", "content", "is_error", "cache_control"])?;
    let node = block.get("content");
    let mut parts = match node.json().text() {
        Some(text) => vec![text_part(text)],
        None => node.list()?.iter().map(|block| result_part(block, found)).collect::<Result<Vec<_>, _>>()?,
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

/// A block of a tool's result. A search for tools gives references to those that it found.
fn result_part<'a>(block: &Node<'a>, found: &mut BTreeSet<&'a str>) -> Result<Json<'a>, Untranslatable> {
    if block.get("type").text()? != "tool_reference" {
        return part(block);
    }
    block.only(&["type", "tool_name", "cache_control"])?;
    let name = block.get("tool_name").text()?;
    found.insert(name);
    Ok(text_part(format!("Found the tool {name}.")))
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
            // Only the service that wrote it can read it.
            "redacted_thinking" => block.leave_out(),
            _ => assistant.text.push_str(text(&block)?),
        }
    }
    Ok(())
}

/// The function that a tool becomes. `None`: it is left out, because the API's server runs it, or because it counts only
/// once a search has found it, as the model sees it.
fn tool<'a>(
    node: &Node<'a>,
    found: &BTreeSet<&'a str>,
    options: TranslationOptions,
) -> Result<Option<Json<'a>>, Untranslatable> {
    if let Some(kind) = node.get("type").word()?.filter(|kind| *kind != "custom") {
        return tools::of_server(node, kind, options.server_tools);
    }
    node.only(TOOL_FIELDS)?;
    let name = node.get("name").text()?;
    if node.get("defer_loading").flag() && !found.contains(name) {
        node.leave_out();
        return Ok(None);
    }
    let schema = node.get("input_schema").json();
    let (description, strict) = (node.get("description").json(), node.get("strict").json());
    Ok(Some(function(name, description, schema, strict)))
}

fn tool_choice<'a>(node: &Node<'a>) -> Result<Choice<'a>, Untranslatable> {
    node.only(&["type", "name", "disable_parallel_tool_use"])?;
    match node.get("type").word()? {
        None => Ok(Choice::Open),
        Some("auto") => Ok(Choice::Auto),
        Some("none") => Ok(Choice::None),
        Some("any") => Ok(Choice::Required),
        Some("tool") => Ok(Choice::Function(node.get("name").text()?.into())),
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
