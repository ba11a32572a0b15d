//! Verdicts on rollouts that a query asks for. They need all spans of an attempt, so that few are found anew for each page.

use crate::store::{Result, RolloutCounts, SharedStore, StoreExt};
use crate::trace::{AttemptStatus, AttemptedRollout, RolloutId};
use crate::trajectory::{MergeMode, Trajectory, VerdictSettings, read, verdict};
use crate::util::lru::{LruCache, lru};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The verdicts on at most [`MAX_ROLLOUTS`] rollouts.
pub(super) struct VerdictCache {
    settings: VerdictSettings,
    entries: Mutex<LruCache<RolloutId, Entry>>,
}

/// A verdict, and what it holds for.
struct Entry {
    spans: u64,
    newest: u64,
    status: Option<AttemptStatus>,
    reasons: Vec<&'static str>,
}

/// What is known of a verdict.
pub(super) enum JudgedRollout {
    /// The names of the reasons against training.
    Reasons(Vec<&'static str>),
    /// The rollout has more spans than are read for a verdict.
    TooLong,
    /// The budget does not suffice: the next page begins with the rollout.
    Later,
}

impl VerdictCache {
    pub(super) fn new(settings: VerdictSettings) -> Self {
        Self { settings, entries: Mutex::new(lru(MAX_ROLLOUTS)) }
    }

    /// The verdict on the latest attempt. Its spans are subtracted from `budget`, of [`MAX_JUDGED_SPANS`] at first.
    pub(super) async fn of(
        &self,
        store: &SharedStore,
        found: &AttemptedRollout,
        counts: &RolloutCounts,
        budget: &mut u64,
    ) -> Result<JudgedRollout> {
        let (id, attempt) = (&found.rollout.rollout_id, found.attempt.as_ref());
        let status = attempt.map(|attempt| attempt.status);
        let is_current =
            |entry: &&Entry| entry.spans == counts.spans && entry.newest == counts.newest && entry.status == status;
        if let Some(entry) = self.entries().get(id).filter(is_current) {
            return Ok(JudgedRollout::Reasons(entry.reasons.clone()));
        }
        if counts.spans > MAX_JUDGED_SPANS {
            return Ok(JudgedRollout::TooLong);
        }
        let Some(left) = budget.checked_sub(counts.spans) else { return Ok(JudgedRollout::Later) };
        *budget = left;
        let spans = store.spans(id.clone(), attempt.map(|attempt| attempt.attempt_id.clone())).await?;
        let settings = self.settings.clone();
        let reasons = tokio::task::block_in_place(|| {
            let mut record = read(&spans);
            let tree = Trajectory::build(std::mem::take(&mut record.calls), MergeMode::default());
            verdict(attempt, &spans, &record, &tree, &settings).names()
        });
        let entry = Entry { spans: counts.spans, newest: counts.newest, status, reasons: reasons.clone() };
        self.entries().put(id.clone(), entry);
        Ok(JudgedRollout::Reasons(reasons))
    }

    fn entries(&self) -> MutexGuard<'_, LruCache<RolloutId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const MAX_ROLLOUTS: usize = 16 * 1024;
/// Spans that one page of a search reads for verdicts. A rollout with more has none.
pub(super) const MAX_JUDGED_SPANS: u64 = 5000;
