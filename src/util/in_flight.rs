//! A counter of what is in flight: calls, exchanges. A permit counts as one until it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The number of permits that exist. Cheap to clone; clones are the same counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlightCounter(Arc<Counter>);

#[derive(Debug, Default)]
struct Counter {
    count: AtomicUsize,
    became_zero: Notify,
}

/// Counts as one until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlightPermit(Arc<Counter>);

impl InFlightCounter {
    /// Counts one more, until the permit is dropped.
    pub(crate) fn enter(&self) -> InFlightPermit {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        InFlightPermit(Arc::clone(&self.0))
    }

    /// How many are in flight.
    pub(crate) fn count(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Completes when none is in flight.
    pub(crate) async fn zero(&self) {
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
