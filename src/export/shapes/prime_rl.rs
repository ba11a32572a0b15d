//! prime-rl's `TrainingSample`, a line for each branch. All lists have the full length.

use super::shape::Shape;
use crate::export::sample::AttemptSample;
use crate::trajectory::TrainingRow;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value as JsonValue, json};

/// `--format prime-rl`. What only the trainer knows, such as advantages, is null.
pub(super) struct PrimeRl;

impl Shape for PrimeRl {
    fn name(&self) -> &'static str {
        "prime-rl"
    }

    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        let line = |row: &TrainingRow| {
            let rl_weights: Vec<f32> = row.mask.iter().map(|mask| f32::from(*mask)).collect();
            json!({
                "token_ids": row.token_ids,
                "mask": row.mask.iter().map(|mask| *mask == 1).collect::<Vec<bool>>(),
                "logprobs": row.logprobs,
                "temperatures": row.temperatures,
                "env_name": row.group_id,
                "ref_logprobs": null,
                "mm_kwargs": null,
                "routed_experts": whole_experts(row),
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

/// The experts with a row for each token. The last token has none of its own, because no forward pass follows it; prime-rl gives
/// it the row before. Null without experts, and if what the engine sent is no base64.
fn whole_experts(row: &TrainingRow) -> JsonValue {
    let data = row.routed_experts.as_deref().and_then(|data| BASE64_STANDARD.decode(data).ok());
    let (Some(mut data), [tokens, rest @ ..]) = (data, row.routed_experts_shape.as_slice()) else {
        return JsonValue::Null;
    };
    let token_bytes = data.len().checked_div(usize::try_from(*tokens).unwrap_or_default()).unwrap_or_default();
    data.extend_from_within(data.len() - token_bytes..);
    let shape: Vec<i64> = std::iter::once(tokens + 1).chain(rest.iter().copied()).collect();
    json!({ "data": BASE64_STANDARD.encode(data), "shape": shape, "dtype": row.routed_experts_dtype })
}
