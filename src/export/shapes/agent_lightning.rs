//! Agent Lightning's triplets, a line for each trained call: as its 0.3 adapters make them, and as its 1.0 trainer reads them.

use super::shape::Shape;
use crate::export::model_request::chat_messages;
use crate::export::sample::AttemptSample;
use crate::trajectory::{Call, RewardRule};
use serde_json::{Value as JsonValue, json};

/// `--format agent-lightning-0.3`. Rewards are assigned by first occurrence.
pub(super) struct Triplets03;

impl Shape for Triplets03 {
    fn name(&self) -> &'static str {
        "agent-lightning-0.3"
    }

    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        let line = |(call, reward): (&Call, Option<f64>)| {
            let logprobs = call.logprobs.as_ref().map(|all| {
                // The text of a token is unknown; engines name its id so.
                let entry = |(id, logprob): (&u32, &f32)| {
                    json!({ "token": format!("token_id:{id}"), "logprob": logprob, "bytes": null, "top_logprobs": [] })
                };
                call.sampled.iter().zip(all).map(entry).collect::<Vec<_>>()
            });
            let outputs = chat_messages(&call.content.output);
            json!({
                "prompt": { "token_ids": &*call.prompt, "raw_content": chat_messages(&call.content.input), "image_urls": [] },
                "response": {
                    "token_ids": call.sampled,
                    "raw_content": outputs.get(call.choice).into_iter().collect::<Vec<_>>(),
                    "logprobs": logprobs,
                },
                "reward": reward,
                "metadata": {
                    "response_id": call.response_id,
                    "span_id": call.span_id,
                    "rollout_id": sample.rollout.rollout_id,
                    "agent_name": null,
                },
            })
        };
        with_rewards(sample, RewardRule::FirstOccurrence).map(line).collect()
    }
}

/// `--format agent-lightning-1.0`. The last call has the reward of the attempt.
pub(super) struct Triplets10;

impl Shape for Triplets10 {
    fn name(&self) -> &'static str {
        "agent-lightning-1.0"
    }

    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        let line = |(call, reward): (&Call, Option<f64>)| {
            json!({
                "prompt": { "token_ids": &*call.prompt },
                "response": { "token_ids": call.sampled, "log_probs": call.logprobs },
                "reward": reward,
            })
        };
        with_rewards(sample, RewardRule::Final).map(line).collect()
    }
}

/// The trained calls with their rewards.
fn with_rewards(sample: &AttemptSample, rule: RewardRule) -> impl Iterator<Item = (&Call, Option<f64>)> {
    let rewards = rule.assign(&sample.tree.calls, &sample.record.rewards);
    sample.tree.calls.iter().zip(rewards).filter(|(call, _)| call.exclusion.is_none())
}
