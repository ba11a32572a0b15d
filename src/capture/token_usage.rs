//! Tokens that rollouts' calls have taken, as their answers say: a limit on them must be known where calls begin.
//!
//! The newest rollouts are remembered, in a bounded number.

use crate::trace::RolloutId;
use crate::trace::recent::Recent;
use std::sync::{Arc, Mutex, PoisonError};

/// What is remembered; copies share it.
#[derive(Clone, Debug)]
pub struct TokenUsageTracker(Arc<Mutex<Recent<RolloutId, u64>>>);

impl Default for TokenUsageTracker {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Recent::new(MAX_REMEMBERED))))
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
