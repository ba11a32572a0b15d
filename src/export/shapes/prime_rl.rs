//! prime-rl's `TrainingSample`, a line for each branch. All lists have the full length.

use super::shape::{Shape, experts};
use crate::export::sample::AttemptSample;
use serde_json::{Value as JsonValue, json};

/// `--format prime-rl`. What only the trainer knows, such as advantages, is null.
pub(super) struct PrimeRl;

impl Shape for PrimeRl {
    fn name(&self) -> &'static str {
        "prime-rl"
    }

    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        let line = |row: &crate::trajectory::TrainingRow| {
            let rl_weights: Vec<f32> = row.mask.iter().map(|mask| f32::from(*mask)).collect();
            json!({
                "token_ids": row.token_ids,
                "mask": row.mask.iter().map(|mask| *mask == 1).collect::<Vec<bool>>(),
                "logprobs": row.logprobs,
                "temperatures": row.temperatures,
                "env_name": row.group_id,
                "ref_logprobs": null,
                "mm_kwargs": null,
                "routed_experts": experts(row),
                "mm_token_type_ids": null,
                "rl_weights": rl_weights,
                "ce_weights": null,
                "ref_kl_weights": null,
                "advantages": null,
            })
        };
        sample.rows.iter().map(line).collect()
    }
}
