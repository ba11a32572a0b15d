//! A counter of what is in flight, with permits that count until they are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Counts something until the permits are dropped. Cheap to clone; clones are the same counter.
#[derive(Clone, Debug, Default)]
pub(super) struct InFlightCounter(Arc<Counter>);

#[derive(Debug, Default)]
struct Counter {
    count: AtomicUsize,
    became_zero: Notify,
}

/// One of those that are counted; dropped when it is over.
#[derive(Debug)]
pub(super) struct InFlightPermit(Arc<Counter>);

impl InFlightCounter {
    /// Counts one more.
    pub(super) fn enter(&self) -> InFlightPermit {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        InFlightPermit(Arc::clone(&self.0))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Completes when there are none.
    pub(super) async fn zero(&self) {
        loop {
            let became_zero = self.0.became_zero.notified();
            tokio::pin!(became_zero);
            // Before the count is read: what reaches zero after that wakes us.
            became_zero.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            became_zero.await;
        }
    }
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.became_zero.notify_waiters();
        }
    }
}
