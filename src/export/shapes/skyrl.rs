//! SkyRL's `GeneratorOutput`, a line for each attempt. Its lists have an entry for each branch.

use super::shape::{Shape, experts, number_of};
use crate::export::sample::AttemptSample;
use serde_json::{Value as JsonValue, json};

/// `--format skyrl`. An attempt without a row has no line.
pub(super) struct SkyRl;

impl Shape for SkyRl {
    fn name(&self) -> &'static str {
        "skyrl"
    }

    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        let rows = &sample.rows;
        if rows.is_empty() {
            return Vec::new();
        }
        let has_experts = rows.iter().any(|row| row.routed_experts.is_some());
        let list = |entry: &dyn Fn(&crate::trajectory::TrainingRow) -> JsonValue| -> JsonValue {
            rows.iter().map(entry).collect()
        };
        let id = |row: &crate::trajectory::TrainingRow| json!({ "instance_id": row.group_id, "repetition_id": number_of(&row.rollout_id) });
        vec![json!({
            "prompt_token_ids": list(&|row| json!(row.token_ids[..row.prompt_length])),
            "response_ids": list(&|row| json!(row.token_ids[row.prompt_length..])),
            "rewards": list(&|row| json!(row.reward)),
            "loss_masks": list(&|row| json!(row.mask[row.prompt_length..])),
            "stop_reasons": list(&|row| json!(row.finish_reason)),
            "rollout_logprobs": list(&|row| json!(row.logprobs.as_ref().map(|all| &all[row.prompt_length..]))),
            "trajectory_ids": list(&id),
            "is_last_step": list(&|row| json!(row.branch + 1 == row.n_branches)),
            "rollout_expert_indices": if has_experts { list(&experts) } else { JsonValue::Null },
        })]
    }
}
