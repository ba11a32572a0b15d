//! How much of each rollout is stored, and what the filter has to know of it. Asked from the store when a rollout is first met.
//!
//! The least recently used of more than [`MAX_ROLLOUTS`] is forgotten, and asked again. The store knows how many spans a rollout
//! has, but not their bytes: those count since this process first met the rollout.

use crate::store::{SharedStore, StoreError};
use crate::trace::RolloutId;
use crate::util::lru::{LruCache, lru};
use std::time::{Duration, Instant};

/// The rollouts with recent spans.
pub(super) struct RolloutUsages(LruCache<RolloutId, RolloutUsage>);

/// What is known of a rollout.
#[derive(Clone, Debug)]
pub(super) struct RolloutUsage {
    /// Spans of the rollout that are stored.
    pub(super) spans: u64,
    /// Bytes of the spans that this process has stored.
    pub(super) bytes: u64,
    /// Registered by a trainer, an API or `tracewire run`.
    pub(super) is_registered: bool,
    /// The mode of a registered rollout.
    pub(super) mode: Option<String>,
    /// Its limit was logged.
    pub(super) is_logged: bool,
    read_at: Instant,
}

/// Whether the number of stored spans of a rollout matters.
#[derive(Clone, Copy)]
pub(super) enum SpanCount {
    /// There is a limit.
    Needed,
    /// There is none.
    Unused,
}

impl Default for RolloutUsages {
    fn default() -> Self {
        Self(lru(MAX_ROLLOUTS))
    }
}

impl RolloutUsages {
    /// What is known of a rollout.
    pub(super) fn get(&mut self, rollout: &RolloutId) -> Option<&mut RolloutUsage> {
        self.0.get_mut(rollout)
    }

    /// Forgets a rollout.
    pub(super) fn forget(&mut self, rollout: &RolloutId) {
        self.0.pop(rollout);
    }

    /// Takes what was read from the store. What this process has counted meanwhile stays.
    pub(super) fn learn(&mut self, rollout: RolloutId, read: RolloutUsage) {
        match self.0.get_mut(&rollout) {
            Some(known) => {
                let (is_registered, mode, read_at) = (read.is_registered, read.mode, read.read_at);
                *known = RolloutUsage { is_registered, mode, read_at, ..known.clone() };
            }
            None => drop(self.0.put(rollout, read)),
        }
    }
}

impl RolloutUsage {
    /// True if the rollout may have been registered since it was read.
    pub(super) fn is_outdated(&self) -> bool {
        !self.is_registered && self.read_at.elapsed() >= MAX_AGE
    }

    /// Reads a rollout from the store. Its spans are counted only if there is a limit.
    pub(super) async fn read(store: &SharedStore, rollout: &RolloutId, count: SpanCount) -> Result<Self, StoreError> {
        let is_registered = store.sequence_state(rollout.clone()).await?.registered;
        let record = if is_registered { store.rollout(rollout.clone()).await? } else { None };
        let spans = match count {
            SpanCount::Needed => {
                store.rollout_counts(vec![rollout.clone()]).await?.get(rollout).map(|counts| counts.spans)
            }
            SpanCount::Unused => None,
        };
        Ok(Self {
            spans: spans.unwrap_or(0),
            bytes: 0,
            is_registered,
            mode: record.and_then(|record| record.mode),
            is_logged: false,
            read_at: Instant::now(),
        })
    }
}

const MAX_ROLLOUTS: usize = 64 * 1024;
const MAX_AGE: Duration = Duration::from_secs(1);
