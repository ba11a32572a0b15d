//! Tokens that the gateway's calls of each rollout used, as their responses report: a rollout's token limit is checked
//! where a call starts.
//!
//! Bounded: the least recently used rollouts are forgotten and count from zero again.

use crate::trace::RolloutId;
use crate::util::lru::{LruCache, lru};
use std::sync::{Arc, Mutex, PoisonError};

/// Tokens by rollout.
#[derive(Clone, Debug)]
pub(crate) struct TokenUsageTracker(Arc<Mutex<LruCache<RolloutId, u64>>>);

impl Default for TokenUsageTracker {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(lru(MAX_ROLLOUTS))))
    }
}

impl TokenUsageTracker {
    /// Adds the tokens of one call, prompt and response.
    pub(crate) fn add(&self, rollout: &RolloutId, tokens: u64) {
        let mut usage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = usage.get_or_insert_mut(rollout.clone(), || 0);
        *used = used.saturating_add(tokens);
    }

    /// The tokens of all calls so far.
    pub(crate) fn of(&self, rollout: &RolloutId) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(rollout).copied().unwrap_or_default()
    }
}

const MAX_ROLLOUTS: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_in_use_is_never_evicted_by_others() {
        let usage = TokenUsageTracker::default();
        let busy = RolloutId::from("busy");
        for other in 0..MAX_ROLLOUTS as u64 + 10 {
            usage.add(&RolloutId::from_random(other), 1);
            usage.add(&busy, 1);
        }
        assert_eq!(usage.of(&busy), MAX_ROLLOUTS as u64 + 10);
        assert_eq!(usage.of(&RolloutId::from_random(0)), 0, "the least recently used one is evicted");
    }
}
