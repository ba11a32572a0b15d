//! Conversations of an attempt as chat messages with their tools, for fine-tuning.

use super::model_request::chat_messages;
use super::sample::AttemptSample;
use crate::trajectory::{Branch, Call};
use serde::Serialize;
use serde_json::{Value as JsonValue, json};
use std::collections::BTreeSet;

/// Messages up to an answer, which is the last one, and the tools that it could call.
#[derive(Serialize)]
pub(crate) struct Conversation {
    pub(crate) messages: Vec<JsonValue>,
    /// As chat completions have them; null without tools.
    pub(crate) tools: JsonValue,
}

/// The conversations of an attempt that have messages: one for each branch, up to its last complete answer. They need no token ids:
/// without them it can't be known which calls continue each other, so that each call is a conversation.
pub(crate) fn conversations(sample: &AttemptSample) -> impl Iterator<Item = Conversation> {
    let calls = &sample.tree.calls;
    ends(calls, &sample.tree.branches)
        .into_iter()
        .map(|at| Conversation { messages: messages(&calls[at]), tools: tools(&calls[at]) })
        .filter(|conversation| !conversation.messages.is_empty())
}

/// The calls at which conversations end.
fn ends(calls: &[Call], branches: &[Branch]) -> BTreeSet<usize> {
    let is_end = |at: &usize| is_conversation(&calls[*at]);
    let without_ids = (0..calls.len()).filter(|at| calls[*at].prompt.is_empty() || calls[*at].sampled.is_empty());
    let mut ends: BTreeSet<usize> = without_ids.filter(is_end).collect();
    let mut inner = BTreeSet::new();
    for branch in branches {
        if let Some(last) = branch.path.iter().rposition(is_end) {
            ends.insert(branch.path[last]);
            inner.extend(&branch.path[..last]);
        }
    }
    // A branch may end within another one if its last call failed.
    &ends - &inner
}

/// True for a call of the agent with a complete answer and recorded messages.
fn is_conversation(call: &Call) -> bool {
    use crate::trajectory::Exclusion::{NoTokenIds, Unproved};
    matches!(call.exclusion, None | Some(NoTokenIds | Unproved)) && !call.content.input.is_empty()
}

fn messages(call: &Call) -> Vec<JsonValue> {
    request_messages(call).into_iter().chain(answer(call)).collect()
}

/// The messages of the request, with the system instructions first.
pub(super) fn request_messages(call: &Call) -> Vec<JsonValue> {
    let mut messages = Vec::new();
    let system: Vec<JsonValue> = serde_json::from_str(&call.content.system).unwrap_or_default();
    if !system.is_empty() {
        let texts: Vec<&str> = system.iter().filter_map(|part| part["content"].as_str()).collect();
        messages.push(json!({ "role": "system", "content": texts.join("\n") }));
    }
    messages.extend(chat_messages(&call.content.input));
    messages
}

/// The answer as a message. `None` if it was not recorded.
pub(super) fn answer(call: &Call) -> Option<JsonValue> {
    chat_messages(&call.content.output).into_iter().nth(call.choice)
}

/// The tools of the request; null without any.
pub(super) fn tools(call: &Call) -> JsonValue {
    let tools: Vec<JsonValue> = serde_json::from_str(&call.content.tools).unwrap_or_default();
    let tool = |mut tool: JsonValue| {
        if tool.get("function").is_some() {
            return tool;
        }
        // The type of a tool is beside its function. The order of the other keys, which templates show to models, remains.
        tool.as_object_mut().and_then(|tool| tool.shift_remove("type"));
        json!({ "type": "function", "function": tool })
    };
    if tools.is_empty() { JsonValue::Null } else { tools.into_iter().map(tool).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::clients::CallRole;
    use crate::trajectory::{CallContent, Exclusion, MergeMode, Trajectory};

    fn call(sequence_id: u64, prompt: &[u32], sampled: &[u32]) -> Call {
        Call {
            response_id: None,
            span_id: sequence_id.to_string(),
            sequence_id,
            choice: 0,
            role: CallRole::Main,
            tools: 0,
            prompt: prompt.into(),
            sampled: sampled.to_vec(),
            logprobs: None,
            versions: Vec::new(),
            temperature: None,
            routed_experts: None,
            routed_experts_shape: Vec::new(),
            routed_experts_dtype: None,
            sampling_mask: None,
            exclusion: None,
            is_retokenized: false,
            token_issue: None,
            finish_reason: None,
            model: None,
            content: CallContent { input: "[{}]".into(), ..CallContent::default() },
            start_time: None,
            end_time: None,
            parent_span: None,
        }
    }

    #[test]
    fn a_conversation_ends_at_its_last_complete_answer() {
        let mut calls = vec![call(1, &[1], &[2]), call(2, &[1, 2, 3], &[4]), call(3, &[1, 2, 3, 4, 5], &[6])];
        calls[2].exclusion = Some(Exclusion::Failed);
        let tree = Trajectory::build(calls.clone(), MergeMode::Strict);
        assert_eq!(ends(&tree.calls, &tree.branches), BTreeSet::from([1]));
        // The failed try and its retry are two branches; the retry has all of it.
        calls.push(call(4, &[1, 2, 3, 4, 7], &[8]));
        let tree = Trajectory::build(calls, MergeMode::Strict);
        assert_eq!(ends(&tree.calls, &tree.branches), BTreeSet::from([3]));
    }
}
