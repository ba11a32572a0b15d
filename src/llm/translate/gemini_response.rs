//! Responses in the format of Gemini's generateContent.
//!
//! The agent gets no more than that API has: no token ids, no logprobs.

use super::blocks::{Block, BlockEvent, BlockKind};
use super::chat_response::{ChatResponse, FinishReason, Reasoning, ResponseWriter};
use super::opaque::signature;
use crate::llm::api::error::{ApiErrorKind, google_error};
use crate::llm::json_object::{field, object, text_of, without_nulls, write_data};
use crate::wire::json::Json;

/// Writes responses of Gemini's generateContent.
#[derive(Debug)]
pub(super) struct GeminiWriter {
    // False: a stream is one list, written element by element.
    sse: bool,
    started: bool,
    thoughts: Reasoning,
    // The last block that a stream's part was of: its first part has the signature.
    begun: Option<usize>,
}

impl GeminiWriter {
    /// Writes streams as server-sent events.
    pub(super) fn of_events(thoughts: Reasoning) -> Self {
        Self { sse: true, started: false, thoughts, begun: None }
    }

    /// Writes streams as one list.
    pub(super) fn of_list(thoughts: Reasoning) -> Self {
        Self { sse: false, started: false, thoughts, begun: None }
    }

    fn hides(&self, block: &Block) -> bool {
        self.thoughts == Reasoning::Hidden && block.kind == BlockKind::Reasoning
    }

    fn send(&mut self, data: &Json<'_>, out: &mut Vec<u8>) {
        if self.sse {
            return write_data(data, out);
        }
        let before = if self.started { ",\r\n" } else { "[" };
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(text_of(data).as_bytes());
        self.started = true;
    }

    fn send_last(&mut self, data: &Json<'_>, out: &mut Vec<u8>) {
        self.send(data, out);
        if !self.sse {
            out.extend_from_slice(b"]");
        }
    }
}

impl ResponseWriter for GeminiWriter {
    fn whole<'a>(&'a self, response: &'a ChatResponse) -> Json<'a> {
        let blocks = response.blocks().iter().enumerate().filter(|(_, block)| !self.hides(block));
        let parts = blocks.map(|(index, block)| signed(part(response, index, block, &block.text), response, index));
        generated(response, parts.collect(), Some(response.finish_reason()))
    }

    fn event(&mut self, response: &ChatResponse, event: &BlockEvent, out: &mut Vec<u8>) {
        // Text is sent as it comes, a call when it is complete.
        let (index, text) = match event {
            BlockEvent::Appended(index, text) => (*index, Some(text)),
            BlockEvent::Closed(index) => (*index, None),
            BlockEvent::Started | BlockEvent::Opened(_) => return,
        };
        let Some(block) = response.blocks().get(index).filter(|block| !self.hides(block)) else { return };
        let is_call = matches!(block.kind, BlockKind::ToolCall { .. });
        if is_call == text.is_none() {
            let mut part = part(response, index, block, text.unwrap_or(&block.text));
            if self.begun != Some(index) {
                part = signed(part, response, index);
                self.begun = Some(index);
            }
            self.send(&generated(response, vec![part], None), out);
        }
    }

    fn end(&mut self, response: &ChatResponse, out: &mut Vec<u8>) {
        self.send_last(&generated(response, vec![object! {"text": ""}], Some(response.finish_reason())), out);
    }

    fn fail(&mut self, _reply: &ChatResponse, kind: ApiErrorKind, message: &str, out: &mut Vec<u8>) {
        self.send_last(&google_error(None, kind, message), out);
    }
}

/// A response with these parts; the last one has the finish reason and the usage.
fn generated<'a>(response: &'a ChatResponse, parts: Vec<Json<'a>>, finish: Option<FinishReason>) -> Json<'a> {
    let word = |reason| match reason {
        FinishReason::Stop | FinishReason::ToolCalls => "STOP",
        FinishReason::Length => "MAX_TOKENS",
        FinishReason::ContentFilter => "SAFETY",
    };
    let candidate = object! {
        "content": object! {"parts": parts, "role": "model"},
        "finishReason": finish.map(word),
        "index": 0_i64,
    };
    without_nulls(object! {
        "candidates": vec![without_nulls(candidate)],
        "usageMetadata": finish.map(|_| usage(response)),
        "modelVersion": &response.model,
        "responseId": &response.id,
    })
}

fn part<'a>(response: &'a ChatResponse, index: usize, block: &'a Block, text: &'a str) -> Json<'a> {
    match &block.kind {
        BlockKind::Reasoning => object! {"text": text, "thought": true},
        BlockKind::Text => object! {"text": text},
        BlockKind::ToolCall { id, name } => {
            object! {"functionCall": object! {"id": id, "name": name, "args": response.arguments(index)}}
        }
    }
}

/// A part with the reasoning in front of it as its signature. Clients send signatures back, and some keep no reasoning.
fn signed<'a>(part: Json<'a>, response: &ChatResponse, index: usize) -> Json<'a> {
    let before = index.checked_sub(1).and_then(|before| response.blocks().get(before));
    match (part, before) {
        (Json::Object(mut fields), Some(Block { kind: BlockKind::Reasoning, text, .. })) => {
            fields.push(field("thoughtSignature", signature(text)));
            Json::Object(fields)
        }
        (part, _) => part,
    }
}

/// Tokens of reasoning are not part of `candidatesTokenCount`.
fn usage(response: &ChatResponse) -> Json<'static> {
    let usage = response.usage;
    object! {
        "promptTokenCount": usage.input,
        "cachedContentTokenCount": usage.cached,
        "candidatesTokenCount": usage.visible_output(),
        "thoughtsTokenCount": usage.reasoning,
        "totalTokenCount": usage.total(),
    }
}

#[cfg(test)]
mod tests {
    use crate::llm::translate::SourceApi::Gemini;
    use crate::llm::translate::test_support::{chat, response_to, stream_to};
    use serde_json::{Value, json};

    #[test]
    fn reasoning_comes_back_in_the_signature_of_the_part_behind_it() {
        let call = json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
        for (message, has_text) in [
            (json!({"reasoning_content": "hm", "content": "I look.", "tool_calls": [call]}), true),
            (json!({"reasoning_content": "hm", "tool_calls": [call]}), false),
        ] {
            let answer = json!({"id": "c", "choices": [{"index": 0, "message": message, "delta": message, "finish_reason": "tool_calls"}]});
            for config in [json!({}), json!({"thinkingConfig": {"includeThoughts": true}})] {
                let contents = json!([{"role": "user", "parts": [{"text": "x"}]}]);
                let request = json!({"contents": contents, "generationConfig": config}).to_string();
                let whole = response_to(Gemini, &request, &answer)["candidates"][0]["content"]["parts"].clone();
                let events = stream_to(Gemini, &request, &answer);
                let streamed = events
                    .iter()
                    .flat_map(|event| event["candidates"][0]["content"]["parts"].as_array().unwrap().clone());
                for parts in [whole.as_array().unwrap().clone(), streamed.collect::<Vec<Value>>()] {
                    let is_thought = |part: &&Value| part["thought"] == true;
                    assert_eq!(parts.iter().any(|part| is_thought(&part)), config != json!({}), "{parts:?}");
                    let signed: Vec<&Value> =
                        parts.iter().filter(|part| part["thoughtSignature"].is_string()).collect();
                    assert_eq!(signed.len(), 1);
                    assert_eq!(signed[0]["text"].is_string(), has_text);
                    // Some clients send thoughts back and some do not.
                    for kept in [parts.clone(), parts.iter().filter(|part| !is_thought(part)).cloned().collect()] {
                        let history = json!({"contents": [{"role": "user", "parts": [{"text": "x"}]}, {"role": "model", "parts": kept}]});
                        assert_eq!(chat(Gemini, &history.to_string())["messages"][1]["reasoning_content"], "hm");
                    }
                }
            }
        }
    }
}
