//! Sequence ids: monotonic per rollout, taken when a request starts, going on where the store left off.
//!
//! Only the first exchange of a rollout in this process asks the store; it waits briefly at most.

use crate::trace::RolloutId;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;

/// What is known of a rollout before its first exchange in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceStart {
    /// The highest id given so far.
    pub last_sequence_id: u64,
    /// True when somebody registered the rollout.
    pub registered: bool,
    /// True when others count too: the id was given out to whoever asked for this.
    pub shared: bool,
}

/// Where seeds come from; `None` when it can't be known now. `capture` may not name the store, so `app` passes this in.
pub type SequenceStarts =
    Arc<dyn Fn(RolloutId) -> Pin<Box<dyn Future<Output = Option<SequenceStart>> + Send>> + Send + Sync>;

/// Gives out sequence ids.
#[derive(Clone)]
pub struct SequenceAllocator {
    source: SequenceStarts,
    rollouts: Arc<Mutex<HashMap<RolloutId, Arc<Rollout>>>>,
}

#[derive(Default)]
struct Rollout {
    seed: OnceCell<SequenceStart>,
    last: AtomicU64,
}

impl SequenceAllocator {
    /// Ids that go on from what `source` says.
    pub fn new(source: SequenceStarts) -> Self {
        Self { source, rollouts: Arc::default() }
    }

    /// The next id of a rollout, or `given` if the caller named one, which raises the counter to it. True when the
    /// rollout is registered.
    pub async fn next(&self, id: &RolloutId, given: Option<u64>) -> (u64, bool) {
        let rollout = {
            let mut rollouts = self.rollouts.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(rollouts.entry(id.clone()).or_default())
        };
        let mut is_first = false;
        let asked = rollout.seed.get_or_try_init(async || {
            is_first = true;
            let seed = self.ask(id).await.ok_or(())?;
            rollout.last.fetch_max(seed.last_sequence_id, Ordering::Relaxed);
            Ok::<_, ()>(seed)
        });
        // While the store does not answer, this one counts alone; the next asks again.
        let seed = asked.await.copied().unwrap_or_default();
        if seed.shared && given.is_none() {
            // Others count too: each id is asked for.
            let seed = if is_first { Some(seed) } else { self.ask(id).await };
            if let Some(seed) = seed.filter(|seed| seed.shared) {
                rollout.last.fetch_max(seed.last_sequence_id, Ordering::Relaxed);
                return (seed.last_sequence_id, seed.registered);
            }
        }
        let sequence_id = match given.filter(|given| *given <= MAX_GIVEN) {
            Some(given) => {
                rollout.last.fetch_max(given, Ordering::Relaxed);
                given
            }
            None => rollout.last.fetch_add(1, Ordering::Relaxed) + 1,
        };
        (sequence_id, seed.registered)
    }

    async fn ask(&self, id: &RolloutId) -> Option<SequenceStart> {
        let seed = tokio::time::timeout(SEED_TIMEOUT, (self.source)(id.clone())).await.ok().flatten();
        if seed.is_none() {
            tracing::warn!(rollout_id = %id, "the store does not say where this rollout stands; counting alone");
        }
        seed
    }
}

/// Ids that callers name: JSON has no larger whole numbers (RFC 8259 §6).
const MAX_GIVEN: u64 = 1 << 53;
/// A store that is busy longer than this must not hold up a request.
const SEED_TIMEOUT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(seed: Option<SequenceStart>) -> SequenceAllocator {
        SequenceAllocator::new(Arc::new(move |_| Box::pin(std::future::ready(seed))))
    }

    #[tokio::test]
    async fn goes_on_from_the_store_and_from_given_ids() {
        let sequences = sequences(Some(SequenceStart { last_sequence_id: 7, registered: true, shared: false }));
        let id = RolloutId::from("ro-1");
        assert_eq!(sequences.next(&id, None).await, (8, true));
        assert_eq!(sequences.next(&id, Some(20)).await, (20, true));
        assert_eq!(sequences.next(&id, Some(3)).await, (3, true));
        assert_eq!(sequences.next(&id, None).await, (21, true));
    }

    #[tokio::test]
    async fn where_others_count_each_id_is_asked_for() {
        let asked = Arc::new(AtomicU64::new(10));
        let counted = Arc::clone(&asked);
        let sequences = SequenceAllocator::new(Arc::new(move |_| {
            let last_sequence_id = counted.fetch_add(5, Ordering::Relaxed);
            // Away for the third.
            let seed = SequenceStart { last_sequence_id, registered: false, shared: true };
            Box::pin(std::future::ready((last_sequence_id != 20).then_some(seed)))
        }));
        let id = RolloutId::from("ro-1");
        let mut ids = Vec::new();
        for given in [None, None, Some(17), None, None] {
            ids.push(sequences.next(&id, given).await.0);
        }
        assert_eq!(ids, [10, 15, 17, 18, 25]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_store_holds_nothing_up() {
        let sequences = SequenceAllocator::new(Arc::new(|_| Box::pin(std::future::pending())));
        assert_eq!(sequences.next(&RolloutId::from("ro-1"), None).await, (1, false));
    }

    #[tokio::test]
    async fn concurrent_requests_never_share_an_id() {
        let sequences = sequences(None);
        let id = RolloutId::from("ro-1");
        let all = (0..200).map(|_| {
            let (sequences, id) = (sequences.clone(), id.clone());
            tokio::spawn(async move { sequences.next(&id, None).await.0 })
        });
        let mut ids = Vec::new();
        for task in all.collect::<Vec<_>>() {
            ids.push(task.await.unwrap());
        }
        ids.sort_unstable();
        assert_eq!(ids, (1..=200).collect::<Vec<_>>());
    }
}
