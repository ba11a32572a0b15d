//! Why a call does not continue an earlier one: the cause, and the first position at which both differ.
//!
//! The cause is found from the messages of both calls, if they were recorded. Otherwise it is found from the ids alone, which
//! can't tell rewritten text from the same text with other ids.

use super::call::Call;
use super::prefix::common_prefix;
use crate::llm::clients::CallRole;
use serde::Serialize;
use serde_json::Value as JsonValue;

/// A call that starts a branch, compared with the earlier call that is nearest to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Break {
    /// Why the prompt does not continue the earlier call.
    pub cause: BreakCause,
    /// Index of the earlier call in [`Trajectory::calls`](super::Trajectory::calls).
    pub earlier: usize,
    /// The first position at which the prompt differs from prompt and answer of the earlier call.
    pub position: usize,
    /// What the earlier call has there.
    pub expected: BreakSide,
    /// What the prompt has there.
    pub found: BreakSide,
}

/// What one of two calls has where they differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BreakSide {
    /// A few token ids from the position on.
    pub ids: Vec<u32>,
    /// The text of the message in which the calls differ, from the difference on; if no message differs, the last common
    /// message from its start. Cut to a few words. Empty if content was not recorded.
    pub text: String,
    /// The text of `ids`. `None` without a tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoded: Option<String>,
}

/// Why a call starts a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakCause {
    /// The same text has other ids.
    Retokenized,
    /// The chat template rendered the same messages differently: special tokens, whitespace, stop tokens.
    Template,
    /// The reasoning of an earlier answer is missing.
    ThinkingDropped,
    /// A message was changed.
    Rewritten,
    /// Messages, or the end of one, were left out.
    Truncated,
    /// Messages were replaced by a shorter account of them.
    Compacted,
    /// The tools of the request changed.
    ToolsChanged,
    /// A conversation that has nothing to do with the earlier one.
    NewConversation,
}

impl BreakCause {
    /// The word in exports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retokenized => "retokenized",
            Self::Template => "template",
            Self::ThinkingDropped => "thinking_dropped",
            Self::Rewritten => "rewritten",
            Self::Truncated => "truncated",
            Self::Compacted => "compacted",
            Self::ToolsChanged => "tools_changed",
            Self::NewConversation => "new_conversation",
        }
    }

    /// True if the text is the same on both sides, so that a continuation may be aligned again.
    pub(super) fn keeps_text(self) -> bool {
        matches!(self, Self::Retokenized | Self::Template)
    }
}

/// The break at a call that does not continue the earlier call that is nearest to it. `None` if no earlier call has tokens.
pub(super) fn diagnose(calls: &[Call], at: usize) -> Option<Break> {
    let later = &calls[at];
    let (earlier, position) = nearest(calls, at)?;
    let expected = &calls[earlier];
    let messages = (history(expected), request_messages(later));
    let (cause, texts) = match messages {
        (before, after) if !before.is_empty() && !after.is_empty() => {
            let summaries = summaries(calls, at, expected);
            (cause_by_messages(expected, later, position, (&before, &after), &summaries), texts(&before, &after))
        }
        _ => (cause_by_ids(expected, later, position), Default::default()),
    };
    let ids = |call: &Call| (position..).map_while(|at| call.token(at)).take(MAX_SHOWN_IDS).collect();
    let found = later.prompt.iter().skip(position).take(MAX_SHOWN_IDS).copied().collect();
    Some(Break {
        cause,
        earlier,
        position,
        expected: BreakSide { ids: ids(expected), text: texts.0, decoded: None },
        found: BreakSide { ids: found, text: texts.1, decoded: None },
    })
}

/// The earlier call with which the prompt has the most tokens in common, of the last `MAX_CANDIDATES`; the latest of
/// several.
fn nearest(calls: &[Call], at: usize) -> Option<(usize, usize)> {
    let prompt = &calls[at].prompt;
    let mut best: Option<(usize, usize)> = None;
    let earlier = calls[..at].iter().enumerate().rev().filter(|(_, call)| call.has_tokens() && call.prompt != *prompt);
    for (index, call) in earlier.take(MAX_CANDIDATES) {
        // Only one that agrees where the best one so far ended can be better.
        let is_better =
            best.is_none_or(|(_, length)| prompt.get(length).is_some_and(|id| call.token(length) == Some(*id)));
        if is_better {
            let length = common_prefix(prompt, call);
            if best.is_none_or(|(_, before)| length > before) {
                best = Some((index, length));
            }
        }
    }
    best
}

/// What is compared of a message.
#[derive(Debug, PartialEq)]
struct Message {
    role: String,
    text: String,
    reasoning: String,
}

impl Message {
    /// True if both say the same, reasoning aside.
    fn says_the_same(&self, other: &Self) -> bool {
        self.role == other.role && self.text == other.text
    }

    fn is_system(&self) -> bool {
        self.role == "system" || self.role == "developer"
    }
}

fn request_messages(call: &Call) -> Vec<Message> {
    let parsed: Vec<JsonValue> = serde_json::from_str(&call.content.input).unwrap_or_default();
    let mut messages: Vec<Message> = parsed.iter().map(message).collect();
    let system: Vec<JsonValue> = serde_json::from_str(&call.content.system).unwrap_or_default();
    if !system.is_empty() {
        messages.insert(0, message(&serde_json::json!({ "role": "system", "parts": system })));
    }
    messages
}

/// The messages of the request, and the answer.
fn history(call: &Call) -> Vec<Message> {
    let mut messages = request_messages(call);
    if !messages.is_empty() {
        messages.extend(answer(call));
    }
    messages
}

fn answer(call: &Call) -> Option<Message> {
    let outputs: Vec<JsonValue> = serde_json::from_str(&call.content.output).unwrap_or_default();
    outputs.get(call.choice).map(message)
}

fn message(json: &JsonValue) -> Message {
    let mut found = Message {
        role: json["role"].as_str().unwrap_or_default().to_owned(),
        text: String::new(),
        reasoning: String::new(),
    };
    for part in json["parts"].as_array().into_iter().flatten() {
        match part["type"].as_str() {
            Some("reasoning") => found.reasoning.push_str(part["content"].as_str().unwrap_or_default()),
            Some("text") => found.text.push_str(part["content"].as_str().unwrap_or_default()),
            Some("tool_call") => {
                found.text.push_str(&format!("{}({})", part["name"].as_str().unwrap_or_default(), part["arguments"]));
            }
            _ => found.text.push_str(&part.to_string()),
        }
    }
    found
}

/// Texts by which a compaction may have replaced messages: the answers of the last compaction and of the nearest call.
fn summaries(calls: &[Call], at: usize, expected: &Call) -> Vec<String> {
    let written = calls[..at].iter().rev().filter(|call| call.role == CallRole::Compaction).take(1);
    let texts = written.chain([expected]).filter_map(answer).map(|message| message.text);
    texts.filter(|text| text.len() >= MIN_SUMMARY_BYTES).collect()
}

fn cause_by_messages(
    earlier: &Call,
    later: &Call,
    position: usize,
    (before, after): (&[Message], &[Message]),
    summaries: &[String],
) -> BreakCause {
    let talk = |messages: &[Message]| messages.iter().position(|one| !one.is_system()).unwrap_or(messages.len());
    let (old, new) = (&before[talk(before)..], &after[talk(after)..]);
    let common = old.iter().zip(new).take_while(|(a, b)| a.says_the_same(b)).count();
    let is_summary = |one: &Message| summaries.iter().any(|text| one.text.contains(text) && one.role != "assistant");
    if common == 0 && !new.iter().any(is_summary) && !left_out(old, new) && !is_shortened(old.first(), new.first()) {
        let known = |one: &&Message| old.iter().any(|other| other.says_the_same(one));
        let same_role = old.first().zip(new.first()).is_some_and(|(a, b)| a.role == b.role);
        let few_common = new.iter().filter(known).count() == 0;
        return if few_common || !same_role { BreakCause::NewConversation } else { BreakCause::Rewritten };
    }
    if earlier.tools != later.tools {
        return BreakCause::ToolsChanged;
    }
    let system_differs = before[..talk(before)] != after[..talk(after)];
    if common == old.len() && !system_differs {
        let dropped = old.iter().zip(new).any(|(a, b)| !a.reasoning.is_empty() && b.reasoning.is_empty());
        let has_reasoning = old.iter().any(|one| !one.reasoning.is_empty());
        return if dropped || (has_reasoning && is_deletion(earlier, later, position)) {
            BreakCause::ThinkingDropped
        } else if position < earlier.prompt.len() || position + TEMPLATE_TAIL >= earlier.len() {
            BreakCause::Template
        } else {
            BreakCause::Retokenized
        };
    }
    if common == old.len() {
        return BreakCause::Rewritten;
    }
    if new.iter().any(is_summary) {
        return BreakCause::Compacted;
    }
    let (lost, got) = (old.get(common), new.get(common));
    if left_out(old, new) || is_shortened(lost, got) {
        return BreakCause::Truncated;
    }
    match lost.zip(got) {
        Some((lost, got)) if differ_in_space(&lost.text, &got.text) => BreakCause::Template,
        // A message of another role has the place of the answer, and at least two messages are gone.
        Some((lost, got)) if lost.role != got.role && new.len() + 1 < old.len() => BreakCause::Compacted,
        _ => BreakCause::Rewritten,
    }
}

/// True if `new` is `old` without some messages at its start, or behind its first.
fn left_out(old: &[Message], new: &[Message]) -> bool {
    let continues = |rest: &[Message], new: &[Message]| {
        !rest.is_empty() && rest.len() <= new.len() && rest.iter().zip(new).all(|(a, b)| a.says_the_same(b))
    };
    let keeps_first = old.first().zip(new.first()).is_some_and(|(a, b)| a.says_the_same(b));
    (1..old.len())
        .any(|from| continues(&old[from..], new) || (keeps_first && from > 1 && continues(&old[from..], &new[1..])))
}

/// True if the second message is the first one, shortened.
fn is_shortened(lost: Option<&Message>, got: Option<&Message>) -> bool {
    let Some((lost, got)) = lost.zip(got) else { return false };
    let common = lost.text.bytes().zip(got.text.bytes()).take_while(|(a, b)| a == b).count();
    lost.role == got.role && got.text.len() < lost.text.len() && common * 2 >= got.text.len() && common > 0
}

fn differ_in_space(one: &str, other: &str) -> bool {
    one != other && one.split_whitespace().eq(other.split_whitespace())
}

fn cause_by_ids(earlier: &Call, later: &Call, position: usize) -> BreakCause {
    if earlier.lineage().0 != later.lineage().0 || position == 0 {
        BreakCause::NewConversation
    } else if earlier.tools != later.tools {
        BreakCause::ToolsChanged
    } else if position >= earlier.prompt.len() && position + TEMPLATE_TAIL >= earlier.len() {
        BreakCause::Template
    } else if is_deletion(earlier, later, position) {
        BreakCause::Truncated
    } else {
        BreakCause::Rewritten
    }
}

/// True if the prompt goes on, where the calls differ, with tokens that the earlier call has further on.
fn is_deletion(earlier: &Call, later: &Call, position: usize) -> bool {
    let next = &later.prompt[position..];
    let reach = earlier.len().min(position.saturating_add(MAX_DELETED_TOKENS));
    // The earlier call may end while both agree.
    let resumes = |from: usize| {
        let length = next.len().min(RESUMED_TOKENS).min(earlier.len() - from);
        length >= MIN_RESUMED_TOKENS && (from..).zip(&next[..length]).all(|(at, id)| earlier.token(at) == Some(*id))
    };
    (position + 1..reach).any(resumes)
}

/// The excerpts of both sides for [`BreakSide::text`].
fn texts(before: &[Message], after: &[Message]) -> (String, String) {
    let common = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (Some(lost), Some(got)) = (before.get(common), after.get(common)) else {
        let last = before.get(common.saturating_sub(1)).map(|one| excerpt(&one.text, 0)).unwrap_or_default();
        return (last.clone(), last);
    };
    let whole = |one: &Message| format!("{}{}", one.reasoning, one.text);
    let (lost, got) = (whole(lost), whole(got));
    let equal: usize =
        lost.chars().zip(got.chars()).take_while(|(a, b)| a == b).map(|(letter, _)| letter.len_utf8()).sum();
    (excerpt(&lost, equal), excerpt(&got, equal))
}

fn excerpt(text: &str, from: usize) -> String {
    text.get(from..).unwrap_or_default().chars().take(MAX_SHOWN_LETTERS).collect()
}

/// How many earlier calls, the latest first, are compared with one that continues none.
const MAX_CANDIDATES: usize = 256;
const MAX_SHOWN_IDS: usize = 8;
const MAX_SHOWN_LETTERS: usize = 80;
/// Stop tokens and line ends that a template writes behind an answer.
const TEMPLATE_TAIL: usize = 3;
const RESUMED_TOKENS: usize = 8;
const MIN_RESUMED_TOKENS: usize = 4;
const MAX_DELETED_TOKENS: usize = 64 * 1024;
/// Shorter answers may be quoted by chance.
const MIN_SUMMARY_BYTES: usize = 12;
