//! Where two rollouts part: at which message of their conversations, and at which token.
//!
//! The conversation of a rollout is the longest one of its main agent. Messages are the same if their roles and parts are, but for
//! the ids of tool calls: those are random, and differ between rollouts that do the same.

use super::transcript::{Message, Part, Transcript, TranscriptCall};
use crate::trace::semconv as names;
use crate::trace::{Span, Value};
use serde::Serialize;
use serde_json::{Value as JsonValue, json};
use std::collections::HashSet;

/// What two rollouts have in common, and where they part.
#[derive(Serialize)]
pub(crate) struct Difference {
    /// Messages that both conversations begin with.
    pub(crate) common_messages: usize,
    /// True if neither has a message after the common ones.
    pub(crate) same_messages: bool,
    /// The messages of each rollout.
    pub(crate) messages: [Vec<ConversationMessage>; 2],
    /// Where the tokens of the conversations' calls part. `None`: the calls that both have, have the same ids or none.
    pub(crate) tokens: Option<TokenDifference>,
}

/// A message, and the call that it belongs to.
#[derive(Serialize)]
pub(crate) struct ConversationMessage {
    /// The sequence id of the call that sent or answered it.
    pub(crate) call: u64,
    #[serde(flatten)]
    pub(super) message: Message,
}

/// The first token that differs.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct TokenDifference {
    /// The sequence id of the call in each rollout.
    pub(crate) calls: [u64; 2],
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
        let messages = conversations.map(messages_of);
        let same = |(one, other): &(&ConversationMessage, &ConversationMessage)| {
            comparable(&one.message) == comparable(&other.message)
        };
        let common_messages = messages[0].iter().zip(&messages[1]).take_while(same).count();
        let same_messages = messages.iter().all(|messages| messages.len() == common_messages);
        Self { common_messages, same_messages, messages, tokens }
    }
}

/// The calls of the longest conversation of the main agent, from its first one on. Those without an answer are left out: their
/// retries say the same.
fn main_conversation(transcript: Transcript<'_>) -> Vec<TranscriptCall<'_>> {
    let is_main = |at: &usize| {
        let role = transcript.calls[*at].span.attributes.get(names::CALL_ROLE).and_then(Value::as_str);
        role.is_none_or(|role| role == "main")
    };
    let ends = transcript.conversations().into_iter().filter_map(|calls| calls.last().copied());
    // A conversation may begin within another one.
    let from_start = |end| {
        let mut calls: Vec<usize> =
            std::iter::successors(Some(end), |at: &usize| transcript.calls[*at].continues).collect();
        calls.reverse();
        calls
    };
    // Of several, the one that ends last.
    let all: Vec<Vec<usize>> = ends.map(from_start).collect();
    let main_calls = |calls: &Vec<usize>| (calls.iter().filter(|at| is_main(at)).count(), calls.last().copied());
    let longest = all.iter().max_by_key(|calls| main_calls(calls));
    let chosen: HashSet<usize> = longest.into_iter().flatten().copied().collect();
    let calls = transcript.calls.into_iter().enumerate().filter(|(at, _)| chosen.contains(at));
    calls.map(|(_, call)| call).collect()
}

fn messages_of(calls: Vec<TranscriptCall<'_>>) -> Vec<ConversationMessage> {
    let of_call = |call: TranscriptCall<'_>| {
        let sequence_id = call.span.sequence_id;
        let messages = call.input.into_iter().chain(call.output.into_iter().take(1));
        messages.map(move |message| ConversationMessage { call: sequence_id, message })
    };
    calls.into_iter().flat_map(of_call).collect()
}

/// What counts of a message when it is compared: its role, and the kind and the content of each part.
fn comparable(message: &Message) -> (&str, Vec<(&'static str, JsonValue)>) {
    let role = if message.role == "model" { "assistant" } else { &message.role };
    let part = |part: Part<'_>| match part {
        Part::Text(text) => ("text", text.trim().into()),
        Part::Reasoning(text) => ("reasoning", text.trim().into()),
        Part::ToolCall { name, arguments, .. } => ("tool_call", json!([name, parsed(arguments)])),
        Part::ToolResult { response, .. } => ("tool_result", parsed(response)),
        Part::Other(part) => ("other", part.clone()),
    };
    (role, message.parts().map(part).filter(|(_, content)| content != "").collect())
}

/// JSON in a string counts as that JSON, however it is spaced.
fn parsed(value: &JsonValue) -> JsonValue {
    let inner = value.as_str().and_then(|text| serde_json::from_str(text).ok());
    inner.unwrap_or_else(|| value.clone())
}

/// Compares the ids of the calls that have any, in their order.
fn token_difference(one: &[TranscriptCall<'_>], other: &[TranscriptCall<'_>]) -> Option<TokenDifference> {
    let has_ids = |call: &&TranscriptCall<'_>| ids(call.span, TokenList::Sampled).is_some();
    let pairs = one.iter().filter(has_ids).zip(other.iter().filter(has_ids));
    pairs.flat_map(|calls| [TokenList::Prompt, TokenList::Sampled].map(|list| (list, calls))).find_map(
        |(list, (one, other))| {
            let calls = [one, other].map(|call| call.span.sequence_id);
            let (one, other) = (ids(one.span, list)?, ids(other.span, list)?);
            let common_tokens = one.iter().zip(other).take_while(|(one, other)| one == other).count();
            let ids = [one, other].map(|ids| ids.get(common_tokens).copied());
            ids.iter().any(Option::is_some).then_some(TokenDifference { calls, list, common_tokens, ids })
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
        let expected =
            TokenDifference { calls: [3, 3], list: TokenList::Sampled, common_tokens: 1, ids: [Some(8), Some(9)] };
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

    #[test]
    fn branches_and_retries_change_no_conversation() {
        let one = rollout("c1", "{}", "3", &[7]);
        // A side question that continues the first call before the agent does, and a try without an answer.
        let mut other = rollout("c2", "{}", "3", &[7]);
        let asked = json!([text("user", "what is 1 + 2?"), tool_call("c2", "{}"), text("user", "and?")]);
        let side =
            call(9, &[("gen_ai.input.messages", asked), ("gen_ai.output.messages", json!([text("assistant", "x")]))]);
        let failed = call(8, &[("gen_ai.input.messages", json!([text("user", "what is 1 + 2?")]))]);
        other.insert(2, side);
        other.insert(1, failed);
        let found = Difference::of([&one, &other]);
        assert_eq!((found.common_messages, found.same_messages, found.tokens), (4, true, None));
    }

    #[test]
    fn each_part_of_a_message_counts() {
        let with =
            |part: JsonValue| vec![call(1, &[("gen_ai.input.messages", json!([{ "role": "user", "parts": [part] }]))])];
        let image = |uri: &str| json!({ "type": "uri", "uri": uri });
        for (one, other) in [
            (image("http://cat"), image("http://dog")),
            (json!({ "type": "reasoning", "content": "a" }), json!({ "type": "reasoning", "content": "b" })),
            (json!({ "type": "text", "content": "a" }), json!({ "type": "reasoning", "content": "a" })),
        ] {
            let found = Difference::of([&with(one.clone()), &with(other)]);
            assert_eq!((found.common_messages, found.same_messages), (0, false), "{one}");
            assert!(Difference::of([&with(one.clone()), &with(one)]).same_messages);
        }
    }
}
