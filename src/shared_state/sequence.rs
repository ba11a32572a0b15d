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
    /// The highest id so far, 0 if there is none. If `shared`, an id that the store has just allocated to this process.
    pub last_sequence_id: u64,
    /// True when the rollout was registered through an API, not created by traffic.
    pub registered: bool,
    /// True when other processes allocate ids of the same rollouts: each id is then allocated by the store.
    pub shared: bool,
}

/// What allocation needs of the store. `app` provides it.
pub(crate) trait SequenceSource: Send + Sync + 'static {
    /// Asks the store for a rollout's start; `None` if the store does not answer. An id that the store allocates is above
    /// `above`, the highest id that this process knows.
    fn start(&self, rollout: RolloutId, above: u64) -> SequenceStartFuture<'_>;

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
    /// Takes an id that the store allocated; false if it may be in use here: the store did not know the ids that this
    /// process allocated meanwhile.
    fn accept(&mut self, id: u64) -> bool {
        self.last = self.last.max(id);
        id > self.last_own
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
        let mut is_first = false;
        let starting = counter.start.get_or_try_init(async || {
            is_first = true;
            let start = self.start_of(rollout, &counter).await.ok_or(())?;
            counter.ids().accept(start.last_sequence_id);
            Ok::<_, ()>(start)
        });
        // Without an answer this process counts from what it knows; the next request asks again.
        let start = starting.await.copied().unwrap_or_default();
        let allocated = |sequence_id, registered| {
            let lease = SequenceLease { _counter: Some(Arc::clone(&counter)) };
            AllocatedSequence { sequence_id, registered, lease }
        };
        if start.shared && named.is_none() {
            let mut answer = is_first.then_some(start);
            for _ in 0..MAX_TRIES {
                let start = match answer.take() {
                    Some(start) => Some(start),
                    None => self.start_of(rollout, &counter).await,
                };
                let Some(start) = start.filter(|start| start.shared) else { break };
                if counter.ids().accept(start.last_sequence_id) {
                    return allocated(start.last_sequence_id, start.registered);
                }
            }
        }
        let sequence_id = counter.ids().allocate(named, |at_least| self.source.take(rollout, at_least));
        allocated(sequence_id, start.registered)
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

    async fn start_of(&self, rollout: &RolloutId, counter: &RolloutCounter) -> Option<SequenceStart> {
        let above = counter.ids().last;
        let start = tokio::time::timeout(START_TIMEOUT, self.source.start(rollout.clone(), above)).await.ok().flatten();
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
    fn start(&self, _: RolloutId, _: u64) -> SequenceStartFuture<'_> {
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
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A source that takes what is free and answers by the function.
    struct Source<F>(F);

    impl<F, A> SequenceSource for Source<F>
    where
        F: Fn(RolloutId, u64) -> A + Send + Sync + 'static,
        A: Future<Output = Option<SequenceStart>> + Send + 'static,
    {
        fn start(&self, rollout: RolloutId, above: u64) -> SequenceStartFuture<'_> {
            Box::pin((self.0)(rollout, above))
        }

        fn take(&self, _: &RolloutId, at_least: u64) -> u64 {
            at_least
        }
    }

    fn allocator_of<F, A>(answer: F) -> SequenceAllocator
    where
        F: Fn(RolloutId, u64) -> A + Send + Sync + 'static,
        A: Future<Output = Option<SequenceStart>> + Send + 'static,
    {
        SequenceAllocator::new(Arc::new(Source(answer)))
    }

    fn allocator(start: Option<SequenceStart>) -> SequenceAllocator {
        allocator_of(move |_, _| std::future::ready(start))
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
        let allocator = allocator_of(move |_, _| {
            let last_sequence_id = stored.fetch_add(5, Ordering::Relaxed);
            // No answer to the third request.
            let start = SequenceStart { last_sequence_id, registered: false, shared: true };
            std::future::ready((last_sequence_id != 20).then_some(start))
        });
        let rollout = RolloutId::from("ro-1");
        let mut ids = Vec::new();
        for named in [None, None, Some(17), None, None] {
            ids.push(id(&allocator, &rollout, named).await);
        }
        assert_eq!(ids, [10, 15, 17, 18, 25]);
    }

    /// The store answers, is away for two requests, and answers again: it knows neither the ids counted meanwhile nor a
    /// named one.
    #[tokio::test]
    async fn the_store_allocates_above_the_ids_of_an_outage_and_above_named_ids() {
        let (stored, asked) = (AtomicU64::new(0), AtomicU64::new(0));
        let allocator = allocator_of(move |_, above| {
            let is_away = (1..=2).contains(&asked.fetch_add(1, Ordering::Relaxed));
            let start = (!is_away).then(|| {
                let last_sequence_id = stored.load(Ordering::Relaxed).max(above) + 1;
                stored.store(last_sequence_id, Ordering::Relaxed);
                SequenceStart { last_sequence_id, registered: false, shared: true }
            });
            std::future::ready(start)
        });
        let rollout = RolloutId::from("ro-1");
        let mut ids = Vec::new();
        for named in [None, None, None, None, Some(9), None] {
            ids.push(id(&allocator, &rollout, named).await);
        }
        assert_eq!(ids, [1, 2, 3, 4, 9, 10]);
    }

    /// An answer that was under way while an id of the same value was named is not used.
    #[tokio::test]
    async fn an_id_of_the_store_that_a_caller_named_meanwhile_is_not_used() {
        let answers = Arc::new(tokio::sync::Semaphore::new(1));
        let gate = Arc::clone(&answers);
        let allocator = allocator_of(move |_, above| {
            let gate = Arc::clone(&gate);
            Box::pin(async move {
                gate.acquire().await.ok()?.forget();
                Some(SequenceStart { last_sequence_id: above + 1, registered: false, shared: true })
            })
        });
        let rollout = RolloutId::from("ro-1");
        assert_eq!(id(&allocator, &rollout, None).await, 1);
        let named = async {
            let named = id(&allocator, &rollout, Some(2)).await;
            answers.add_permits(2);
            named
        };
        let (waiting, named) = tokio::join!(id(&allocator, &rollout, None), named);
        assert_eq!((waiting, named), (3, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_delays_a_request_briefly() {
        let allocator = allocator_of(|_, _| std::future::pending());
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
        let allocator = allocator_of(move |rollout: RolloutId, _| {
            let last_sequence_id = if rollout.as_str() == "ro-busy" { last.load(Ordering::Relaxed) } else { 0 };
            std::future::ready(Some(SequenceStart { last_sequence_id, ..SequenceStart::default() }))
        });
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
