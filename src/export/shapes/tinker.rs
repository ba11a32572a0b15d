//! Tinker's `Datum`, a line for each branch: each token with the next one as its target.

use super::shape::{Shape, metadata};
use crate::export::sample::AttemptSample;
use serde_json::{Value as JsonValue, json};

/// `--format tinker`. Lists are one shorter than the row: its first token is no target, its last no input.
pub(super) struct Tinker;

impl Shape for Tinker {
    fn name(&self) -> &'static str {
        "tinker"
    }

    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        let line = |row: &crate::trajectory::TrainingRow| {
            let inputs = &row.token_ids[..row.token_ids.len() - 1];
            let reward = row.reward.unwrap_or_default();
            let advantages: Vec<f64> = row.mask[1..].iter().map(|mask| f64::from(*mask) * reward).collect();
            json!({
                "model_input": inputs,
                "loss_fn_inputs": {
                    "target_tokens": row.token_ids[1..],
                    "logprobs": row.logprobs.as_ref().map(|all| &all[1..]),
                    "advantages": advantages,
                    "mask": row.mask[1..],
                },
                "metadata": metadata(row),
            })
        };
        // A row has a prompt and a sampled token at least.
        sample.rows.iter().filter(|row| row.token_ids.len() > 1).map(line).collect()
    }
}
