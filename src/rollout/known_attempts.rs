//! Attempts that were found in the store, so that a request for one of them need not read the store again.
//!
//! Bounds: the [`MAX_ROLLOUTS`] most recently used rollouts, and of each the [`MAX_ATTEMPTS`] found last. The store is read
//! again for an attempt beyond that, which is slower and has no other effect.

use crate::trace::{AttemptId, RolloutId};
use lru::LruCache;
use std::collections::VecDeque;
use std::num::NonZeroUsize;

/// Attempts that exist in the store for as long as their rollout is not removed.
pub(super) struct KnownAttempts(LruCache<RolloutId, VecDeque<AttemptId>>);

impl Default for KnownAttempts {
    fn default() -> Self {
        Self(LruCache::new(MAX_ROLLOUTS))
    }
}

impl KnownAttempts {
    pub(super) fn contains(&mut self, rollout: &RolloutId, attempt: &AttemptId) -> bool {
        self.0.get(rollout).is_some_and(|attempts| attempts.contains(attempt))
    }

    pub(super) fn insert(&mut self, rollout: RolloutId, attempt: AttemptId) {
        let attempts = self.0.get_or_insert_mut(rollout, VecDeque::new);
        if attempts.contains(&attempt) {
            return;
        }
        if attempts.len() == MAX_ATTEMPTS {
            attempts.pop_front();
        }
        attempts.push_back(attempt);
    }

    /// The rollout was removed from the store.
    pub(super) fn remove(&mut self, rollout: &RolloutId) {
        self.0.pop(rollout);
    }
}

const MAX_ROLLOUTS: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();
/// Few rollouts have more attempts at the same time.
const MAX_ATTEMPTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_bounded() {
        let mut known = KnownAttempts::default();
        for at in 0..MAX_ROLLOUTS.get() + 10 {
            known.insert(format!("ro-{at}").as_str().into(), "at".into());
        }
        assert_eq!(known.0.len(), MAX_ROLLOUTS.get());
        assert!(!known.contains(&"ro-9".into(), &"at".into()) && known.contains(&"ro-10".into(), &"at".into()));
        for at in 0..=MAX_ATTEMPTS {
            known.insert("ro".into(), format!("at-{at}").as_str().into());
        }
        assert!(!known.contains(&"ro".into(), &"at-0".into()) && known.contains(&"ro".into(), &"at-1".into()));
        known.remove(&"ro".into());
        assert!(!known.contains(&"ro".into(), &"at-1".into()));
    }
}
