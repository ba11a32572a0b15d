//! rLLM's trajectories, a line for each attempt: its trained calls as `Step`s.

use super::shape::Shape;
use crate::export::sample::AttemptSample;
use crate::trajectory::RewardRule;
use serde_json::{Value as JsonValue, json};

/// `--format rllm`. An attempt without a trained call has no line.
pub(super) struct Rllm;

impl Shape for Rllm {
    fn name(&self) -> &'static str {
        "rllm"
    }

    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        let rewards = RewardRule::default().assign(&sample.tree.calls, &sample.record.rewards);
        let calls = sample.tree.calls.iter().zip(rewards).filter(|(call, _)| call.exclusion.is_none());
        let step = |(call, reward): (&crate::trajectory::Call, Option<f64>)| {
            json!({
                "prompt_ids": &*call.prompt,
                "response_ids": call.sampled,
                "logprobs": call.logprobs,
                "routing_matrices": call.routed_experts,
                "weight_version": call.versions.last().map(|start| &start.version),
                "reward": reward,
            })
        };
        let steps: Vec<JsonValue> = calls.map(step).collect();
        let reward = sample.rows.first().and_then(|row| row.reward);
        let line = || json!({ "uid": sample.rollout.rollout_id, "task": sample.rollout.input, "reward": reward, "steps": steps });
        if steps.is_empty() { Vec::new() } else { vec![line()] }
    }
}
