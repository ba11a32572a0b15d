//! The rollouts that the rules of retention keep, and until when: such a rollout is looked at again when it has changed, or when its
//! time is over.

use super::totals::TotalsCache;
use crate::store::RolloutCounts;
use crate::trace::{Rollout, RolloutId, Timestamp};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// What applications of the same rules keep between them.
#[derive(Default)]
pub(crate) struct KeptRollouts {
    pub(super) totals: TotalsCache,
    hasher: RandomState,
    /// By the hash of their ids, at most [`MAX_KEPT`].
    kept: Mutex<HashMap<u64, Kept>>,
}

/// A rollout that is kept.
#[derive(Clone, Copy)]
struct Kept {
    /// The hash of what the decision depends on, apart from the time.
    state: u64,
    until: Timestamp,
}

/// The rollouts that one look at the store finds to be kept.
#[derive(Default)]
pub(super) struct FoundKept(HashMap<u64, Kept>);

impl KeptRollouts {
    /// True if the rollout has not changed since it was found to be kept beyond `now`. It is then kept in `found` too.
    pub(super) fn is_kept(
        &self,
        rollout: &Rollout,
        counts: &RolloutCounts,
        now: Timestamp,
        found: &mut FoundKept,
    ) -> bool {
        let key = self.key(&rollout.rollout_id);
        let known = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        let known = known.filter(|kept| now <= kept.until && kept.state == self.state(rollout, counts));
        known.is_some_and(|kept| found.insert(key, kept))
    }

    /// Notes in `found` until when a rollout is kept.
    pub(super) fn note(&self, rollout: &Rollout, counts: &RolloutCounts, until: Timestamp, found: &mut FoundKept) {
        found.insert(self.key(&rollout.rollout_id), Kept { state: self.state(rollout, counts), until });
    }

    /// Replaces what was known by what a look at all rollouts has found.
    pub(super) fn replace(&self, found: FoundKept) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = found.0;
    }

    fn key(&self, id: &RolloutId) -> u64 {
        self.hasher.hash_one(id.as_str())
    }

    fn state(&self, rollout: &Rollout, counts: &RolloutCounts) -> u64 {
        let RolloutCounts { attempts, spans, errors, llm_calls, newest } = *counts;
        // Rollouts consist of JSON.
        let json = serde_json::to_vec(rollout).unwrap_or_default();
        self.hasher.hash_one((json, attempts, spans, errors, llm_calls, newest))
    }
}

impl FoundKept {
    /// True, also if there is no room: then the rollout is looked at again.
    fn insert(&mut self, key: u64, kept: Kept) -> bool {
        if self.0.len() < MAX_KEPT {
            self.0.insert(key, kept);
        }
        true
    }
}

/// Some 20 MB.
const MAX_KEPT: usize = 512 * 1024;
