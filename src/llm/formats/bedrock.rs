//! Amazon Bedrock's Converse, and the events within events of its other streams.

use super::format::{ApiFormat, CallRequest};
use super::parts;
use crate::llm::api::endpoint::Streaming;
use crate::llm::call::LlmCall;
use crate::llm::message::{Message, Modality, Part};
use crate::llm::usage::Usage;
use crate::wire::json::{Json, parse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// The format of Converse, whole and streamed.
pub(crate) struct Converse;

impl ApiFormat for Converse {
    fn request(&self, request: &CallRequest<'_>, call: &mut LlmCall) {
        let body = request.body;
        let config = body.get("inferenceConfig");
        call.request.model = request.model.map(str::to_owned);
        call.request.stream = request.streaming == Streaming::Always;
        call.request.temperature = config.get("temperature").float();
        call.request.top_p = config.get("topP").float();
        call.request.max_tokens = config.get("maxTokens").int();
        call.request.stop = parts::texts(config.get("stopSequences"));
        call.system = content(body.get("system"));
        call.input = body.get("messages").list().iter().map(message).collect();
        for tool in body.at(&["toolConfig", "tools"]).list() {
            call.tools.push(definition(tool.get("toolSpec")));
        }
    }

    fn response(&self, body: &Json<'_>, call: &mut LlmCall) {
        let message = message(body.at(&["output", "message"]));
        call.usage = usage(body.get("usage"));
        let choice = call.choice(0);
        (choice.role, choice.parts) = (Some(message.role), message.parts);
        choice.finish_reason = body.get("stopReason").word();
    }

    fn event(&self, name: &str, data: &Json<'_>, call: &mut LlmCall) -> bool {
        let key = data.get("contentBlockIndex").int().unwrap_or(0);
        match name {
            "messageStart" => call.choice(0).role = data.get("role").word(),
            "contentBlockStart" => {
                let tool = data.at(&["start", "toolUse"]);
                if !tool.is_null() {
                    call.choice(0).push_call(key, tool.get("toolUseId").word(), tool.get("name").text(), "");
                }
            }
            "contentBlockDelta" => {
                let delta = data.get("delta");
                let choice = call.choice(0);
                if let Some(text) = delta.get("text").text() {
                    choice.push_text(text);
                } else if let Some(input) = delta.at(&["toolUse", "input"]).text() {
                    choice.push_call(key, None, None, input);
                } else if let Some(text) = delta.at(&["reasoningContent", "text"]).text() {
                    choice.push_reasoning(text);
                }
                return true;
            }
            "messageStop" => call.choice(0).finish_reason = data.get("stopReason").word(),
            "metadata" => call.usage = usage(data.get("usage")),
            _ => {}
        }
        false
    }
}

/// The event within an event of `invoke-with-response-stream`: `{"bytes": BASE64}`. `None`: there is none within it.
pub(super) fn inner_event(payload: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(parse(payload).ok()?.get("bytes").text()?).ok()
}

fn message(json: &Json<'_>) -> Message {
    let role = json.get("role").text().unwrap_or_default().to_owned();
    Message { role, parts: content(json.get("content")), ..Message::default() }
}

fn content(json: &Json<'_>) -> Vec<Part> {
    json.list().iter().map(part).collect()
}

fn part(json: &Json<'_>) -> Part {
    let (tool, result, image) = (json.get("toolUse"), json.get("toolResult"), json.get("image"));
    if let Some(text) = json.get("text").text() {
        return Part::text(text);
    }
    if let Some(text) = json.at(&["reasoningContent", "reasoningText", "text"]).text() {
        return Part::Reasoning { content: text.to_owned() };
    }
    if !tool.is_null() {
        let name = tool.get("name").word().unwrap_or_default();
        return Part::ToolCall {
            id: tool.get("toolUseId").word(),
            name,
            arguments: tool.get("input").clone().into_owned(),
        };
    }
    if !result.is_null() {
        let response = match result.get("content").list() {
            [one] if one.has("text") => one.get("text").clone(),
            [one] if one.has("json") => one.get("json").clone(),
            _ => result.get("content").clone(),
        };
        return Part::ToolCallResponse { id: result.get("toolUseId").word(), response: response.into_owned() };
    }
    if let Some(content) = image.at(&["source", "bytes"]).word() {
        let mime_type = image.get("format").text().map(|format| format!("image/{format}"));
        return Part::Blob { mime_type, modality: Modality::Image, content };
    }
    Part::Other(json.clone().into_owned())
}

fn definition(spec: &Json<'_>) -> Json<'static> {
    let field = |name: &'static str, value: &Json<'_>| (Cow::Borrowed(name), value.clone().into_owned());
    let mut fields =
        vec![(Cow::Borrowed("type"), Json::Text(Cow::Borrowed("function"))), field("name", spec.get("name"))];
    if spec.has("description") {
        fields.push(field("description", spec.get("description")));
    }
    fields.push(field("parameters", spec.at(&["inputSchema", "json"])));
    Json::Object(fields)
}

fn usage(usage: &Json<'_>) -> Usage {
    let number = |name: &str| usage.get(name).int();
    Usage {
        input: number("inputTokens"),
        output: number("outputTokens"),
        cache_read: number("cacheReadInputTokens"),
        cache_write: number("cacheWriteInputTokens"),
        reasoning: None,
    }
}
