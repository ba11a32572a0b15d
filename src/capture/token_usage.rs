//! Tokens that rollouts' calls have taken, as their answers say: a limit on them must be known where calls begin.
//!
//! The newest rollouts are remembered, in a bounded number.

use crate::trace::RolloutId;
use crate::util::lru::{LruCache, lru};
use std::sync::{Arc, Mutex, PoisonError};

/// What is remembered; copies share it.
#[derive(Clone, Debug)]
pub struct TokenUsageTracker(Arc<Mutex<LruCache<RolloutId, u64>>>);

impl Default for TokenUsageTracker {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(lru(MAX_REMEMBERED))))
    }
}

impl TokenUsageTracker {
    /// A call took so many.
    pub fn add(&self, rollout: &RolloutId, tokens: u64) {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let so_far = spent.get(rollout).copied().unwrap_or_default();
        spent.put(rollout.clone(), so_far.saturating_add(tokens));
    }

    /// So many in all.
    pub fn of(&self, rollout: &RolloutId) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(rollout).copied().unwrap_or_default()
    }
}

const MAX_REMEMBERED: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_in_use_is_never_evicted_by_others() {
        let usage = TokenUsageTracker::default();
        let busy = RolloutId::from("busy");
        for other in 0..MAX_REMEMBERED as u64 + 10 {
            usage.add(&RolloutId::from_random(other), 1);
            usage.add(&busy, 1);
        }
        assert_eq!(usage.of(&busy), MAX_REMEMBERED as u64 + 10);
        assert_eq!(usage.of(&RolloutId::from_random(0)), 0, "the least recently used one is evicted");
    }
}
