//! Counts of the spans that are not stored, kept in the store as spans of their rollouts.
//!
//! The first span of an attempt that is left out becomes such a count in the same commit, so that no reader of the rollout takes
//! it for complete. Later ones are added up, and stored as another count after [`FIRST_INTERVAL`], which doubles up to
//! [`MAX_INTERVAL`]. The counts of an attempt add up to all of its spans that are not stored, unless the process is killed in
//! between. Counts wait for at most [`MAX_ATTEMPTS`] attempts; those of the least recently used are stored before their time.

use super::cause::Cause;
use super::counts::{Counts, Key};
use crate::trace::{RolloutId, Span, SpanId};
use crate::util::lru::{LruCache, lru};
use std::time::{Duration, Instant};

/// The attempts with spans that are not stored.
pub(super) struct NotStored {
    tallies: LruCache<Key, Tally>,
    /// Those that no count was stored of yet, since the last call of [`Self::first`].
    new: Vec<Key>,
}

/// The spans of one attempt since the last count was stored.
struct Tally {
    counts: Counts,
    due: Instant,
    interval: Duration,
}

impl Default for NotStored {
    fn default() -> Self {
        Self::with_room(MAX_ATTEMPTS)
    }
}

impl NotStored {
    fn with_room(max_attempts: usize) -> Self {
        Self { tallies: lru(max_attempts), new: Vec::new() }
    }

    /// Counts a span. Returns a count that has to be stored before its time, if there are too many attempts.
    pub(super) fn add(&mut self, span: &Span, cause: Cause, now: Instant) -> Option<Span> {
        let key = Key { rollout: span.rollout_id.clone(), attempt: span.attempt_id.clone(), cause };
        if let Some(tally) = self.tallies.get_mut(&key) {
            tally.counts.add(span);
            return None;
        }
        self.new.push(key.clone());
        let mut tally = Tally { counts: Counts::default(), due: now, interval: FIRST_INTERVAL };
        tally.counts.add(span);
        let (evicted, tally) = self.tallies.push(key, tally)?;
        tally.counts.span(&evicted, new_id())
    }

    /// The first counts of the attempts that have none yet, as spans.
    pub(super) fn first(&mut self, now: Instant) -> Vec<Span> {
        let new = std::mem::take(&mut self.new).into_iter();
        new.filter_map(|key| self.tallies.peek_mut(&key)?.take(&key, now)).collect()
    }

    /// The counts that are due, as spans. What is not due stays.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Span> {
        let due = self.tallies.iter_mut().filter(|(_, tally)| tally.due <= now);
        due.filter_map(|(key, tally)| tally.take(key, now)).collect()
    }

    /// The counts of a rollout, as spans.
    pub(super) fn of(&mut self, rollout: &RolloutId, now: Instant) -> Vec<Span> {
        let own = self.tallies.iter_mut().filter(|(key, _)| key.rollout == *rollout);
        own.filter_map(|(key, tally)| tally.take(key, now)).collect()
    }

    /// Forgets the counts of a rollout.
    pub(super) fn forget(&mut self, rollout: &RolloutId) {
        let own: Vec<Key> =
            self.tallies.iter().filter(|(key, _)| key.rollout == *rollout).map(|(key, _)| key.clone()).collect();
        for key in own {
            self.tallies.pop(&key);
        }
    }

    /// All counts, as spans.
    pub(super) fn all(&mut self, now: Instant) -> Vec<Span> {
        self.tallies.iter_mut().filter_map(|(key, tally)| tally.take(key, now)).collect()
    }
}

impl Tally {
    fn take(&mut self, key: &Key, now: Instant) -> Option<Span> {
        let span = self.counts.span(key, new_id())?;
        self.counts = Counts::default();
        self.due = now + self.interval;
        self.interval = (self.interval * 2).min(MAX_INTERVAL);
        Some(span)
    }
}

fn new_id() -> SpanId {
    SpanId::from_random(fastrand::u64(..))
}

const MAX_ATTEMPTS: usize = 16 * 1024;
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// Short, because each count is also a heartbeat of its attempt.
const MAX_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::semconv as names;
    use serde_json::json;

    fn span(rollout: &str, sequence_id: u64) -> Span {
        serde_json::from_value(json!({"rollout_id": rollout, "attempt_id": "a", "sequence_id": sequence_id, "trace_id": "t",
            "span_id": "s", "parent_id": null, "name": "x", "status": {"status_code": "ERROR", "description": null},
            "attributes": {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 7, "gen_ai.usage.output_tokens": 2},
            "events": [], "links": [], "start_time": 1.0, "end_time": 2.0, "context": null, "parent": null,
            "resource": {"attributes": {}, "schema_url": ""}}))
        .unwrap()
    }

    fn counted(spans: &[Span], name: &str) -> Vec<i64> {
        spans.iter().map(|span| span.attributes[name].as_int().unwrap()).collect()
    }

    #[test]
    fn counts_add_up_and_are_stored_less_and_less_often() {
        let (mut not_stored, start) = (NotStored::default(), Instant::now());
        let add = |not_stored: &mut NotStored| not_stored.add(&span("r", 3), Cause::RolloutSpans, start);
        assert_eq!((add(&mut not_stored), add(&mut not_stored)), (None, None));
        let first = not_stored.first(start);
        assert_eq!(counted(&first, names::NOT_STORED_SPANS), [2]);
        assert_eq!(counted(&first, names::NOT_STORED_ERRORS), [2]);
        assert_eq!(counted(&first, names::NOT_STORED_LLM_CALLS), [2]);
        assert_eq!(counted(&first, names::NOT_STORED_INPUT_TOKENS), [14]);
        assert_eq!((first[0].sequence_id, first[0].trace_id.as_str()), (3, "t"));
        add(&mut not_stored);
        assert!(not_stored.due(start).is_empty());
        assert_eq!(counted(&not_stored.due(start + FIRST_INTERVAL), names::NOT_STORED_SPANS), [1]);
        assert!(not_stored.due(start + MAX_INTERVAL).is_empty(), "nothing was added");
        add(&mut not_stored);
        assert_eq!(counted(&not_stored.all(start), names::NOT_STORED_SPANS), [1]);
    }

    #[test]
    fn the_counts_of_an_evicted_attempt_are_returned() {
        let (mut not_stored, now) = (NotStored::with_room(1), Instant::now());
        assert!(not_stored.add(&span("r", 1), Cause::RolloutBytes, now).is_none());
        let evicted = not_stored.add(&span("q", 1), Cause::RolloutBytes, now).unwrap();
        assert_eq!(evicted.rollout_id.as_str(), "r");
        // One without counts has nothing to store.
        assert_eq!(not_stored.first(now).len(), 1);
        assert!(not_stored.add(&span("r", 1), Cause::RolloutBytes, now).is_none());
    }
}
