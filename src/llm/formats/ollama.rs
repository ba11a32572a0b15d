//! Ollama's native API: NDJSON unless the request says otherwise.

use super::format::{ApiFormat, CallRequest};
use super::parts;
use crate::llm::api::endpoint::Streaming;
use crate::llm::call::LlmCall;
use crate::llm::message::{Message, Modality, Part};
use crate::llm::operation::Operation;
use crate::llm::usage::Usage;
use crate::wire::json::Json;

/// The format of Ollama's chat, completions and embeddings.
pub(crate) struct Ollama;

impl ApiFormat for Ollama {
    fn request(&self, request: &CallRequest<'_>, call: &mut LlmCall) {
        let body = request.body;
        let options = body.get("options");
        call.request = parts::parameters(options);
        call.request.model = body.get("model").word();
        call.request.max_tokens = options.get("num_predict").int();
        call.request.output_type = (!body.get("format").is_null()).then_some("json");
        // It streams unless the request says otherwise.
        call.request.stream = request.streaming == Streaming::ByBody && body.get("stream").bool() != Some(false);
        call.system = parts::content(body.get("system"));
        call.tools = parts::tools(body.get("tools"));
        call.input = body.get("messages").list().iter().map(message).collect();
        if let Some(prompt) = body.get("prompt").word() {
            call.input.push(Message { role: "user".to_owned(), parts: vec![Part::text(prompt)], ..Message::default() });
        }
    }

    fn response(&self, body: &Json<'_>, call: &mut LlmCall) {
        self.event("", body, call);
        call.ended = true;
    }

    fn event(&self, _: &str, data: &Json<'_>, call: &mut LlmCall) -> bool {
        call.response_model = data.get("model").word().or(call.response_model.take());
        call.usage.update(Usage {
            input: data.get("prompt_eval_count").int(),
            output: data.get("eval_count").int(),
            ..Usage::default()
        });
        if call.operation == Operation::Embeddings {
            return false;
        }
        let (mut moved, choice) = (false, call.choice(0));
        let message = data.get("message");
        for (text, is_reasoning) in [
            (message.get("thinking"), true),
            (data.get("thinking"), true),
            (message.get("content"), false),
            (data.get("response"), false),
        ] {
            let text = text.text().unwrap_or_default();
            moved |= !text.is_empty();
            if is_reasoning { choice.push_reasoning(text) } else { choice.push_text(text) }
        }
        for tool in message.get("tool_calls").list() {
            choice.parts.push(parts::tool_call(tool));
            moved = true;
        }
        if data.get("done").bool() == Some(true) {
            choice.finish_reason = data.get("done_reason").word().or_else(|| Some("stop".to_owned()));
            call.ended = true;
        }
        moved
    }
}

/// A message in OpenAI's shape, with images beside the text.
fn message(json: &Json<'_>) -> Message {
    let mut message = parts::chat_message(json);
    for image in json.get("images").list().iter().filter_map(Json::text) {
        message.parts.push(Part::Blob { mime_type: None, modality: Modality::Image, content: image.to_owned() });
    }
    message
}
