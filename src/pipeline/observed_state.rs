//! Applies what was observed of calls to the state that other modules share.

use super::observed::{EngineObservation, ObservedCall};
use crate::shared_state::{DetectedEngines, RecordedCalls, TokenUsageTracker};

/// The state that observations go into. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ObservedState {
    /// Which span recorded which response.
    pub recorded_calls: RecordedCalls,
    /// Which engine serves where.
    pub detected_engines: DetectedEngines,
    /// Tokens that rollouts used.
    pub token_usage: TokenUsageTracker,
}

impl ObservedState {
    /// Applies one call.
    pub(super) fn apply(&self, call: &ObservedCall) {
        if let Some((response_id, span)) = &call.response {
            self.recorded_calls.insert(&call.rollout_id, response_id, span);
        }
        if let Some(tokens) = call.used_tokens {
            self.token_usage.add(&call.rollout_id, tokens);
        }
        if let Some(EngineObservation { host, port, engine }) = &call.engine {
            self.detected_engines.detected(host, *port, *engine);
        }
    }
}
