//! Gemini's generateContent, from Google AI and Vertex: whole, as server-sent events, or as one list in pieces.

use super::format::{ApiFormat, CallRequest};
use super::parts;
use crate::llm::api::endpoint::Streaming;
use crate::llm::call::LlmCall;
use crate::llm::message::{Message, Modality, Part};
use crate::llm::usage::Usage;
use crate::wire::json::Json;
use std::borrow::Cow;

/// The format of generateContent and streamGenerateContent.
pub(crate) struct Gemini;

impl ApiFormat for Gemini {
    fn request(&self, request: &CallRequest<'_>, call: &mut LlmCall) {
        let body = request.body;
        let config = body.any(&["generationConfig", "generation_config"]);
        let number = |names: [&str; 2]| config.any(&names).float();
        call.request.model = request.model.map(str::to_owned);
        call.request.stream = request.streaming == Streaming::Always;
        call.request.temperature = number(["temperature", "temperature"]);
        call.request.top_p = number(["topP", "top_p"]);
        call.request.top_k = number(["topK", "top_k"]);
        call.request.seed = config.get("seed").int();
        call.request.presence_penalty = number(["presencePenalty", "presence_penalty"]);
        call.request.frequency_penalty = number(["frequencyPenalty", "frequency_penalty"]);
        call.request.max_tokens = config.any(&["maxOutputTokens", "max_output_tokens"]).int();
        call.request.stop = parts::texts(config.any(&["stopSequences", "stop_sequences"]));
        call.request.choice_count =
            config.any(&["candidateCount", "candidate_count"]).int().filter(|count| *count != 1);
        let mime = config.any(&["responseMimeType", "response_mime_type"]).text();
        call.request.output_type = mime.map(|mime| if mime == "application/json" { "json" } else { "text" });
        call.system = content(body.any(&["systemInstruction", "system_instruction"])).parts;
        call.input = body.get("contents").list().iter().map(content).collect();
        for tool in body.get("tools").list() {
            let declared = tool.any(&["functionDeclarations", "function_declarations"]);
            if declared.is_null() {
                // A tool that Google runs, such as `{"googleSearch": {}}`.
                let name = tool.fields().first().map_or("", |(name, _)| name);
                let kind = (Cow::Borrowed("type"), Json::Text(Cow::Owned(name.to_owned())));
                call.tools.push(Json::Object(vec![kind.clone(), (Cow::Borrowed("name"), kind.1)]));
            }
            call.tools.extend(parts::tools(declared));
        }
    }

    fn response(&self, body: &Json<'_>, call: &mut LlmCall) {
        self.event("", body, call);
    }

    fn event(&self, _: &str, data: &Json<'_>, call: &mut LlmCall) -> bool {
        call.response_id = data.get("responseId").word().or(call.response_id.take());
        call.response_model = data.get("modelVersion").word().or(call.response_model.take());
        call.usage.update(usage(data.get("usageMetadata")));
        let mut moved = false;
        for candidate in data.get("candidates").list() {
            let into = call.choice(candidate.get("index").int().unwrap_or(0));
            for part in content(candidate.get("content")).parts {
                moved = true;
                match part {
                    Part::Text { content } => into.push_text(&content),
                    Part::Reasoning { content } => into.push_reasoning(&content),
                    other => into.parts.push(other),
                }
            }
            if let Some(reason) = candidate.get("finishReason").word() {
                into.finish_reason = Some(reason);
            }
        }
        if let Some(reason) = data.at(&["promptFeedback", "blockReason"]).word() {
            call.choice(0).finish_reason = Some(reason);
        }
        // No event ends a stream; the finish reason comes last.
        call.ended |= !call.choices.is_empty() && call.choices.iter().all(|choice| choice.finish_reason.is_some());
        moved
    }
}

fn content(json: &Json<'_>) -> Message {
    let role = match json.get("role").text() {
        Some("model") => "assistant",
        Some("function") => "tool",
        Some(role) => role,
        None => "user",
    };
    let parts = match json {
        Json::Text(text) => vec![Part::text(text.clone())],
        _ => json.get("parts").list().iter().map(part).collect(),
    };
    Message { role: role.to_owned(), parts, ..Message::default() }
}

fn part(json: &Json<'_>) -> Part {
    let call = json.any(&["functionCall", "function_call"]);
    let response = json.any(&["functionResponse", "function_response"]);
    let (inline, file) = (json.any(&["inlineData", "inline_data"]), json.any(&["fileData", "file_data"]));
    let mime_type = |json: &Json<'_>| json.any(&["mimeType", "mime_type"]).word();
    if let Some(text) = json.get("text").text() {
        return match json.get("thought").bool() {
            Some(true) => Part::Reasoning { content: text.to_owned() },
            _ => Part::text(text),
        };
    }
    if !call.is_null() {
        let name = call.get("name").word().unwrap_or_default();
        return Part::ToolCall { id: call.get("id").word(), name, arguments: call.get("args").clone().into_owned() };
    }
    if !response.is_null() {
        let id = response.any(&["id", "name"]).word();
        return Part::ToolCallResponse { id, response: response.get("response").clone().into_owned() };
    }
    if !inline.is_null() {
        let mime_type = mime_type(inline);
        let modality = Modality::of_mime_type(mime_type.as_deref());
        return Part::Blob { modality, mime_type, content: inline.get("data").word().unwrap_or_default() };
    }
    if !file.is_null() {
        let mime_type = mime_type(file);
        let uri = file.any(&["fileUri", "file_uri"]).word().unwrap_or_default();
        return Part::Uri { modality: Modality::of_mime_type(mime_type.as_deref()), mime_type, uri };
    }
    Part::Other(json.clone().into_owned())
}

/// Tokens used. Gemini's `candidatesTokenCount` does not include reasoning; the conventions' count does.
fn usage(usage: &Json<'_>) -> Usage {
    let number = |name: &str| usage.get(name).int();
    let sum = |a: Option<i64>, b: Option<i64>| a.or(b).map(|_| a.unwrap_or(0).saturating_add(b.unwrap_or(0)));
    Usage {
        input: sum(number("promptTokenCount"), number("toolUsePromptTokenCount")),
        output: sum(number("candidatesTokenCount"), number("thoughtsTokenCount")),
        cache_read: number("cachedContentTokenCount"),
        cache_write: None,
        reasoning: number("thoughtsTokenCount"),
    }
}
