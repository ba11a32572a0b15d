//! A chat completion, whole or in chunks, as consecutive blocks: reasoning, text, tool calls.
//!
//! A whole response is read as one chunk, so that both forms give the same result. The client's API is not known here.

use super::blocks::{Block, BlockEvent, BlockKind, Blocks};
use super::chat_usage::ChatUsage;
use super::untranslatable::{Untranslatable, untranslatable};
use crate::llm::api::error::ApiErrorKind;
use crate::llm::json_object::text_of;
use crate::wire::json::{Json, parse};
use serde_json::value::RawValue;

/// Writes responses in one API's format. For a stream, `event` is called for each event in order, and then `end` or `fail`
/// once.
pub(super) trait ResponseWriter: Send + Sync {
    /// A whole response.
    fn whole<'a>(&'a self, response: &'a ChatResponse) -> Json<'a>;
    /// The next event of a stream. `response` may be ahead of it by the rest of the same chunk.
    fn event(&mut self, response: &ChatResponse, event: &BlockEvent, out: &mut Vec<u8>);
    /// The end of a complete stream.
    fn end(&mut self, response: &ChatResponse, out: &mut Vec<u8>);
    /// The end of a stream that is not complete.
    fn fail(&mut self, response: &ChatResponse, kind: ApiErrorKind, message: &str, out: &mut Vec<u8>);
}

/// The reason for the end of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FinishReason {
    /// The model ended it, or a stop sequence did.
    Stop,
    /// The model calls tools.
    ToolCalls,
    /// It reached its limit of tokens.
    Length,
    /// A filter ended it.
    ContentFilter,
}

/// Whether the client gets the reasoning of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reasoning {
    /// The client gets it.
    Shown,
    /// Reasoning is left out.
    #[default]
    Hidden,
}

impl Reasoning {
    /// Shown to a client that wants it.
    pub(super) fn shown_if(is_wanted: bool) -> Self {
        if is_wanted { Self::Shown } else { Self::Hidden }
    }
}

/// A response, as much of it as has come.
#[derive(Debug, Default)]
pub(super) struct ChatResponse {
    /// The id of the chat completion.
    pub(super) id: String,
    /// The model; the one that the request names, until the response names one.
    pub(super) model: String,
    /// The time of its creation, in seconds since 1970.
    pub(super) created: i64,
    /// The stop sequence that ended it.
    pub(super) stop: Option<String>,
    /// The tokens used, from the last event that counts them.
    pub(super) usage: ChatUsage,
    reasoning: Reasoning,
    finish_reason: Option<FinishReason>,
    started: bool,
    blocks: Blocks,
    tool_calls: Vec<StreamedToolCall>,
}

/// A tool call that comes in pieces.
#[derive(Debug, Default)]
struct StreamedToolCall {
    index: i64,
    id: String,
    // None until its name is known.
    block: Option<usize>,
    // Arguments that came before the name.
    pending_arguments: String,
}

impl ChatResponse {
    /// A response of which nothing has come.
    pub(super) fn new(model: &str, reasoning: Reasoning) -> Self {
        Self { model: model.to_owned(), reasoning, ..Self::default() }
    }

    /// A whole response.
    pub(super) fn whole(chat: &Json<'_>, model: &str, reasoning: Reasoning) -> Result<Self, Untranslatable> {
        let mut response = Self::new(model, reasoning);
        response.push_chunk(chat)?;
        if chat.get("choices").list().is_empty() {
            return Err(untranslatable("choices", "the backend sent no choice"));
        }
        response.complete()?;
        Ok(response)
    }

    /// Its blocks, in order.
    pub(super) fn blocks(&self) -> &[Block] {
        self.blocks.list()
    }

    /// True once the backend has sent a finish reason.
    pub(super) fn has_finish_reason(&self) -> bool {
        self.finish_reason.is_some()
    }

    /// The reason for the end. Where a tool call was required, vLLM says `stop`.
    pub(super) fn finish_reason(&self) -> FinishReason {
        match self.finish_reason {
            None | Some(FinishReason::Stop) if !self.tool_calls.is_empty() => FinishReason::ToolCalls,
            reason => reason.unwrap_or(FinishReason::Stop),
        }
    }

    /// True for the block that the limit of tokens ended.
    pub(super) fn is_truncated(&self, block: usize) -> bool {
        self.finish_reason == Some(FinishReason::Length) && block + 1 == self.blocks.list().len()
    }

    /// The arguments of a tool call, for APIs that have them as an object. A model also writes other things, or is cut off:
    /// then the object is empty, as in the services of these APIs, and the agent gets the rest of the response. An object with
    /// half of a surrogate pair is passed on as the model wrote it.
    pub(super) fn arguments(&self, block: usize) -> Json<'_> {
        let text = self.blocks.list().get(block).map_or("", |block| block.text.trim());
        match parse(text.as_bytes()) {
            Ok(object @ Json::Object(_)) => object,
            Err(_) if text.starts_with('{') && serde_json::from_str::<&RawValue>(text).is_ok() => {
                Json::Raw(text.into())
            }
            _ => Json::Object(Vec::new()),
        }
    }

    /// Adds a chunk of a stream, or a whole response, and gives the events that follow from it.
    pub(super) fn push_chunk(&mut self, chunk: &Json<'_>) -> Result<Vec<BlockEvent>, Untranslatable> {
        if let Some(error) = error_of(chunk) {
            return Err(untranslatable("error", &error));
        }
        if self.id.is_empty() {
            self.id = chunk.get("id").word().unwrap_or_default();
            self.created = chunk.get("created").int().unwrap_or_default();
        }
        if let Some(model) = chunk.get("model").word() {
            self.model = model;
        }
        self.start();
        self.usage.update(chunk.get("usage"));
        // Requests for more than one choice are not translated.
        let first = |choice: &&Json<'_>| choice.get("index").int().unwrap_or(0) == 0;
        if let Some(choice) = chunk.get("choices").list().iter().find(first) {
            self.read_message(choice.any(&["delta", "message"]))?;
            if let Some(reason) = choice.get("finish_reason").word() {
                self.finish_reason = Some(finish_reason(&reason)?);
                // A number is the id of the model's end-of-sequence token.
                self.stop = choice.any(&["stop_reason", "matched_stop"]).word();
                self.blocks.close_all();
            }
        }
        Ok(self.blocks.take_events())
    }

    /// Ends the response, and gives the events that follow from it.
    pub(super) fn complete(&mut self) -> Result<Vec<BlockEvent>, Untranslatable> {
        self.start();
        if let Some(at) = self.tool_calls.iter().position(|call| call.block.is_none()) {
            let place = format!("choices[0].message.tool_calls[{at}].function.name");
            return Err(untranslatable(&place, "the backend sent no function name"));
        }
        self.blocks.close_all();
        Ok(self.blocks.take_events())
    }

    fn start(&mut self) {
        if !self.started {
            self.started = true;
            self.blocks.start();
        }
    }

    /// Reads a message, or the next piece of one.
    fn read_message(&mut self, message: &Json<'_>) -> Result<(), Untranslatable> {
        // vLLM has both names; some versions send the same text under each.
        let reasoning = ["reasoning_content", "reasoning"].iter().find_map(|name| message.get(name).word());
        let reasoning = reasoning.filter(|_| self.reasoning == Reasoning::Shown);
        self.blocks.append_or_open(BlockKind::Reasoning, &reasoning.unwrap_or_default())?;
        self.blocks.append_or_open(BlockKind::Text, &plain_text(message.get("content")))?;
        self.blocks.append_or_open(BlockKind::Text, message.get("refusal").text().unwrap_or_default())?;
        (0..).zip(message.get("tool_calls").list()).try_for_each(|(place, piece)| self.read_tool_call(place, piece))
    }

    /// Reads a tool call, or a piece of one: id and name come first, then the arguments.
    fn read_tool_call(&mut self, place: i64, piece: &Json<'_>) -> Result<(), Untranslatable> {
        let function = piece.get("function");
        let (id, name) = (piece.get("id").word(), function.get("name").word());
        let index = piece.get("index").int().unwrap_or(place);
        // Some backends give every call index 0: a name with another id begins another call.
        let is_another = |call: &StreamedToolCall| {
            call.block.is_some() && name.is_some() && id.as_ref().is_some_and(|id| *id != call.id)
        };
        let known = self.tool_calls.iter().rposition(|call| call.index == index && !is_another(call));
        let at = known.unwrap_or(self.tool_calls.len());
        if known.is_none() {
            self.tool_calls.push(StreamedToolCall { index, ..StreamedToolCall::default() });
        }
        let Some(call) = self.tool_calls.get_mut(at) else { return Ok(()) };
        if call.id.is_empty() {
            call.id = id.unwrap_or_default();
        }
        match function.get("arguments") {
            Json::Null => {}
            Json::Text(text) => call.pending_arguments.push_str(text),
            // Some endpoints send an object.
            other => call.pending_arguments.push_str(&text_of(other)),
        }
        if let (None, Some(name)) = (call.block, name) {
            if call.id.is_empty() {
                call.id = format!("call_{at}");
            }
            call.block = Some(self.blocks.open(BlockKind::ToolCall { id: call.id.clone(), name }));
        }
        match call.block {
            Some(block) => self.blocks.append(block, &std::mem::take(&mut call.pending_arguments)),
            None => Ok(()),
        }
    }
}

/// Reads a finish reason.
fn finish_reason(reason: &str) -> Result<FinishReason, Untranslatable> {
    match reason {
        "length" => Ok(FinishReason::Length),
        "tool_calls" | "function_call" => Ok(FinishReason::ToolCalls),
        "content_filter" => Ok(FinishReason::ContentFilter),
        // The response is not complete, and no API has a word for that.
        "abort" | "error" => {
            Err(untranslatable("choices[0].finish_reason", &format!("the backend aborted the response: {reason}")))
        }
        // Some backends have words of their own, such as `eos_token`.
        _ => Ok(FinishReason::Stop),
    }
}

/// The text of a content: itself, or that of its parts.
fn plain_text(content: &Json<'_>) -> String {
    match content {
        Json::Text(text) => text.clone().into_owned(),
        parts => parts.list().iter().filter_map(|part| part.get("text").text()).collect(),
    }
}

/// The message of an error that a backend sends in place of a response, or of a chunk.
fn error_of(chunk: &Json<'_>) -> Option<String> {
    let error = chunk.get("error");
    let is_error = chunk.get("object").text() == Some("error");
    match error {
        Json::Null if !is_error => None,
        Json::Null => Some(chunk.get("message").word().unwrap_or_else(|| text_of(chunk))),
        error => Some(error.get("message").word().or_else(|| error.word()).unwrap_or_else(|| text_of(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::blocks::BlockEvent::{Appended, Closed, Opened, Started};
    use super::*;
    use serde_json::json;

    fn events(chunks: &[&str]) -> (ChatResponse, Vec<BlockEvent>) {
        let mut response = ChatResponse::new("asked", Reasoning::Shown);
        let mut events = Vec::new();
        for chunk in chunks {
            events.extend(response.push_chunk(&parse(chunk.as_bytes()).unwrap()).unwrap());
        }
        (response, events)
    }

    fn appended(block: usize, text: &str) -> BlockEvent {
        Appended(block, text.to_owned())
    }

    #[test]
    fn blocks_follow_each_other() {
        let (response, events) = events(&[
            r#"{"id":"1","model":"m","created":7,"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"choices":[{"delta":{"reasoning":"th","reasoning_content":"th"}}]}"#,
            r#"{"choices":[{"delta":{"reasoning_content":"ink"}}]}"#,
            r#"{"choices":[{"delta":{"content":"hi"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"b","function":{"name":"g"}}]}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop","stop_reason":151645}]}"#,
            r#"{"choices":null,"usage":{"prompt_tokens":5,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":2}}}"#,
        ]);
        let expected = [
            Started,
            Opened(0),
            appended(0, "th"),
            appended(0, "ink"),
            Closed(0),
            Opened(1),
            appended(1, "hi"),
            Closed(1),
            Opened(2),
            appended(2, "{}"),
            Closed(2),
            Opened(3),
            Closed(3),
        ];
        assert_eq!(events, expected);
        assert_eq!((response.finish_reason(), &response.stop, response.created), (FinishReason::ToolCalls, &None, 7));
        assert_eq!(response.usage, ChatUsage { input: 5, cached: 2, output: 4, reasoning: 0 });
        assert_eq!((response.id.as_str(), response.model.as_str()), ("1", "m"));
    }

    #[test]
    fn pieces_of_calls_that_come_in_turns_find_theirs() {
        let (response, _) = events(&[
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{"}},{"index":1,"id":"b"}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"function":{"name":"g","arguments":"[1"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}},{"index":1,"function":{"arguments":"]"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"h","arguments":"{}"}}]}}]}"#,
        ]);
        let texts: Vec<&str> = response.blocks().iter().map(|block| block.text.as_str()).collect();
        assert_eq!(texts, ["{}", "[1]", "{}"]);
        assert_eq!([0, 1].map(|block| text_of(&response.arguments(block))), ["{}", "{}"]);
    }

    #[test]
    fn arguments_are_passed_on_as_the_model_wrote_them() {
        for arguments in [
            r#"{"n":9223372036854775808,"m":-170141183460469231731687303715884105728,"x":0.1}"#,
            r#"{"cut":"\ud83d","n":1}"#,
        ] {
            let call = json!({ "index": 0, "id": "a", "function": { "name": "f", "arguments": arguments } });
            let chunk = json!({ "choices": [{ "delta": { "tool_calls": [call] } }] }).to_string();
            let (response, _) = events(&[&chunk]);
            assert_eq!(text_of(&response.arguments(0)), arguments);
        }
    }

    #[test]
    fn errors_are_no_responses() {
        for (chat, place) in [
            (r#"{"error":{"message":"full"}}"#, "error"),
            (r#"{"object":"error","message":"full"}"#, "error"),
            (r#"{"choices":[]}"#, "choices"),
            (r#"{"choices":[{"message":{},"finish_reason":"abort"}]}"#, "choices[0].finish_reason"),
            (
                r#"{"choices":[{"message":{"tool_calls":[{"function":{"arguments":"{}"}}]}}]}"#,
                "choices[0].message.tool_calls[0].function.name",
            ),
        ] {
            assert_eq!(
                ChatResponse::whole(&parse(chat.as_bytes()).unwrap(), "m", Reasoning::Shown).unwrap_err().place,
                place,
                "{chat}"
            );
        }
    }
}
