//! Which ids are allocated, whatever the store answers and when.

use super::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// A source that takes what is free and answers by the function.
struct Source<F>(F);

impl<F, A> SequenceSource for Source<F>
where
    F: Fn(RolloutId, u64) -> A + Send + Sync + 'static,
    A: Future<Output = Option<SequenceStart>> + Send + 'static,
{
    fn start(&self, rollout: RolloutId, above: u64, count: u64) -> SequenceStartFuture<'_> {
        // As if a store had allocated all of them.
        let more = count - 1;
        let last = move |start: SequenceStart| {
            let last_sequence_id = start.last_sequence_id + if start.shared { more } else { 0 };
            SequenceStart { last_sequence_id, ..start }
        };
        let answer = (self.0)(rollout, above);
        Box::pin(async move { answer.await.map(last) })
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

/// A run comes from the store at once; without its answer, this process counts on.
#[tokio::test]
async fn a_run_of_ids_is_allocated_at_once() {
    let (stored, asked) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    let questions = Arc::clone(&asked);
    let allocator = allocator_of(move |_, above| {
        let is_away = asked.fetch_add(1, Ordering::Relaxed) == 2;
        let first = stored.load(Ordering::Relaxed).max(above) + 1;
        stored.store(first, Ordering::Relaxed);
        let start = SequenceStart { last_sequence_id: first, registered: false, shared: true };
        std::future::ready((!is_away).then_some(start))
    });
    let rollout = RolloutId::from("ro-1");
    assert_eq!(allocator.next_run(&rollout, 3).await, [1, 2, 3]);
    assert_eq!(allocator.next_run(&rollout, 2).await, [4, 5]);
    assert_eq!(allocator.next_run(&rollout, 2).await, [6, 7], "counted here");
    assert_eq!(id(&allocator, &rollout, Some(20)).await, 20);
    assert_eq!(allocator.next_run(&rollout, 2).await, [21, 22]);
    assert_eq!(id(&allocator, &rollout, None).await, 23);
    assert_eq!(questions.load(Ordering::Relaxed), 5);
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
