//! Messages as attributes of OpenInference: one for each field of each element.

use super::transcript::{Message, Part};
use crate::trace::Value;
use serde_json::{Value as JsonValue, json};

/// Takes an attribute.
pub(super) type Put<'a> = &'a mut dyn FnMut(&str, Value);

/// Lists of objects have an attribute for each field of each element.
pub(super) fn messages(list: &str, messages: &[Message], put: Put<'_>) {
    let mut at = 0;
    for message in messages {
        // Each result of a tool is a message: one has one id.
        let (results, others): (Vec<Part<'_>>, Vec<Part<'_>>) =
            message.parts().partition(|part| matches!(part, Part::ToolResult { .. }));
        if !others.is_empty() || results.is_empty() {
            one_message(&format!("{list}.{at}.message"), &message.role, &others, put);
            at += 1;
        }
        for result in results {
            if let Part::ToolResult { id, response } = result {
                let prefix = format!("{list}.{at}.message");
                put(&format!("{prefix}.role"), "tool".into());
                put(&format!("{prefix}.tool_call_id"), id.into());
                put(&format!("{prefix}.content"), plain(response).into());
                at += 1;
            }
        }
    }
}

fn one_message(prefix: &str, role: &str, parts: &[Part<'_>], put: Put<'_>) {
    put(&format!("{prefix}.role"), role.into());
    let is_call = |part: &&Part<'_>| matches!(part, Part::ToolCall { .. });
    for (at, call) in parts.iter().filter(is_call).enumerate() {
        if let Part::ToolCall { id, name, arguments } = call {
            let prefix = format!("{prefix}.tool_calls.{at}.tool_call");
            put(&format!("{prefix}.id"), (*id).into());
            put(&format!("{prefix}.function.name"), (*name).into());
            put(&format!("{prefix}.function.arguments"), plain(arguments).into());
        }
    }
    let contents: Vec<&Part<'_>> = parts.iter().filter(|part| !is_call(part)).collect();
    if let [Part::Text(text)] = contents[..] {
        put(&format!("{prefix}.content"), (*text).into());
        return;
    }
    for (at, content) in contents.into_iter().enumerate() {
        let prefix = format!("{prefix}.contents.{at}.message_content");
        match content {
            Part::Text(text) => {
                put(&format!("{prefix}.type"), "text".into());
                put(&format!("{prefix}.text"), (*text).into());
            }
            Part::Reasoning(text) => {
                put(&format!("{prefix}.type"), "reasoning".into());
                put(&format!("{prefix}.text"), (*text).into());
            }
            Part::Other(part) => other(&prefix, part, put),
            Part::ToolCall { .. } | Part::ToolResult { .. } => {}
        }
    }
}

/// An image, or what OpenInference has no field for, as the JSON of the part.
fn other(prefix: &str, part: &JsonValue, put: Put<'_>) {
    let field = |name: &str| part[name].as_str();
    let kind = field("modality").or_else(|| field("type")).unwrap_or("text");
    let url = match (field("uri"), field("content")) {
        (Some(uri), _) => Some(uri.to_owned()),
        (None, Some(base64)) if field("type") == Some("blob") => {
            let media_type = field("mime_type").unwrap_or("application/octet-stream");
            Some(format!("data:{media_type};base64,{base64}"))
        }
        _ => None,
    };
    match (kind, url) {
        ("image", Some(url)) => {
            put(&format!("{prefix}.type"), "image".into());
            put(&format!("{prefix}.image.image.url"), url.into());
        }
        _ => {
            put(&format!("{prefix}.type"), "text".into());
            put(&format!("{prefix}.text"), part.to_string().into());
        }
    }
}

/// `input.value` or `output.value`: the text of a message, and its JSON if it has none.
pub(super) fn summary(direction: &str, message: Option<&Message>, put: Put<'_>) {
    let Some(message) = message else { return };
    let text = message.text();
    let of_part = |part| match part {
        Part::ToolResult { response, .. } => Some(plain(response)),
        Part::ToolCall { name, arguments, .. } => Some(json!({ "name": name, "arguments": arguments }).to_string()),
        Part::Text(_) | Part::Reasoning(_) | Part::Other(_) => None,
    };
    let shown = if text.is_empty() { message.parts().find_map(of_part).unwrap_or_default() } else { text };
    if !shown.is_empty() {
        value(direction, &shown, put);
    }
}

pub(super) fn value(direction: &str, text: &str, put: Put<'_>) {
    let is_json = text.starts_with(['{', '[']) && serde_json::from_str::<JsonValue>(text).is_ok();
    put(&format!("{direction}.value"), text.into());
    put(&format!("{direction}.mime_type"), if is_json { "application/json" } else { "text/plain" }.into());
}

/// A text as it is, anything else as JSON.
fn plain(value: &JsonValue) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
