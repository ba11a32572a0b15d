//! AReaL's trajectories, a line for each branch.

use super::shape::{Shape, metadata};
use crate::export::sample::AttemptSample;
use serde_json::{Value as JsonValue, json};

/// `--format areal`. Logprobs and versions of observed tokens are 0 and -1.
pub(super) struct Areal;

impl Shape for Areal {
    fn name(&self) -> &'static str {
        "areal"
    }

    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        let line = |row: &crate::trajectory::TrainingRow| {
            json!({
                "input_ids": row.token_ids,
                "loss_mask": row.mask,
                "logprobs": row.logprobs,
                "versions": row.versions,
                "attention_mask": vec![1; row.token_ids.len()],
                "rewards": row.reward,
                "metadata": metadata(row),
            })
        };
        sample.rows.iter().map(line).collect()
    }
}
