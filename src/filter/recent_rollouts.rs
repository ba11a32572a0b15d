//! The rollouts that spans were stored of, until tail sampling has decided on them.
//!
//! Of more than [`MAX_ROLLOUTS`], those with the oldest last span are forgotten: all of their spans are kept.

use crate::store::UNASSIGNED;
use crate::trace::{RolloutId, Span, Timestamp};
use crate::util::lru::{LruCache, lru};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Rollouts in the order of their last spans.
pub(crate) struct RecentRollouts {
    rollouts: Mutex<LruCache<RolloutId, Recent>>,
    /// It was logged that there are too many.
    is_logged: AtomicBool,
}

#[derive(Clone, Copy)]
struct Recent {
    /// When its last span passed, or when it ended.
    noted: Instant,
    /// When its first span began, as far as it is known here.
    start: Timestamp,
}

impl Default for RecentRollouts {
    fn default() -> Self {
        Self { rollouts: Mutex::new(lru(MAX_ROLLOUTS)), is_logged: AtomicBool::default() }
    }
}

impl RecentRollouts {
    /// Notes the rollouts of spans that are about to be stored.
    pub(super) fn note_spans(&self, spans: &[Arc<Span>], now: Instant) {
        for same in spans.chunk_by(|one, other| one.rollout_id == other.rollout_id) {
            let starts = same.iter().filter_map(|span| span.start_time);
            if let Some(span) = same.first() {
                self.note_one(&span.rollout_id, starts.min(), now);
            }
        }
    }

    /// Notes that a rollout has ended, or has to be looked at again.
    pub(crate) fn note(&self, rollout: &RolloutId, start: Timestamp, now: Instant) {
        self.note_one(rollout, Some(start), now);
    }

    /// Takes the rollouts that nothing was noted of for this long.
    pub(crate) fn take_due(&self, delay: Duration, now: Instant) -> Vec<RolloutId> {
        let (mut rollouts, mut due) = (self.rollouts(), Vec::new());
        while due.len() < MAX_DUE
            && let Some((_, recent)) = rollouts.peek_lru()
            && now.saturating_duration_since(recent.noted) >= delay
        {
            due.extend(rollouts.pop_lru().map(|(rollout, _)| rollout));
        }
        due
    }

    /// The start of the first of them. `None` if there are none.
    pub(crate) fn earliest_start(&self) -> Option<Timestamp> {
        self.rollouts().iter().map(|(_, recent)| recent.start).min()
    }

    fn note_one(&self, rollout: &RolloutId, start: Option<Timestamp>, now: Instant) {
        if rollout.as_str() == UNASSIGNED {
            return;
        }
        let start = start.unwrap_or_else(|| SystemTime::now().into());
        let mut rollouts = self.rollouts();
        if let Some(known) = rollouts.get_mut(rollout) {
            *known = Recent { noted: now, start: known.start.min(start) };
        } else if rollouts.push(rollout.clone(), Recent { noted: now, start }).is_some()
            && !self.is_logged.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(rollouts = MAX_ROLLOUTS, "too many rollouts at once for tail sampling: some are kept whole");
        }
    }

    fn rollouts(&self) -> MutexGuard<'_, LruCache<RolloutId, Recent>> {
        self.rollouts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const MAX_ROLLOUTS: usize = 256 * 1024;
/// Rollouts that are decided on before others get their turn.
const MAX_DUE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollouts_are_due_when_nothing_was_noted_for_a_while() {
        let (recent, start, delay) = (RecentRollouts::default(), Instant::now(), Duration::from_secs(60));
        let at = |seconds| start + Duration::from_secs(seconds);
        let time = |seconds| Timestamp::from_unix_nanos(seconds * 1_000_000_000);
        for (rollout, seconds) in [("a", 0), ("b", 1), (UNASSIGNED, 1), ("a", 2)] {
            recent.note(&rollout.into(), time(seconds), at(seconds));
        }
        assert_eq!(recent.earliest_start(), Some(time(0)));
        assert!(recent.take_due(delay, at(60)).is_empty());
        assert_eq!(recent.take_due(delay, at(61)), ["b".into()]);
        assert_eq!(recent.take_due(delay, at(100)), ["a".into()]);
        assert_eq!(recent.earliest_start(), None);
    }
}
