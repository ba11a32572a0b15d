//! Sequence ids: they increase within a rollout, are allocated when a request starts, and continue after the last id that
//! the store knows. Each id that is counted here is taken from the store's counter without I/O to its database.
//!
//! Only the first request of a rollout asks the store, and waits briefly at most. Bounded: the least recently used
//! counters are evicted, but never one with an id that may not be stored yet ([`SequenceLease`]). The next request of an
//! evicted rollout asks the store again, so no id is allocated twice.

use crate::trace::RolloutId;
use crate::util::lru::LruCache;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;

/// What the store knows of a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SequenceStart {
    /// The highest id so far, 0 if there is none. If `shared`, the last of the ids that the store has just allocated to this process.
    pub last_sequence_id: u64,
    /// True when the rollout was registered through an API, not created by traffic.
    pub registered: bool,
    /// True when other processes allocate ids of the same rollouts: each id is then allocated by the store.
    pub shared: bool,
}

/// What allocation needs of the store. `app` provides it.
pub(crate) trait SequenceSource: Send + Sync + 'static {
    /// Asks the store for a rollout's start; `None` if the store does not answer. A store that allocates ids allocates `count`
    /// of them, above `above`, the highest id that this process knows.
    fn start(&self, rollout: RolloutId, above: u64, count: u64) -> SequenceStartFuture<'_>;

    /// Takes an id that is at least `at_least` and that no other program on this machine has taken.
    fn take(&self, rollout: &RolloutId, at_least: u64) -> u64;
}

pub(crate) type SequenceStartFuture<'a> = Pin<Box<dyn Future<Output = Option<SequenceStart>> + Send + 'a>>;

/// Allocates sequence ids.
#[derive(Clone)]
pub(crate) struct SequenceAllocator {
    source: Arc<dyn SequenceSource>,
    // Locked for moments only. It may exceed its bound by the counters that are leased; see `counter`.
    counters: Arc<Mutex<LruCache<RolloutId, Arc<RolloutCounter>>>>,
}

#[derive(Debug, Default)]
struct RolloutCounter {
    // Empty until the store has answered.
    start: OnceCell<SequenceStart>,
    // Locked for moments only.
    ids: Mutex<KnownIds>,
}

#[derive(Debug, Default)]
struct KnownIds {
    /// The highest id that this process knows.
    last: u64,
    /// The highest id that did not come from the store: counted here, or named by a caller.
    last_own: u64,
}

impl RolloutCounter {
    fn ids(&self) -> MutexGuard<'_, KnownIds> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KnownIds {
    /// Takes `count` ids that the store allocated, the last of which is `last`; false if some may be in use here: the store did
    /// not know the ids that this process allocated meanwhile.
    fn accept(&mut self, last: u64, count: u64) -> bool {
        self.last = self.last.max(last);
        last >= self.last_own.saturating_add(count)
    }

    /// The named id, or else the next one. `take` gets the lowest id that is free here.
    fn allocate(&mut self, named: Option<u64>, take: impl FnOnce(u64) -> u64) -> u64 {
        let id = match named {
            Some(named) => {
                // Others have to continue after it.
                if named > self.last {
                    self.last = take(named);
                }
                named
            }
            None => take(self.last + 1),
        };
        self.last = self.last.max(id);
        self.last_own = self.last_own.max(id);
        id
    }
}

/// An id, and the facts that came with it.
#[derive(Debug)]
pub(crate) struct AllocatedSequence {
    /// The id that was asked for, or else the next one of the rollout.
    pub sequence_id: u64,
    /// True when the rollout is registered.
    pub registered: bool,
    /// To be held until the id is stored or given up.
    pub lease: SequenceLease,
}

/// Keeps a rollout's counter in memory while an id of it is not stored yet. The default leases nothing.
#[derive(Clone, Debug, Default)]
pub struct SequenceLease {
    _counter: Option<Arc<RolloutCounter>>,
}

impl SequenceAllocator {
    /// An allocator that continues after what `source` knows.
    pub(crate) fn new(source: Arc<dyn SequenceSource>) -> Self {
        Self { source, counters: Arc::new(Mutex::new(LruCache::unbounded())) }
    }

    /// Allocates the next id of a rollout.
    pub(crate) async fn next(&self, rollout: &RolloutId) -> AllocatedSequence {
        self.allocate(rollout, None).await
    }

    /// Allocates the id that the caller named, or the next one if it named none. Later ids are higher than a named one.
    /// A named id above 2^53 is ignored.
    pub(crate) async fn allocate(&self, rollout: &RolloutId, named: Option<u64>) -> AllocatedSequence {
        let counter = self.counter(rollout);
        let named = named.filter(|named| *named <= MAX_NAMED);
        let (start, answer) = self.started(rollout, &counter, 1).await;
        let allocated = |sequence_id, registered| {
            let lease = SequenceLease { _counter: Some(Arc::clone(&counter)) };
            AllocatedSequence { sequence_id, registered, lease }
        };
        if named.is_none()
            && let Some(run) = self.shared_run(rollout, &counter, start, answer, 1).await
        {
            return allocated(run.last_sequence_id, run.registered);
        }
        let sequence_id = counter.ids().allocate(named, |at_least| self.source.take(rollout, at_least));
        allocated(sequence_id, start.registered)
    }

    /// Allocates the next `count` ids of a rollout, in ascending order. A store that allocates them is asked once for all.
    pub(crate) async fn next_run(&self, rollout: &RolloutId, count: u64) -> Vec<u64> {
        let counter = self.counter(rollout);
        let (start, answer) = self.started(rollout, &counter, count).await;
        if let Some(run) = self.shared_run(rollout, &counter, start, answer, count).await {
            return (run.last_sequence_id - count + 1..=run.last_sequence_id).collect();
        }
        // The lock is released after each: with a file of ids each takes a while.
        (0..count).map(|_| counter.ids().allocate(None, |at_least| self.source.take(rollout, at_least))).collect()
    }

    /// The rollout's start; and the answer of the store, if this call was the first to ask it.
    async fn started(
        &self,
        rollout: &RolloutId,
        counter: &RolloutCounter,
        count: u64,
    ) -> (SequenceStart, Option<SequenceStart>) {
        let mut is_first = false;
        let starting = counter.start.get_or_try_init(async || {
            is_first = true;
            let start = self.start_of(rollout, counter, count).await.ok_or(())?;
            counter.ids().accept(start.last_sequence_id, count);
            Ok::<_, ()>(start)
        });
        // Without an answer this process counts from what it knows; the next request asks again.
        let start = starting.await.copied().unwrap_or_default();
        (start, is_first.then_some(start))
    }

    /// Ids of a store that allocates them; `None` if it does not, does not answer, or its ids may be in use here. `answer` is one
    /// that has come already.
    async fn shared_run(
        &self,
        rollout: &RolloutId,
        counter: &RolloutCounter,
        start: SequenceStart,
        mut answer: Option<SequenceStart>,
        count: u64,
    ) -> Option<SequenceStart> {
        if !start.shared {
            return None;
        }
        for _ in 0..MAX_TRIES {
            let run = match answer.take() {
                Some(run) => run,
                None => self.start_of(rollout, counter, count).await.filter(|run| run.shared)?,
            };
            if counter.ids().accept(run.last_sequence_id, count) {
                return Some(run);
            }
        }
        None
    }

    /// The rollout's counter. A new one evicts the least recently used of those without a lease. Each new counter
    /// looks at two old ones at most, so the map shrinks to its bound again as soon as leases end.
    fn counter(&self, rollout: &RolloutId) -> Arc<RolloutCounter> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = counters.get(rollout) {
            return Arc::clone(counter);
        }
        for _ in 0..2 {
            if counters.len() >= MAX_COUNTERS
                && let Some((oldest, counter)) = counters.pop_lru()
                && Arc::strong_count(&counter) > 1
            {
                counters.put(oldest, counter);
            }
        }
        Arc::clone(counters.get_or_insert(rollout.clone(), Arc::default))
    }

    async fn start_of(&self, rollout: &RolloutId, counter: &RolloutCounter, count: u64) -> Option<SequenceStart> {
        let above = counter.ids().last;
        let start = self.source.start(rollout.clone(), above, count);
        let start = tokio::time::timeout(START_TIMEOUT, start).await.ok().flatten();
        if start.is_none() {
            tracing::debug!(rollout_id = %rollout, "the store did not report the last sequence id in time; counting goes on without it");
        }
        start
    }
}

/// Some 190 bytes each: about 3 MB.
const MAX_COUNTERS: usize = 16 * 1024;
/// JSON has no larger whole numbers (RFC 8259 §6).
const MAX_NAMED: u64 = 1 << 53;
/// A store that takes longer must not delay the request.
const START_TIMEOUT: Duration = Duration::from_millis(500);
/// An answer can be outrun by ids that callers name meanwhile; the next one is above them.
const MAX_TRIES: usize = 2;

/// A source that knows no rollouts.
#[cfg(test)]
struct NoStore;

#[cfg(test)]
impl SequenceSource for NoStore {
    fn start(&self, _: RolloutId, _: u64, _: u64) -> SequenceStartFuture<'_> {
        Box::pin(std::future::ready(Some(SequenceStart::default())))
    }

    fn take(&self, _: &RolloutId, at_least: u64) -> u64 {
        at_least
    }
}

#[cfg(test)]
impl SequenceAllocator {
    /// An allocator for tests without a store.
    pub(crate) fn without_store() -> Self {
        Self::new(Arc::new(NoStore))
    }
}

#[cfg(test)]
mod tests;
