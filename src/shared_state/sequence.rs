//! Sequence ids: they increase within a rollout, are allocated when a request starts, and continue after the last id that
//! the store knows.
//!
//! Only the first request of a rollout asks the store, and waits briefly at most. Bounded: the least recently used
//! counters are evicted, but never one with an id that may not be stored yet ([`SequenceLease`]). The next request of an
//! evicted rollout asks the store again, so no id is allocated twice.

use crate::trace::RolloutId;
use crate::util::lru::LruCache;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;

/// What the store knows of a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SequenceStart {
    /// The highest id so far, 0 if there is none. If `shared`, an id that the store has just allocated to this process.
    pub last_sequence_id: u64,
    /// True when the rollout was registered through an API, not created by traffic.
    pub registered: bool,
    /// True when other processes allocate ids of the same rollouts: each id is then allocated by the store.
    pub shared: bool,
}

/// Asks the store for a rollout's start; `None` if the store does not answer. `app` provides it.
pub(crate) type SequenceStarts =
    Arc<dyn Fn(RolloutId) -> Pin<Box<dyn Future<Output = Option<SequenceStart>> + Send>> + Send + Sync>;

/// Allocates sequence ids.
#[derive(Clone)]
pub(crate) struct SequenceAllocator {
    starts: SequenceStarts,
    // Locked for moments only. It may exceed its bound by the counters that are leased; see `counter`.
    counters: Arc<Mutex<LruCache<RolloutId, Arc<RolloutCounter>>>>,
}

#[derive(Debug, Default)]
struct RolloutCounter {
    // Empty until the store has answered.
    start: OnceCell<SequenceStart>,
    last: AtomicU64,
}

/// An id, and the facts that came with it.
#[derive(Debug)]
pub(crate) struct AllocatedSequence {
    /// The id.
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
    /// An allocator whose ids continue after what `starts` answers.
    pub(crate) fn new(starts: SequenceStarts) -> Self {
        Self { starts, counters: Arc::new(Mutex::new(LruCache::unbounded())) }
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
        let mut is_first = false;
        let starting = counter.start.get_or_try_init(async || {
            is_first = true;
            let start = self.start_of(rollout).await.ok_or(())?;
            counter.last.fetch_max(start.last_sequence_id, Ordering::Relaxed);
            Ok::<_, ()>(start)
        });
        // Without an answer this process counts from what it knows; the next request asks again.
        let start = starting.await.copied().unwrap_or_default();
        let allocated = |sequence_id, registered| {
            let lease = SequenceLease { _counter: Some(Arc::clone(&counter)) };
            AllocatedSequence { sequence_id, registered, lease }
        };
        if start.shared && named.is_none() {
            let start = if is_first { Some(start) } else { self.start_of(rollout).await };
            if let Some(start) = start.filter(|start| start.shared) {
                counter.last.fetch_max(start.last_sequence_id, Ordering::Relaxed);
                return allocated(start.last_sequence_id, start.registered);
            }
        }
        let sequence_id = match named {
            Some(named) => {
                counter.last.fetch_max(named, Ordering::Relaxed);
                named
            }
            None => counter.last.fetch_add(1, Ordering::Relaxed) + 1,
        };
        allocated(sequence_id, start.registered)
    }

    /// The rollout's counter. A new one evicts the least recently used of those that nobody leases. Each new counter
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

    async fn start_of(&self, rollout: &RolloutId) -> Option<SequenceStart> {
        let start = tokio::time::timeout(START_TIMEOUT, (self.starts)(rollout.clone())).await.ok().flatten();
        if start.is_none() {
            tracing::warn!(rollout_id = %rollout, "the store did not report the last sequence id in time; ids may repeat");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator(start: Option<SequenceStart>) -> SequenceAllocator {
        SequenceAllocator::new(Arc::new(move |_| Box::pin(std::future::ready(start))))
    }

    async fn id(allocator: &SequenceAllocator, rollout: &RolloutId, named: Option<u64>) -> u64 {
        allocator.allocate(rollout, named).await.sequence_id
    }

    #[tokio::test]
    async fn continues_after_the_store_and_after_named_ids() {
        let allocator = allocator(Some(SequenceStart { last_sequence_id: 7, registered: true, shared: false }));
        let rollout = RolloutId::from("ro-1");
        assert!(allocator.next(&rollout).await.registered);
        let mut ids = Vec::new();
        for named in [Some(20), Some(3), None, Some(u64::MAX)] {
            ids.push(id(&allocator, &rollout, named).await);
        }
        assert_eq!(ids, [20, 3, 21, 22]);
    }

    #[tokio::test]
    async fn with_several_processes_the_store_allocates_each_id() {
        let stored = Arc::new(AtomicU64::new(10));
        let allocator = SequenceAllocator::new(Arc::new(move |_| {
            let last_sequence_id = stored.fetch_add(5, Ordering::Relaxed);
            // No answer to the third request.
            let start = SequenceStart { last_sequence_id, registered: false, shared: true };
            Box::pin(std::future::ready((last_sequence_id != 20).then_some(start)))
        }));
        let rollout = RolloutId::from("ro-1");
        let mut ids = Vec::new();
        for named in [None, None, Some(17), None, None] {
            ids.push(id(&allocator, &rollout, named).await);
        }
        assert_eq!(ids, [10, 15, 17, 18, 25]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_delays_a_request_briefly() {
        let allocator = SequenceAllocator::new(Arc::new(|_| Box::pin(std::future::pending())));
        assert_eq!(id(&allocator, &RolloutId::from("ro-1"), None).await, 1);
    }

    #[tokio::test]
    async fn concurrent_requests_never_share_an_id() {
        let allocator = allocator(None);
        let rollout = RolloutId::from("ro-1");
        let tasks: Vec<_> = (0..200)
            .map(|_| {
                let (allocator, rollout) = (allocator.clone(), rollout.clone());
                tokio::spawn(async move { id(&allocator, &rollout, None).await })
            })
            .collect();
        let mut ids = Vec::new();
        for task in tasks {
            ids.push(task.await.unwrap());
        }
        ids.sort_unstable();
        assert_eq!(ids, (1..=200).collect::<Vec<_>>());
    }

    async fn crowd(allocator: &SequenceAllocator, from: u64) {
        for other in from..from + 2 * MAX_COUNTERS as u64 {
            allocator.next(&RolloutId::from_random(other)).await;
        }
    }

    fn counters(allocator: &SequenceAllocator) -> usize {
        allocator.counters.lock().unwrap().len()
    }

    #[tokio::test]
    async fn idle_counters_are_evicted_and_ids_are_never_allocated_twice() {
        let stored = Arc::new(AtomicU64::new(0));
        let last = Arc::clone(&stored);
        let allocator = SequenceAllocator::new(Arc::new(move |rollout: RolloutId| {
            let last_sequence_id = if rollout.as_str() == "ro-busy" { last.load(Ordering::Relaxed) } else { 0 };
            Box::pin(std::future::ready(Some(SequenceStart { last_sequence_id, ..SequenceStart::default() })))
        }));
        let rollout = RolloutId::from("ro-busy");
        // In flight: the store knows nothing of this id.
        let first = allocator.next(&rollout).await;
        crowd(&allocator, 0).await;
        let second = allocator.next(&rollout).await;
        assert_eq!((first.sequence_id, second.sequence_id), (1, 2));
        assert_eq!(counters(&allocator), MAX_COUNTERS);
        // Both are stored now, and the counter may go.
        stored.store(2, Ordering::Relaxed);
        drop((first, second));
        crowd(&allocator, 1 << 20).await;
        assert!(!allocator.counters.lock().unwrap().contains(&rollout));
        assert_eq!(allocator.next(&rollout).await.sequence_id, 3);
    }

    #[tokio::test]
    async fn counters_above_the_bound_go_when_their_leases_end() {
        let allocator = allocator(None);
        let mut leases = Vec::new();
        for rollout in 0..MAX_COUNTERS as u64 + 100 {
            leases.push(allocator.next(&RolloutId::from_random(rollout)).await.lease);
        }
        assert_eq!(counters(&allocator), MAX_COUNTERS + 100);
        leases.clear();
        crowd(&allocator, 1 << 20).await;
        assert_eq!(counters(&allocator), MAX_COUNTERS);
    }
}
