//! `TrainingSequence` of TRL, a line for each branch.

use super::shape::{Shape, metadata, number_of, versions};
use crate::export::sample::AttemptSample;
use serde_json::{Value as JsonValue, json};

/// `--format trl`. `reward` and `metadata` are additional fields.
pub(super) struct Trl;

impl Shape for Trl {
    fn name(&self) -> &'static str {
        "trl"
    }

    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        let line = |row: &crate::trajectory::TrainingRow| {
            json!({
                "input_ids": row.token_ids,
                "completion_mask": row.mask,
                "old_log_probs": row.logprobs,
                "rollout_id": row.rollout_id,
                "advantage": null,
                "model_version": versions(row).last(),
                "group_id": number_of(&row.group_id),
                "reward": row.reward,
                "metadata": metadata(row),
            })
        };
        sample.rows.iter().map(line).collect()
    }
}
