//! The call that every format is read into: request, choices, token ids.
//!
//! Messages have the shapes of OpenTelemetry's GenAI conventions (v1.41.1). No API's field names are known here.

pub(crate) use super::unread_part::UnreadPart;

use super::message::{Message, Part, arguments_of_text, finish_reason};
use crate::llm::operation::Operation;
use crate::llm::token_ids::tokens::Tokens;
use crate::llm::usage::Usage;
use crate::wire::json::Json;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// One call of a model or tool.
#[derive(Clone, Debug, Default)]
pub struct LlmCall {
    /// What the endpoint does.
    pub operation: Operation,
    /// `gen_ai.provider.name`: `openai`, `vllm` … Set last, when the whole exchange was read.
    pub provider: Cow<'static, str>,
    /// The provider that a response shows by a field of its own, if any does.
    pub shown_provider: Option<&'static str>,
    /// The name of the API, such as `openai.chat`.
    pub api: &'static str,
    /// The request's parameters.
    pub request: Parameters,
    /// System instructions, where the API has a field of its own for them; elsewhere they are messages of `input`.
    pub system: Vec<Part>,
    /// The messages of the prompt.
    pub input: Vec<Message>,
    /// The tools that the model may call, as `{type, name, description, parameters}`.
    pub tools: Vec<Json<'static>>,
    /// The response's id.
    pub response_id: Option<String>,
    /// The model as the response names it.
    pub response_model: Option<String>,
    /// Tokens used, as the endpoint counts them.
    pub usage: Usage,
    /// The choices, in the order of their index. At most 1024; more are noted in `unread`.
    pub choices: Vec<Choice>,
    /// The prompt's token ids, where the response has them once for all choices.
    pub prompt_ids: Tokens,
    /// The token ids of each prompt, where the request has several: at most 1024. The choices have them once both are read.
    pub prompts_ids: Vec<Tokens>,
    /// The versions of the weights, in the order in which the response names them; more than one when the weights changed
    /// while it was sampled.
    pub weight_versions: Vec<String>,
    /// The first token that each of them sampled, where the response says it.
    pub weight_version_starts: Vec<i64>,
    /// The endpoint's error, in the response or within a stream: type and message. Either may be empty.
    pub error: Option<(String, String)>,
    /// True when the response came in events.
    pub streamed: bool,
    /// True once the end of the response was seen: the event that ends a stream, or a whole body.
    pub ended: bool,
    /// True for a stream of an API of which some servers leave out the event that ends it; see [`Self::end_with_body`].
    pub may_lack_end: bool,
    /// Events that advanced the answer.
    pub chunks: u64,
    /// What could not be read, each once.
    pub unread: Vec<UnreadPart>,
    /// MCP: the request and its result.
    pub tool: Option<ToolUse>,
    /// The caller's `traceparent`, where the body has one (MCP).
    pub traceparent: Option<String>,
    /// Attributes that only one API has, such as `openai.response.service_tier`.
    pub extras: Vec<(&'static str, String)>,
}

/// The parameters of a request. `None` and empty where the request does not set them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// The model's name, from the body or the path.
    pub model: Option<String>,
    /// True when the response is to come in events.
    pub stream: bool,
    /// The sampling temperature.
    pub temperature: Option<f64>,
    /// The probability mass to sample from (nucleus sampling).
    pub top_p: Option<f64>,
    /// The number of most probable tokens to sample from.
    pub top_k: Option<f64>,
    /// The penalty of tokens by how often they occurred.
    pub frequency_penalty: Option<f64>,
    /// The penalty of tokens that occurred at all.
    pub presence_penalty: Option<f64>,
    /// The seed of the sampling.
    pub seed: Option<i64>,
    /// The limit of the answer's length, in tokens.
    pub max_tokens: Option<i64>,
    /// The texts at which sampling stops.
    pub stop: Vec<String>,
    /// The number of choices; `None` for one.
    pub choice_count: Option<i64>,
    /// `gen_ai.output.type`: `text` or `json`.
    pub output_type: Option<&'static str>,
    /// The reasoning effort, in the API's word.
    pub reasoning_level: Option<String>,
    /// Numbers and flags that the sampling depends on, as requested, or as the engine reports them.
    pub sampling: BTreeMap<&'static str, serde_json::Value>,
    /// The stored response that this one continues.
    pub previous_response_id: Option<String>,
    /// The conversation that the endpoint keeps.
    pub conversation_id: Option<String>,
    /// Embeddings: dimensions of a vector.
    pub dimensions: Option<i64>,
    /// Embeddings: encodings of the vectors.
    pub encoding_formats: Vec<String>,
    /// True when the request, as it was sent on, asks for token ids.
    pub wants_token_ids: bool,
    /// True when the request, as it was sent on, asks for logprobs.
    pub wants_logprobs: bool,
    /// True when nothing is to be sampled (`"generate": false`).
    pub is_warmup: bool,
    /// The first token of which routed experts are requested, if not the first of the prompt.
    pub first_expert_row: Option<i64>,
}

/// One of the answers to a prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// The index that the endpoint gives it.
    pub index: i64,
    /// The role of the message; usually `assistant`.
    pub role: Option<String>,
    /// The parts of the message that have come.
    pub parts: Vec<Part>,
    /// The reason for the end, in the endpoint's word. `None` until it has come.
    pub finish_reason: Option<String>,
    /// Its token ids and logprobs.
    pub tokens: Tokens,
    /// The prompt's token ids, where each choice has its own.
    pub prompt_ids: Tokens,
    /// Tokens used for it, where the endpoint counts each choice alone.
    pub usage: Usage,
    // Tool calls with incomplete arguments: the stream's key, the index of the part, the text so far.
    open_calls: Vec<(i64, usize, String)>,
    // Indexes of parts by the key that the stream gives them.
    blocks: Vec<(i64, usize)>,
}

impl Choice {
    /// Adds text to the last part, or as a new one.
    pub fn push_text(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(Part::Text { content }) => content.push_str(text),
            _ if text.is_empty() => {}
            _ => self.parts.push(Part::text(text)),
        }
    }

    /// Adds reasoning to the last part, or as a new one.
    pub fn push_reasoning(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(Part::Reasoning { content }) => content.push_str(text),
            _ if text.is_empty() => {}
            _ => self.parts.push(Part::Reasoning { content: text.to_owned() }),
        }
    }

    /// Adds to the tool call to which the stream gives this key. Beyond 1024 calls, new ones are ignored.
    pub fn push_call(&mut self, key: i64, id: Option<String>, name: Option<&str>, arguments: &str) {
        let at = match self.open_calls.iter().position(|(open, ..)| *open == key) {
            Some(at) => at,
            None if self.open_calls.len() >= MAX_PARTS => return,
            None => {
                self.parts.push(Part::ToolCall { id: None, name: String::new(), arguments: Json::Null });
                self.open_calls.push((key, self.parts.len() - 1, String::new()));
                self.open_calls.len() - 1
            }
        };
        let (_, part, text) = &mut self.open_calls[at];
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

    /// Adds a part to which the stream gives this key; see [`Self::block`]. Beyond 1024 of them, new ones are ignored.
    pub fn open_block(&mut self, key: i64, part: Part) {
        if self.blocks.len() >= MAX_PARTS {
            return;
        }
        self.parts.push(part);
        self.blocks.push((key, self.parts.len() - 1));
    }

    /// The part to which the stream gives this key.
    pub fn block(&mut self, key: i64) -> Option<&mut Part> {
        let at = self.blocks.iter().rev().find(|(block, _)| *block == key)?.1;
        self.parts.get_mut(at)
    }

    /// Ends the choice: arguments that came in pieces are parsed.
    pub fn close(&mut self) {
        for (_, at, text) in self.open_calls.drain(..) {
            if let Some(Part::ToolCall { arguments, .. }) = self.parts.get_mut(at)
                && !text.is_empty()
            {
                *arguments = arguments_of_text(&text);
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
            finish_reason: Some(finish_reason(self.finish_reason.as_deref().unwrap_or("error")).to_owned()),
        }
    }
}

/// The bound on the choices of a call, and on the tool calls and the blocks of a choice. Each event looks through them, so
/// an endpoint that sends more could make reading take long.
pub(super) const MAX_PARTS: usize = 1024;

/// A request over MCP, usually a tool call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolUse {
    /// The method, such as `tools/call`.
    pub method: String,
    /// The name of the tool, prompt or resource.
    pub name: Option<String>,
    /// The id of the JSON-RPC request; `None` for a notification.
    pub id: Option<String>,
    /// The arguments of the request.
    pub arguments: Json<'static>,
    /// The result; null until it has come.
    pub result: Json<'static>,
}

impl LlmCall {
    /// The choice with this index, which is added if it is new. At the bound, an existing one.
    pub fn choice(&mut self, index: i64) -> &mut Choice {
        let at = match self.choices.binary_search_by_key(&index, |choice| choice.index) {
            Ok(at) => at,
            Err(at) if self.choices.len() >= MAX_PARTS => {
                self.mark_unread(UnreadPart::Choices);
                at.min(self.choices.len() - 1)
            }
            Err(at) => {
                self.choices.insert(at, Choice { index, ..Choice::default() });
                at
            }
        };
        &mut self.choices[at]
    }

    /// The response's body ended as HTTP frames it. That ends a stream as well, if its server may leave out the last event and
    /// nothing else is missing: every requested choice has come, and each has its finish reason.
    pub fn end_with_body(&mut self) {
        let requested = self.request.choice_count.and_then(|count| usize::try_from(count).ok()).unwrap_or(1).max(1);
        let is_cut = self.unread.iter().any(|part| [UnreadPart::Response, UnreadPart::ResponseEvent].contains(part));
        self.ended |= self.may_lack_end
            && self.streamed
            && self.error.is_none()
            && !is_cut
            && self.choices.len() >= requested
            && self.choices.iter().all(|choice| choice.finish_reason.is_some());
    }

    /// Adds a version of the weights, unless it is the last one or none. vLLM sends a list of them, each with the first token
    /// that it sampled.
    pub fn add_weight_version(&mut self, version: &Json<'_>) {
        version.list().iter().for_each(|version| self.add_weight_version(version));
        let start = version.get("start").int();
        let version = if version.has("version") { version.get("version") } else { version };
        let version = version.word().or_else(|| version.int().map(|number| number.to_string()));
        if let Some(version) = version
            && self.weight_versions.last() != Some(&version)
        {
            self.weight_versions.push(version);
            self.weight_version_starts.extend(start);
        }
    }

    /// This call, of which only the request was read, with the response that was read into another.
    pub(super) fn with_response(mut self, mut response: Self) -> Self {
        self.request.sampling.append(&mut response.request.sampling);
        let mut call = Self {
            api: self.api,
            operation: self.operation,
            request: self.request,
            system: self.system,
            input: self.input,
            prompts_ids: self.prompts_ids,
            tools: self.tools,
            tool: self.tool,
            traceparent: self.traceparent,
            extras: self.extras,
            unread: self.unread,
            ..response
        };
        for (name, value) in response.extras {
            if call.extras.iter().all(|(known, _)| *known != name) {
                call.extras.push((name, value));
            }
        }
        response.unread.iter().for_each(|part| call.mark_unread(*part));
        if self.prompt_ids.ids.is_some() {
            call.prompt_ids = self.prompt_ids;
        } else {
            call.prompt_ids.issues.extend(self.prompt_ids.issues);
        }
        call
    }

    /// An estimate of the bytes of memory that the response takes.
    pub(super) fn response_bytes(&self) -> usize {
        let choice_bytes = |choice: &Choice| {
            let text = choice.parts.iter().map(Part::memory_bytes).sum::<usize>();
            let open = choice.open_calls.iter().map(|(.., text)| text.capacity()).sum::<usize>();
            choice.tokens.memory_bytes() + choice.prompt_ids.memory_bytes() + text + open
        };
        self.prompt_ids.memory_bytes() + self.choices.iter().map(choice_bytes).sum::<usize>()
    }

    /// Notes, once, that something could not be read.
    pub fn mark_unread(&mut self, part: UnreadPart) {
        if !self.unread.contains(&part) {
            self.unread.push(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_bounded() {
        let mut choice = Choice::default();
        (0..2000).for_each(|key| choice.open_block(key, Part::text("x")));
        assert_eq!(choice.parts.len(), MAX_PARTS);
        assert!(choice.block(1023).is_some() && choice.block(1024).is_none());
    }

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
