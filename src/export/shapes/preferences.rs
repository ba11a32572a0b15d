//! Preference pairs for DPO and its relatives, as TRL loads them: two answers to one prompt, of which one has the higher reward.
//!
//! The attempts of a group that have the same prompt and the same tools are sorted by reward. The best is paired with the
//! worst, the second with the second to last, and so on, so that an attempt is in one pair at most.

use super::shape::Shape;
use crate::export::conversation::{Conversation, conversations};
use crate::export::sample::AttemptSample;
use crate::trajectory::{final_reward, group_id};
use serde_json::{Value as JsonValue, json};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// `--format preferences`. Attempts without a reward are in no pair.
pub(super) struct Preferences;

impl Shape for Preferences {
    fn name(&self) -> &'static str {
        "preferences"
    }

    fn compares_attempts(&self) -> bool {
        true
    }

    /// At most one candidate: the longest of the conversations that begin as the first one.
    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        let reward = final_reward(&sample.record.rewards);
        let mut found: Option<(Vec<JsonValue>, Vec<JsonValue>, JsonValue)> = None;
        for conversation in conversations(sample) {
            let (prompt, completion) = split(&conversation);
            let is_first = found.is_none() && !completion.is_empty();
            let is_longer = |(first, longest, tools): &(Vec<JsonValue>, Vec<JsonValue>, JsonValue)| {
                *first == prompt && *tools == conversation.tools && longest.len() < completion.len()
            };
            if is_first || found.as_ref().is_some_and(is_longer) {
                found = Some((prompt.to_vec(), completion.to_vec(), conversation.tools.clone()));
            }
        }
        let candidate = |((prompt, completion, tools), reward): (_, &crate::trajectory::Reward)| {
            json!({
                "prompt": prompt,
                "completion": completion,
                "tools": tools,
                "score": reward.value,
                "group_id": group_id(&sample.rollout),
                "rollout": {
                    "rollout_id": sample.rollout.rollout_id,
                    "sound": sample.verdict.is_sound(),
                    "reasons": sample.verdict.names(),
                },
            })
        };
        found.zip(reward).map(candidate).into_iter().collect()
    }

    fn lines_of_group(&self, candidates: Vec<JsonValue>) -> Vec<JsonValue> {
        let mut by_prompt: BTreeMap<String, Vec<JsonValue>> = BTreeMap::new();
        for candidate in candidates {
            let key = format!("{}{}", candidate["prompt"], candidate["tools"]);
            by_prompt.entry(key).or_default().push(candidate);
        }
        by_prompt.into_values().flat_map(pairs).collect()
    }
}

/// The messages before the first answer, and the rest.
fn split(conversation: &Conversation) -> (&[JsonValue], &[JsonValue]) {
    let messages = &conversation.messages;
    let is_answer = |message: &JsonValue| message["role"] == "assistant";
    messages.split_at(messages.iter().position(is_answer).unwrap_or(messages.len()))
}

/// The pairs of candidates with the same prompt.
fn pairs(mut candidates: Vec<JsonValue>) -> Vec<JsonValue> {
    let score = |candidate: &JsonValue| candidate["score"].as_f64().unwrap_or_default();
    candidates.sort_by(|a, b| score(b).total_cmp(&score(a)));
    let (better, worse) = candidates.split_at(candidates.len() / 2);
    let is_pair = |(chosen, rejected): &(&JsonValue, &JsonValue)| {
        score(chosen).partial_cmp(&score(rejected)) == Some(Ordering::Greater)
    };
    let pair = |(chosen, rejected): (&JsonValue, &JsonValue)| {
        json!({
            "prompt": chosen["prompt"],
            "chosen": chosen["completion"],
            "rejected": rejected["completion"],
            "tools": chosen["tools"],
            "score_chosen": chosen["score"],
            "score_rejected": rejected["score"],
            "metadata": {
                "group_id": chosen["group_id"],
                "chosen": chosen["rollout"],
                "rejected": rejected["rollout"],
            },
        })
    };
    better.iter().zip(worse.iter().rev()).filter(is_pair).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(prompt: &str, score: f64) -> JsonValue {
        json!({ "prompt": [prompt], "completion": [score], "tools": null, "score": score, "group_id": "g", "rollout": score })
    }

    #[test]
    fn the_best_is_paired_with_the_worst_of_the_same_prompt() {
        let scores = [0.5, 1.0, 0.0, 0.5, 0.25, 0.75];
        let mut candidates: Vec<JsonValue> = scores.map(|score| candidate("a", score)).into();
        candidates.extend([candidate("b", 3.0), candidate("c", 1.0), candidate("c", 1.0)]);
        let pairs = Preferences.lines_of_group(candidates);
        let scores: Vec<_> = pairs.iter().map(|pair| (&pair["score_chosen"], &pair["score_rejected"])).collect();
        // Two with the same reward are no pair, and neither are two with other prompts.
        assert_eq!(scores, [(&json!(1.0), &json!(0.0)), (&json!(0.75), &json!(0.25))]);
        assert_eq!((&pairs[0]["chosen"], &pairs[0]["metadata"]["rejected"]), (&json!([1.0]), &json!(0.0)));
    }
}
