//! `TokenEntry` (version 1) of NeMo Gym, a line for each trained call.

use super::shape::Shape;
use crate::export::model_request::chat_messages;
use crate::export::sample::AttemptSample;
use serde_json::{Value as JsonValue, json};

/// `--format nemo-gym`. Its lines have no reward.
pub(super) struct NemoGym;

impl Shape for NemoGym {
    fn name(&self) -> &'static str {
        "nemo-gym"
    }

    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        let calls = sample.tree.calls.iter().filter(|call| call.exclusion.is_none());
        let line = |call: &crate::trajectory::Call| {
            let outputs = chat_messages(&call.content.output);
            json!({
                "rollout_id": sample.rollout.rollout_id,
                "model_call_id": call.span_id,
                "prompt_token_ids": &*call.prompt,
                "generation_token_ids": call.sampled,
                "generation_log_probs": call.logprobs,
                "routed_experts": call.routed_experts,
                "output_items": outputs.get(call.choice).into_iter().collect::<Vec<_>>(),
                "token_item_index": 0,
            })
        };
        calls.map(line).collect()
    }
}
