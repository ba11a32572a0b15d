//! `Sample` of slime and miles, a line for each branch.

use super::shape::{Shape, experts, metadata, number_of, versions};
use crate::export::sample::AttemptSample;
use serde_json::{Value as JsonValue, json};

/// `--format slime`. The response begins with the first trained token; observed tokens in it have mask 0.
pub(super) struct Slime;

impl Shape for Slime {
    fn name(&self) -> &'static str {
        "slime"
    }

    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        let line = |row: &crate::trajectory::TrainingRow| {
            let response = row.prompt_length..;
            let versions: Vec<String> = versions(row).iter().map(ToString::to_string).collect();
            json!({
                "group_index": number_of(&row.group_id),
                "index": number_of(&row.rollout_id),
                "rollout_id": number_of(&row.rollout_id),
                "tokens": row.token_ids,
                "response_length": row.token_ids.len() - row.prompt_length,
                "loss_mask": row.mask[response.clone()],
                "rollout_log_probs": row.logprobs.as_ref().map(|all| &all[response.clone()]),
                "reward": row.reward,
                "weight_versions": versions,
                "rollout_routed_experts": experts(row),
                "rollout_top_p_token_ids": row.sampling_mask,
                "rollout_top_p_token_offsets": row.sampling_mask_lengths.as_ref().map(|all| offsets(&all[response])),
                "remove_sample": !row.sound,
                "status": if row.finish_reason.as_deref() == Some("length") { "truncated" } else { "completed" },
                "metadata": metadata(row),
                "train_metadata": null,
            })
        };
        sample.rows.iter().map(line).collect()
    }
}

/// Where the ids of each token begin in the list of all, and where the last ones end.
fn offsets(lengths: &[u32]) -> Vec<u64> {
    let mut end = 0;
    let ends = lengths.iter().map(|length| {
        end += u64::from(*length);
        end
    });
    std::iter::once(0).chain(ends).collect()
}
