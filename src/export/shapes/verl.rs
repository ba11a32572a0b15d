//! verl's `AgentLoopOutput`, a line for each branch.

use super::shape::{Shape, experts, metadata, versions};
use crate::export::sample::AttemptSample;
use serde_json::{Value as JsonValue, json};

/// `--format verl`. The response begins with the first trained token; observed tokens in it have mask 0.
pub(super) struct Verl;

impl Shape for Verl {
    fn name(&self) -> &'static str {
        "verl"
    }

    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        let line = |row: &crate::trajectory::TrainingRow| {
            let (prompt, response) = row.token_ids.split_at(row.prompt_length);
            let versions = versions(row);
            let mut extra = metadata(row);
            extra["min_global_steps"] = json!(versions.first());
            extra["max_global_steps"] = json!(versions.last());
            json!({
                "prompt_ids": prompt,
                "response_ids": response,
                "response_mask": row.mask[row.prompt_length..],
                "response_logprobs": row.logprobs.as_ref().map(|all| &all[row.prompt_length..]),
                "routed_experts": experts(row),
                "reward_score": row.reward,
                // A message of a user or a tool, and an answer.
                "num_turns": 2 * row.calls.len(),
                "metrics": {},
                "extra_fields": extra,
            })
        };
        sample.rows.iter().map(line).collect()
    }
}
