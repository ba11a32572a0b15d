//! The memory that all recorded bodies may use together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A shared number of bytes. A request for some never waits: it is granted or denied.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    left: Arc<AtomicU64>,
}

/// The bytes that one exchange uses. They return to the budget when it is dropped.
#[derive(Debug)]
pub struct MemoryShare {
    budget: MemoryBudget,
    bytes: u64,
}

impl MemoryBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        Self { left: Arc::new(AtomicU64::new(bytes)) }
    }

    /// Bytes that no exchange uses.
    pub fn left_bytes(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// A share of nothing yet.
    pub fn share(&self) -> MemoryShare {
        MemoryShare { budget: self.clone(), bytes: 0 }
    }
}

impl MemoryShare {
    /// Takes `bytes` more from the budget. False if there are too few: then it takes none.
    pub fn try_grow(&mut self, bytes: u64) -> bool {
        let take = |left: u64| left.checked_sub(bytes);
        let granted = self.budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if granted {
            self.bytes += bytes;
        }
        granted
    }

    /// Returns `bytes` to the budget.
    pub fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_returns_what_it_took() {
        let budget = MemoryBudget::new(10);
        let mut share = budget.share();
        assert!(share.try_grow(8) && !share.try_grow(3) && share.try_grow(2));
        share.shrink(1);
        assert_eq!(budget.left_bytes(), 1);
        drop(share);
        assert_eq!(budget.left_bytes(), 10);
    }
}
