//! Where two rollouts part: at which message of their conversations, and at which token.
//!
//! The conversation of a rollout is the longest one of its main agent. Messages are the same if role, text, tool calls and
//! results are: the ids of tool calls are random, and differ between rollouts that do the same.

use super::transcript::{Message, Part, Transcript, TranscriptCall};
use crate::trace::semconv as names;
use crate::trace::{Span, Value};
use serde::Serialize;
use std::fmt::Write as _;

/// What two rollouts have in common, and where they part.
#[derive(Serialize)]
pub(crate) struct Difference {
    /// Messages that both conversations begin with.
    pub(crate) common_messages: usize,
    /// True if neither has a message after the common ones.
    pub(crate) same_messages: bool,
    /// The messages of each rollout.
    pub(crate) messages: [Vec<SaidMessage>; 2],
    /// Where the tokens of the conversations' calls part. `None`: the calls that both have, have the same ids or none.
    pub(crate) tokens: Option<TokenDifference>,
}

/// A message, and the call that it belongs to.
#[derive(Serialize)]
pub(crate) struct SaidMessage {
    /// The sequence id of the call that sent or answered it.
    pub(crate) call: u64,
    #[serde(flatten)]
    pub(super) message: Message,
}

/// The first token that differs.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct TokenDifference {
    /// The number of the call in its conversation, counted from 1.
    pub(crate) call: usize,
    /// The list that it is in.
    pub(crate) list: TokenList,
    /// How many tokens of the list are the same.
    pub(crate) common_tokens: usize,
    /// The id behind them in each rollout. `None`: its list ends.
    pub(crate) ids: [Option<i64>; 2],
}

/// A list of a call's token ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenList {
    Prompt,
    Sampled,
}

impl TokenList {
    fn attribute(self) -> &'static str {
        match self {
            Self::Prompt => names::PROMPT_TOKEN_IDS,
            Self::Sampled => names::RESPONSE_TOKEN_IDS,
        }
    }
}

impl Difference {
    /// Compares the spans of two rollouts.
    pub(crate) fn of(rollouts: [&[Span]; 2]) -> Self {
        let conversations = rollouts.map(|spans| main_conversation(Transcript::of(spans)));
        let tokens = token_difference(&conversations[0], &conversations[1]);
        let messages = conversations.map(said);
        let same = |(one, other): &(&SaidMessage, &SaidMessage)| said_text(&one.message) == said_text(&other.message);
        let common_messages = messages[0].iter().zip(&messages[1]).take_while(same).count();
        let same_messages = messages.iter().all(|messages| messages.len() == common_messages);
        Self { common_messages, same_messages, messages, tokens }
    }
}

/// The calls of the longest conversation whose calls have the role of the main agent, or none.
fn main_conversation(transcript: Transcript<'_>) -> Vec<TranscriptCall<'_>> {
    let is_main = |call: &&TranscriptCall<'_>| {
        call.span.attributes.get(names::CALL_ROLE).and_then(Value::as_str).is_none_or(|role| role == "main")
    };
    let calls_of_main =
        |calls: &Vec<usize>| calls.iter().filter_map(|at| transcript.calls.get(*at)).filter(is_main).count();
    // Of several, the first one.
    let longest = transcript.conversations().into_iter().rev().max_by_key(calls_of_main).unwrap_or_default();
    transcript.calls.into_iter().enumerate().filter(|(at, _)| longest.contains(at)).map(|(_, call)| call).collect()
}

fn said(calls: Vec<TranscriptCall<'_>>) -> Vec<SaidMessage> {
    let of_call = |call: TranscriptCall<'_>| {
        let sequence_id = call.span.sequence_id;
        let messages = call.input.into_iter().chain(call.output.into_iter().take(1));
        messages.map(move |message| SaidMessage { call: sequence_id, message })
    };
    calls.into_iter().flat_map(of_call).collect()
}

/// What counts of a message when it is compared.
fn said_text(message: &Message) -> String {
    let role = if message.role == "model" { "assistant" } else { &message.role };
    let mut said = format!("{role}\n{}", message.text().trim());
    for part in message.parts() {
        // Writing to a String can't fail.
        let _ = match part {
            Part::ToolCall { name, arguments, .. } => write!(said, "\n→ {name} {}", parsed(arguments)),
            Part::ToolResult { response, .. } => write!(said, "\n← {}", parsed(response)),
            Part::Text(_) | Part::Reasoning(_) | Part::Other(_) => Ok(()),
        };
    }
    said
}

/// JSON in a string counts as that JSON, however it is spaced.
fn parsed(value: &serde_json::Value) -> serde_json::Value {
    let inner = value.as_str().and_then(|text| serde_json::from_str(text).ok());
    inner.unwrap_or_else(|| value.clone())
}

fn token_difference(one: &[TranscriptCall<'_>], other: &[TranscriptCall<'_>]) -> Option<TokenDifference> {
    let pairs = one.iter().zip(other).enumerate();
    pairs.flat_map(|(at, calls)| [TokenList::Prompt, TokenList::Sampled].map(|list| (at, list, calls))).find_map(
        |(at, list, (one, other))| {
            let (one, other) = (ids(one.span, list)?, ids(other.span, list)?);
            let common_tokens = one.iter().zip(other).take_while(|(one, other)| one == other).count();
            let ids = [one, other].map(|ids| ids.get(common_tokens).copied());
            ids.iter().any(Option::is_some).then_some(TokenDifference { call: at + 1, list, common_tokens, ids })
        },
    )
}

fn ids(span: &Span, list: TokenList) -> Option<&[i64]> {
    match span.attributes.get(list.attribute()) {
        Some(Value::Ints(ids)) => Some(ids),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as JsonValue, json};

    fn call(number: u64, attributes: &[(&str, JsonValue)]) -> Span {
        let mut all = json!({ "gen_ai.operation.name": "chat", "tracewire.llm.dialect": "openai.chat" });
        for (name, value) in attributes {
            all[*name] = match value {
                JsonValue::Array(list) if list.iter().any(JsonValue::is_object) => value.to_string().into(),
                other => other.clone(),
            };
        }
        let span = json!({
            "rollout_id": "r", "attempt_id": "a", "sequence_id": number, "trace_id": "t", "span_id": number.to_string(),
            "parent_id": null, "name": "chat", "status": { "status_code": "OK", "description": null }, "attributes": all,
            "events": [], "links": [], "start_time": 1.0, "end_time": 2.0, "context": null, "parent": null,
            "resource": { "attributes": {}, "schema_url": "" },
        });
        serde_json::from_value(span).unwrap()
    }

    fn text(role: &str, text: &str) -> JsonValue {
        json!({ "role": role, "parts": [{ "type": "text", "content": text }] })
    }

    fn tool_call(id: &str, arguments: &str) -> JsonValue {
        json!({ "role": "assistant", "parts": [{ "type": "tool_call", "id": id, "name": "add", "arguments": arguments }] })
    }

    fn tool_result(id: &str) -> JsonValue {
        json!({ "role": "tool", "parts": [{ "type": "tool_call_response", "id": id, "response": "3" }] })
    }

    /// A call of a tool, then an answer.
    fn rollout(id: &str, arguments: &str, answer: &str, sampled: &[i64]) -> Vec<Span> {
        let question = text("user", "what is 1 + 2?");
        let asked = json!([question, tool_call(id, arguments), tool_result(id)]);
        let title = ("tracewire.call.role", json!("title"));
        vec![
            call(1, &[("gen_ai.input.messages", json!([text("user", "a title")])), title]),
            call(
                2,
                &[
                    ("gen_ai.input.messages", json!([question])),
                    ("gen_ai.output.messages", json!([tool_call(id, arguments)])),
                    ("prompt_token_ids", json!([1, 2])),
                    ("response_token_ids", json!([3])),
                ],
            ),
            call(
                3,
                &[
                    ("gen_ai.input.messages", asked),
                    ("gen_ai.output.messages", json!([text("assistant", answer)])),
                    ("prompt_token_ids", json!([1, 2, 3, 4])),
                    ("response_token_ids", json!(sampled)),
                ],
            ),
        ]
    }

    #[test]
    fn rollouts_part_where_the_agents_do() {
        let one = rollout("c1", "{\"a\":1,\"b\":2}", "3", &[7, 8]);
        let other = rollout("c2", "{\"a\": 1, \"b\": 2}", "4", &[7, 9]);
        let found = Difference::of([&one, &other]);
        assert_eq!((found.common_messages, found.same_messages), (3, false));
        assert_eq!(found.messages.each_ref().map(Vec::len), [4, 4]);
        assert_eq!(found.messages[1][3].call, 3);
        let expected = TokenDifference { call: 2, list: TokenList::Sampled, common_tokens: 1, ids: [Some(8), Some(9)] };
        assert_eq!(found.tokens, Some(expected));
    }

    #[test]
    fn the_same_rollout_has_no_difference() {
        let one = rollout("c1", "{}", "3", &[7]);
        let found = Difference::of([&one, &rollout("c2", "{}", "3", &[7])]);
        assert_eq!((found.common_messages, found.same_messages, found.tokens), (4, true, None));
        let found = Difference::of([&one, &[]]);
        assert_eq!((found.common_messages, found.same_messages, found.tokens), (0, false, None));
        // A list that ends is a difference.
        let found = Difference::of([&one, &rollout("c2", "{}", "3", &[7, 1])]);
        assert_eq!(found.tokens.map(|tokens| tokens.ids), Some([None, Some(1)]));
    }
}
