//! A chat completion, whole or in pieces, as blocks that follow each other: what was thought, what was said, calls.
//!
//! A whole answer is read as one piece, so that both ways tell the same. It must not know the dialect of the client.

use super::blocks::{Block, Blocks, Event, Kind};
use super::untranslatable::{Untranslatable, refusal};
use crate::llm::api::error::ApiErrorKind;
use crate::llm::json_object::text_of;
use crate::wire::json::{Json, parse};

/// Writes answers in one dialect. Of a stream every event is told in its order, and then once `end` or `fail`.
pub(super) trait Writer: Send + Sync {
    /// A whole answer.
    fn whole<'a>(&self, reply: &'a Reply) -> Result<Json<'a>, Untranslatable>;
    /// The next event of a stream. What was read with it may be in `reply` already.
    fn event(&mut self, reply: &Reply, event: &Event, out: &mut Vec<u8>) -> Result<(), Untranslatable>;
    /// The end of a stream.
    fn end(&mut self, reply: &Reply, out: &mut Vec<u8>);
    /// The end of a stream that is not whole.
    fn fail(&mut self, reply: &Reply, kind: ApiErrorKind, message: &str, out: &mut Vec<u8>);
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// It was said, or a stop text came.
    Stop,
    /// Functions are called.
    Calls,
    /// It became too long.
    Length,
    /// A filter cut it.
    Filter,
}

/// Token counts. Those of the input have the cached ones among them, those of the output the thought ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// What was read.
    pub(super) input: i64,
    /// What of it came from a cache.
    pub(super) cached: i64,
    /// What was written.
    pub(super) output: i64,
    /// What of it was thought.
    pub(super) reasoning: i64,
}

/// An answer as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// Its id, that of the chat completion.
    pub(super) id: String,
    /// The model that answers; the one that was asked for, until the answer says it.
    pub(super) model: String,
    /// When it began, in seconds.
    pub(super) created: i64,
    /// The stop text that ended it.
    pub(super) stop: Option<String>,
    /// Its token counts.
    pub(super) usage: Usage,
    /// The client wants to see what it thought.
    thinks: bool,
    finish: Option<Finish>,
    began: bool,
    blocks: Blocks,
    calls: Vec<Call>,
}

/// A call as the pieces of a stream name it.
#[derive(Debug, Default)]
struct Call {
    index: i64,
    id: String,
    // None until its name is known.
    block: Option<usize>,
    // Arguments that came before.
    waiting: String,
}

impl Reply {
    /// An answer of which nothing is known.
    pub(super) fn new(model: &str, thinks: bool) -> Self {
        Self { model: model.to_owned(), thinks, ..Self::default() }
    }

    /// A whole answer.
    pub(super) fn whole(chat: &Json<'_>, model: &str, thinks: bool) -> Result<Self, Untranslatable> {
        let mut reply = Self::new(model, thinks);
        reply.take(chat)?;
        if chat.get("choices").list().is_empty() {
            return Err(refusal("choices", "the backend gave no answer"));
        }
        reply.conclude()?;
        Ok(reply)
    }

    /// Its parts.
    pub(super) fn blocks(&self) -> &[Block] {
        self.blocks.list()
    }

    /// True once the backend has said why it ended.
    pub(super) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Why it ended. Where calls were demanded, vLLM calls that a stop.
    pub(super) fn finish(&self) -> Finish {
        match self.finish {
            None | Some(Finish::Stop) if !self.calls.is_empty() => Finish::Calls,
            finish => finish.unwrap_or(Finish::Stop),
        }
    }

    /// True for a block that the answer's length cut.
    pub(super) fn is_cut(&self, block: usize) -> bool {
        self.finish == Some(Finish::Length) && block + 1 == self.blocks.list().len()
    }

    /// The arguments of a call, an object.
    pub(super) fn arguments(&self, block: usize) -> Result<Json<'_>, Untranslatable> {
        let text = self.blocks.list().get(block).map_or("", |block| block.text.trim());
        let text = if text.is_empty() { "{}" } else { text };
        match parse(text.as_bytes()) {
            Ok(object @ Json::Object(_)) => Ok(object),
            _ => {
                let calls =
                    self.blocks.list().iter().take(block).filter(|block| matches!(block.kind, Kind::Call { .. }));
                let place = format!("choices[0].message.tool_calls[{}].function.arguments", calls.count());
                Err(refusal(&place, "the model wrote no JSON object"))
            }
        }
    }

    /// Takes in a chunk of a stream, or a whole answer. Says what happened by it.
    pub(super) fn take(&mut self, chunk: &Json<'_>) -> Result<Vec<Event>, Untranslatable> {
        if let Some(error) = error_of(chunk) {
            return Err(refusal("error", &error));
        }
        if self.id.is_empty() {
            self.id = chunk.get("id").word().unwrap_or_default();
            self.created = chunk.get("created").int().unwrap_or_default();
        }
        if let Some(model) = chunk.get("model").word() {
            self.model = model;
        }
        self.begin();
        self.count(chunk.get("usage"));
        // More than one choice is never asked for.
        let first = |choice: &&Json<'_>| choice.get("index").int().unwrap_or(0) == 0;
        if let Some(choice) = chunk.get("choices").list().iter().find(first) {
            self.hear(choice.any(&["delta", "message"]))?;
            if let Some(reason) = choice.get("finish_reason").word() {
                self.finish = Some(finish(&reason)?);
                // A number is the id of a token that ends every answer of the model.
                self.stop = choice.any(&["stop_reason", "matched_stop"]).word();
                self.blocks.close_all();
            }
        }
        Ok(self.blocks.happened())
    }

    /// The end of the answer. Says what happened by it.
    pub(super) fn conclude(&mut self) -> Result<Vec<Event>, Untranslatable> {
        self.begin();
        if let Some(at) = self.calls.iter().position(|call| call.block.is_none()) {
            let place = format!("choices[0].message.tool_calls[{at}].function.name");
            return Err(refusal(&place, "the backend named no function"));
        }
        self.blocks.close_all();
        Ok(self.blocks.happened())
    }

    fn begin(&mut self) {
        if !self.began {
            self.began = true;
            self.blocks.begin();
        }
    }

    fn count(&mut self, usage: &Json<'_>) {
        if usage.is_null() {
            return;
        }
        let number = |path: &[&str]| usage.at(path).int();
        self.usage = Usage {
            input: number(&["prompt_tokens"]).unwrap_or(self.usage.input),
            cached: number(&["prompt_tokens_details", "cached_tokens"]).unwrap_or(self.usage.cached),
            output: number(&["completion_tokens"]).unwrap_or(self.usage.output),
            reasoning: number(&["completion_tokens_details", "reasoning_tokens"])
                .or_else(|| number(&["reasoning_tokens"]))
                .unwrap_or(self.usage.reasoning),
        };
    }

    /// What is in a message, or in the next piece of one.
    fn hear(&mut self, said: &Json<'_>) -> Result<(), Untranslatable> {
        // vLLM has both names, and writes the same under each in some versions.
        let thought = ["reasoning_content", "reasoning"].iter().find_map(|name| said.get(name).word());
        let thought = thought.filter(|_| self.thinks);
        self.blocks.say(Kind::Reasoning, &thought.unwrap_or_default())?;
        self.blocks.say(Kind::Text, &plain_text(said.get("content")))?;
        self.blocks.say(Kind::Text, said.get("refusal").text().unwrap_or_default())?;
        (0..).zip(said.get("tool_calls").list()).try_for_each(|(place, piece)| self.call(place, piece))
    }

    /// A call, or a piece of one: its id and name come first, and then its arguments.
    fn call(&mut self, place: i64, piece: &Json<'_>) -> Result<(), Untranslatable> {
        let function = piece.get("function");
        let (id, name) = (piece.get("id").word(), function.get("name").word());
        let index = piece.get("index").int().unwrap_or(place);
        // Some backends count every call as the first: a name with another id is another call.
        let is_another =
            |call: &Call| call.block.is_some() && name.is_some() && id.as_ref().is_some_and(|id| *id != call.id);
        let known = self.calls.iter().rposition(|call| call.index == index && !is_another(call));
        let at = known.unwrap_or(self.calls.len());
        if known.is_none() {
            self.calls.push(Call { index, ..Call::default() });
        }
        let Some(call) = self.calls.get_mut(at) else { return Ok(()) };
        if call.id.is_empty() {
            call.id = id.unwrap_or_default();
        }
        match function.get("arguments") {
            Json::Null => {}
            Json::Text(text) => call.waiting.push_str(text),
            // Some endpoints give an object.
            other => call.waiting.push_str(&text_of(other)),
        }
        if let (None, Some(name)) = (call.block, name) {
            if call.id.is_empty() {
                call.id = format!("call_{at}");
            }
            call.block = Some(self.blocks.open(Kind::Call { id: call.id.clone(), name }));
        }
        match call.block {
            Some(block) => self.blocks.grow(block, &std::mem::take(&mut call.waiting)),
            None => Ok(()),
        }
    }
}

/// Why it ended, by the word that backends have for it.
fn finish(reason: &str) -> Result<Finish, Untranslatable> {
    match reason {
        "length" => Ok(Finish::Length),
        "tool_calls" | "function_call" => Ok(Finish::Calls),
        "content_filter" => Ok(Finish::Filter),
        // The answer is not whole, and no dialect has a word for it.
        "abort" | "error" => Err(refusal("choices[0].finish_reason", &format!("the backend broke off: {reason}"))),
        // Some backends have more words for it (`eos_token`).
        _ => Ok(Finish::Stop),
    }
}

/// A text, or the texts of a list of parts.
fn plain_text(content: &Json<'_>) -> String {
    match content {
        Json::Text(text) => text.clone().into_owned(),
        parts => parts.list().iter().filter_map(|part| part.get("text").text()).collect(),
    }
}

/// The error that a backend tells in place of an answer, also when that had begun.
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
    use super::super::blocks::Event::{Began, Closed, Grew, Opened};
    use super::*;

    fn events(chunks: &[&str]) -> (Reply, Vec<Event>) {
        let mut reply = Reply::new("asked", true);
        let mut events = Vec::new();
        for chunk in chunks {
            events.extend(reply.take(&parse(chunk.as_bytes()).unwrap()).unwrap());
        }
        (reply, events)
    }

    fn grew(block: usize, text: &str) -> Event {
        Grew(block, text.to_owned())
    }

    #[test]
    fn blocks_follow_each_other() {
        let (reply, events) = events(&[
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
            Began,
            Opened(0),
            grew(0, "th"),
            grew(0, "ink"),
            Closed(0),
            Opened(1),
            grew(1, "hi"),
            Closed(1),
            Opened(2),
            grew(2, "{}"),
            Closed(2),
            Opened(3),
            Closed(3),
        ];
        assert_eq!(events, expected);
        assert_eq!((reply.finish(), &reply.stop, reply.created), (Finish::Calls, &None, 7));
        assert_eq!(reply.usage, Usage { input: 5, cached: 2, output: 4, reasoning: 0 });
        assert_eq!((reply.id.as_str(), reply.model.as_str()), ("1", "m"));
    }

    #[test]
    fn pieces_of_calls_that_come_in_turns_find_theirs() {
        let (reply, _) = events(&[
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{"}},{"index":1,"id":"b"}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"function":{"name":"g","arguments":"[1"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}},{"index":1,"function":{"arguments":"]"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"h","arguments":"{}"}}]}}]}"#,
        ]);
        let texts: Vec<&str> = reply.blocks().iter().map(|block| block.text.as_str()).collect();
        assert_eq!(texts, ["{}", "[1]", "{}"]);
        assert!(reply.arguments(0).is_ok());
        let refused = reply.arguments(1).unwrap_err();
        assert_eq!(refused.place, "choices[0].message.tool_calls[1].function.arguments");
    }

    #[test]
    fn what_is_no_answer_is_said() {
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
            assert_eq!(Reply::whole(&parse(chat.as_bytes()).unwrap(), "m", true).unwrap_err().place, place, "{chat}");
        }
    }
}
