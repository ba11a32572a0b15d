//! What a prune removes, slice by slice.
//!
//! A prune may have to remove most of a store. It does so in slices, each a transaction of its own that holds the writer for some 50 ms:
//! the store is consistent after each of them, and other writes come between.

use super::retention::Retention;
use crate::trace::{RolloutId, Span, Timestamp};
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a prune removes. Rollouts in progress are registered and have not ended: of them nothing is removed.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PruneRequest {
    /// What exceeds the limits that the store was opened with.
    #[default]
    OwnLimits,
    /// What exceeds these limits: the oldest spans, and what only they needed.
    Limits(PruneLimits),
    /// These rollouts with everything that belongs to them, except for their entries in the log of ended rollouts.
    Rollouts(Arc<[RolloutId]>),
    /// Some spans and the traces that only they belong to, in favour of others. Their rollouts and attempts stay.
    Replace(Arc<[SpanReplacement]>),
}

/// Spans that others take the place of, in one transaction: after a kill, either all or none are replaced. Nothing happens if one of
/// them is not stored any more, or belongs to a rollout in progress.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpanReplacement {
    /// The numbers of the spans that are removed. Few enough for a transaction: some hundreds, 2,000 at most.
    pub numbers: Vec<u64>,
    /// What is stored in their place.
    pub by: Vec<Arc<Span>>,
}

/// Limits on what is kept. 0 means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneLimits {
    /// Spans that ended before this time are removed.
    pub ended_before: Option<Timestamp>,
    /// Maximum number of spans.
    pub max_spans: u64,
    /// Maximum size of the store in bytes. PostgreSQL stores ignore it.
    pub max_bytes: u64,
}

impl PruneLimits {
    /// The limits of settings, at this time.
    pub fn of(retention: Retention, now: Timestamp) -> Self {
        let Retention { max_spans, max_bytes, .. } = retention;
        Self { ended_before: retention.expired_before(now), max_spans, max_bytes }
    }
}

/// What was removed by a prune, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Rollouts with everything that belongs to them.
    pub rollouts: u64,
    /// Spans, also of rollouts that remain.
    pub spans: u64,
    /// Bytes that were in use. 0 for PostgreSQL, which learns of them when it vacuums the tables.
    pub bytes: u64,
}

impl Pruned {
    /// Adds what was removed later.
    pub fn add(&mut self, other: Self) {
        self.rollouts += other.rollouts;
        self.spans += other.spans;
        self.bytes += other.bytes;
    }
}

/// Where a prune goes on. The default is its beginning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PruneCursor {
    pub(super) phase: PrunePhase,
    /// True once a slice has removed spans, so that others may have to follow them.
    pub(super) has_removed: bool,
    /// True if what is left exceeds the limits, because it belongs to rollouts in progress.
    pub(super) is_exceeded: bool,
}

impl PruneCursor {
    /// The last part: free pages go back to the file system.
    pub(super) fn at_pages() -> Self {
        Self { phase: PrunePhase::Pages, has_removed: true, is_exceeded: false }
    }
}

/// The parts of a prune, in their order. A store leaves out what it need not do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum PrunePhase {
    #[default]
    Start,
    /// Spans that ended too early. Those before the place were looked at.
    Ended(EndPlace),
    /// The oldest spans, until a goal is reached: another program may remove some too. Those up to the number `after` were looked at.
    Oldest { after: i64, goal: OldestGoal },
    /// The rollout at this place in the request.
    Rollout(usize),
    /// The replacement at this place in the request.
    Replacement(usize),
    /// Rows that no span needs any more, of the table with this number. Those up to the key were looked at.
    Unused { table: usize, after: Vec<String> },
    /// Free pages of the file, which go back to the file system.
    Pages,
}

/// Where the removal of the oldest spans ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OldestGoal {
    /// So many spans and bytes are left. For a store that keeps its counts.
    Left { spans: u64, bytes: u64 },
    /// The span with this number is removed.
    Through(i64),
}

/// A place in the order of ends, or in that of the starts of spans without an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EndPlace {
    /// False for the spans that have an end, which come first.
    pub(super) is_open: bool,
    pub(super) nanos: i64,
    /// Spans at this very time that are kept.
    pub(super) kept: u64,
}

/// Result of a slice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PruneSlice {
    /// What this slice removed.
    pub removed: Pruned,
    /// Where the next slice goes on; `None` after the last one.
    pub next: Option<PruneCursor>,
    /// The places of the replacements that this slice has made, see [`PruneRequest::Replace`].
    pub replaced: Vec<usize>,
    /// True if this slice or an earlier one has removed something.
    pub has_removed: bool,
    /// True after the last slice if the store still exceeds the limits, of age too: what is left belongs to rollouts in progress.
    pub is_exceeded: bool,
}

/// Puts off the next check of the limits after one that could not remove what exceeds them: it has looked at all that is kept, and
/// the next one would do so again.
#[derive(Debug, Default)]
pub(super) struct PruneBackoff(Option<Instant>);

impl PruneBackoff {
    /// True if the limits may be checked now.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_none_or(|exceeded| exceeded.elapsed() >= CHECK_INTERVAL_IN_VAIN)
    }

    /// Notes a slice. The first time that the limits stay exceeded is logged.
    pub(super) fn note(&mut self, slice: &PruneSlice) {
        if slice.next.is_some() {
            return;
        }
        let exceeded = slice.is_exceeded.then(Instant::now);
        if exceeded.is_some() && self.0.is_none() {
            tracing::warn!(
                "the store exceeds its limits: what is left belongs to rollouts in progress, which are kept"
            );
        }
        self.0 = exceeded;
    }
}

/// What was removed since the store was opened, by requests and by limits.
#[derive(Debug, Default)]
pub(super) struct PruneCounters(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    total: Pruned,
    unlogged: Pruned,
    logged: Option<Instant>,
}

impl PruneCounters {
    /// Counts what a slice removed. After the last one it is logged, with what was removed since the last message.
    pub(super) fn add(&self, slice: &PruneSlice) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total.add(slice.removed);
        counts.unlogged.add(slice.removed);
        let is_due = counts.logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL);
        if slice.next.is_none() && counts.unlogged != Pruned::default() && is_due {
            let Pruned { rollouts, spans, bytes } = std::mem::take(&mut counts.unlogged);
            counts.logged = Some(Instant::now());
            tracing::info!(rollouts, spans, bytes, "removed from the store by its limits");
        }
    }

    pub(super) fn read(&self) -> Pruned {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

const CHECK_INTERVAL_IN_VAIN: Duration = Duration::from_secs(60);
/// Limits remove a little again and again: one message tells of all.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
