//! What every dialect is read into: one call of a model, its request, its choices, its token ids.
//!
//! Messages have the shapes of OpenTelemetry's GenAI conventions (v1.41.1). It must not know any API's field names.

use super::message::{Message, Part, finish_word, from_text};
use crate::llm::operation::Operation;
use crate::llm::token_ids::tokens::Tokens;
use crate::wire::json::Json;
use std::borrow::Cow;

/// One call.
#[derive(Clone, Debug, Default)]
pub struct LlmCall {
    /// What sort of call.
    pub operation: Operation,
    /// Who serves it (`openai`, `vllm` …).
    pub provider: Cow<'static, str>,
    /// The provider that a response shows by a field of its own, if any does.
    pub shown_provider: Option<&'static str>,
    /// The API, as `openai.chat`.
    pub api: &'static str,
    /// What was asked for.
    pub request: Parameters,
    /// System instructions.
    pub system: Vec<Part>,
    /// The conversation so far.
    pub input: Vec<Message>,
    /// Tools on offer, as `{type, name, description, parameters}`.
    pub tools: Vec<Json<'static>>,
    /// The answer's id.
    pub response_id: Option<String>,
    /// The model that answered.
    pub response_model: Option<String>,
    /// What it cost.
    pub usage: Usage,
    /// The answers, in the order of their index.
    pub choices: Vec<Choice>,
    /// The prompt's token ids, where all choices share one.
    pub prompt_ids: Tokens,
    /// The version of the weights that answered, at each place that says it; they may change under way.
    pub weight_versions: Vec<String>,
    /// The endpoint's error, in the answer or within a stream: type and message.
    pub error: Option<(String, String)>,
    /// True when the answer came in events.
    pub streamed: bool,
    /// True once the end was seen: the event that ends a stream, or a whole answer.
    pub ended: bool,
    /// Events that moved the answer on.
    pub chunks: u64,
    /// Events and bodies that could not be read.
    pub unread: Vec<&'static str>,
    /// A tool call over MCP.
    pub tool: Option<ToolUse>,
    /// The caller's `traceparent`, where the body carries one.
    pub traceparent: Option<String>,
    /// Attributes of one API, such as `openai.response.service_tier`.
    pub extras: Vec<(&'static str, String)>,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// The model.
    pub model: Option<String>,
    /// An answer in events.
    pub stream: bool,
    /// Sampling.
    pub temperature: Option<f64>,
    /// Sampling.
    pub top_p: Option<f64>,
    /// Sampling.
    pub top_k: Option<f64>,
    /// Sampling.
    pub frequency_penalty: Option<f64>,
    /// Sampling.
    pub presence_penalty: Option<f64>,
    /// Sampling.
    pub seed: Option<i64>,
    /// The most tokens of an answer.
    pub max_tokens: Option<i64>,
    /// Where to stop.
    pub stop: Vec<String>,
    /// How many choices, if not one.
    pub choice_count: Option<i64>,
    /// `text`, `json`, `image`, `speech`, if the request says it.
    pub output_type: Option<&'static str>,
    /// How much to think.
    pub reasoning_level: Option<String>,
    /// The answer that this one goes on from.
    pub previous_response_id: Option<String>,
    /// A conversation that the endpoint keeps.
    pub conversation_id: Option<String>,
    /// Dimensions of a vector.
    pub dimensions: Option<i64>,
    /// Encodings of a vector.
    pub encoding_formats: Vec<String>,
    /// True when the request asks for token ids.
    pub wants_token_ids: bool,
    /// True when the request asks for logprobs.
    pub wants_logprobs: bool,
}

/// Tokens used, by the convention: input includes what was cached, output what was thought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input: Option<i64>,
    /// Tokens of all choices.
    pub output: Option<i64>,
    /// Of the input, read from a cache.
    pub cache_read: Option<i64>,
    /// Of the input, written to a cache.
    pub cache_write: Option<i64>,
    /// Of the output, thought.
    pub reasoning: Option<i64>,
}

impl Usage {
    /// Takes what is newer; what it does not say stays.
    pub fn update(&mut self, newer: Self) {
        self.input = newer.input.or(self.input);
        self.output = newer.output.or(self.output);
        self.cache_read = newer.cache_read.or(self.cache_read);
        self.cache_write = newer.cache_write.or(self.cache_write);
        self.reasoning = newer.reasoning.or(self.reasoning);
    }
}

/// One answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// Its index.
    pub index: i64,
    /// Usually `assistant`.
    pub role: Option<String>,
    /// What it consists of so far.
    pub parts: Vec<Part>,
    /// Why it ended, in the endpoint's word.
    pub finish_reason: Option<String>,
    /// Token ids and logprobs.
    pub tokens: Tokens,
    /// The prompt's, where each choice has one.
    pub prompt_ids: Tokens,
    // Tool calls whose arguments are still coming: their key, their part, the text so far.
    open: Vec<(i64, usize, String)>,
    // Parts by the key that a stream names them with.
    blocks: Vec<(i64, usize)>,
}

impl Choice {
    /// More text.
    pub fn push_text(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(Part::Text { content }) => content.push_str(text),
            _ if text.is_empty() => {}
            _ => self.parts.push(Part::text(text)),
        }
    }

    /// More thinking.
    pub fn push_reasoning(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(Part::Reasoning { content }) => content.push_str(text),
            _ if text.is_empty() => {}
            _ => self.parts.push(Part::Reasoning { content: text.to_owned() }),
        }
    }

    /// More of the tool call that the stream calls `key`.
    pub fn push_call(&mut self, key: i64, id: Option<String>, name: Option<&str>, arguments: &str) {
        let at = match self.open.iter().position(|(open, ..)| *open == key) {
            Some(at) => at,
            None if self.open.len() >= MAX_PARTS => return,
            None => {
                self.parts.push(Part::ToolCall { id: None, name: String::new(), arguments: Json::Null });
                self.open.push((key, self.parts.len() - 1, String::new()));
                self.open.len() - 1
            }
        };
        let (_, part, text) = &mut self.open[at];
        text.push_str(arguments);
        if let Some(Part::ToolCall { id: known, name: called, .. }) = self.parts.get_mut(*part) {
            if known.is_none() {
                *known = id;
            }
            if called.is_empty() {
                name.unwrap_or_default().clone_into(called);
            }
        }
    }

    /// A part that the stream calls `key`; more of it comes by the same key.
    pub fn open_block(&mut self, key: i64, part: Part) {
        self.parts.push(part);
        self.blocks.push((key, self.parts.len() - 1));
    }

    /// The part that the stream calls `key`.
    pub fn block(&mut self, key: i64) -> Option<&mut Part> {
        let at = self.blocks.iter().rev().find(|(block, _)| *block == key)?.1;
        self.parts.get_mut(at)
    }

    /// Nothing more comes: arguments that came in pieces are read.
    pub fn close(&mut self) {
        for (_, at, text) in self.open.drain(..) {
            if let Some(Part::ToolCall { arguments, .. }) = self.parts.get_mut(at)
                && !text.is_empty()
            {
                *arguments = from_text(&text);
            }
        }
        self.blocks.clear();
    }

    /// The choice as a message.
    pub fn message(&self) -> Message {
        Message {
            role: self.role.clone().unwrap_or_else(|| "assistant".to_owned()),
            parts: self.parts.clone(),
            name: None,
            finish_reason: Some(finish_word(self.finish_reason.as_deref().unwrap_or("error")).to_owned()),
        }
    }
}

/// Choices of a call, and tool calls of a choice.
const MAX_PARTS: usize = 1024;

/// A tool call over MCP.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolUse {
    /// `mcp.method.name`.
    pub method: String,
    /// The tool, prompt or resource.
    pub name: Option<String>,
    /// The request's id.
    pub id: Option<String>,
    /// What it was called with.
    pub arguments: Json<'static>,
    /// What came back.
    pub result: Json<'static>,
}

impl LlmCall {
    /// The choice with this index.
    pub fn choice(&mut self, index: i64) -> &mut Choice {
        let at = match self.choices.binary_search_by_key(&index, |choice| choice.index) {
            Ok(at) => at,
            // Nobody asks for so many: what an endpoint makes up must not take all our time.
            Err(at) if self.choices.len() >= MAX_PARTS => {
                self.could_not_read("choices");
                at.min(self.choices.len() - 1)
            }
            Err(at) => {
                self.choices.insert(at, Choice { index, ..Choice::default() });
                at
            }
        };
        &mut self.choices[at]
    }

    /// The version of the weights, as some place says it.
    pub fn saw_version(&mut self, version: &Json<'_>) {
        let version = version.word().or_else(|| version.int().map(|number| number.to_string()));
        if let Some(version) = version
            && self.weight_versions.last() != Some(&version)
        {
            self.weight_versions.push(version);
        }
    }

    /// Something could not be read; said once.
    pub fn could_not_read(&mut self, what: &'static str) {
        if !self.unread.contains(&what) {
            self.unread.push(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_calls_become_calls() {
        let mut choice = Choice::default();
        choice.push_text("thinking ");
        choice.push_text("aloud");
        choice.push_call(1, Some("b".into()), Some("second"), "{\"x\":");
        choice.push_call(0, Some("a".into()), Some("first"), "not json");
        choice.push_call(1, None, None, "1}");
        choice.close();
        let written = serde_json::to_string(&choice.message()).unwrap();
        assert_eq!(
            written,
            r#"{"role":"assistant","parts":[{"type":"text","content":"thinking aloud"},{"type":"tool_call","id":"b","name":"second","arguments":{"x":1}},{"type":"tool_call","id":"a","name":"first","arguments":"not json"}],"finish_reason":"error"}"#
        );
    }
}
