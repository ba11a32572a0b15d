//! The memory that everything in flight may use together: recorded bodies, and bodies that are held to be changed, sent
//! again or passed on later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What memory is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryUse {
    /// Recorded bodies, and the LLM calls that are read from them.
    Capture,
    /// Requests that the gateway may send again.
    GatewayRequest,
    /// Responses that the gateway awaits whole.
    GatewayResponse,
    /// Requests that are read whole so that fields can be added.
    Injection,
    /// Responses of which the length must be known once fields were removed.
    Stripping,
    /// Responses that are kept for retries.
    Retries,
    /// Recorded WebSocket messages.
    WebSocket,
}

impl MemoryUse {
    /// All uses, in the order of their declaration.
    pub(crate) const ALL: [Self; 7] = [
        Self::Capture,
        Self::GatewayRequest,
        Self::GatewayResponse,
        Self::Injection,
        Self::Stripping,
        Self::Retries,
        Self::WebSocket,
    ];

    /// The word in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::GatewayRequest => "gateway_request",
            Self::GatewayResponse => "gateway_response",
            Self::Injection => "injection",
            Self::Stripping => "stripping",
            Self::Retries => "retries",
            Self::WebSocket => "websocket",
        }
    }
}

/// A shared number of bytes. A request for some never waits: it is granted or denied.
#[derive(Clone, Debug)]
pub(crate) struct MemoryBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
    by_use: [AtomicU64; MemoryUse::ALL.len()],
}

/// The bytes that one holder uses. They return to the budget when it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryShare {
    budget: MemoryBudget,
    memory_use: MemoryUse,
    bytes: u64,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        let by_use = std::array::from_fn(|_| AtomicU64::new(0));
        Self(Arc::new(Budget { limit, used: AtomicU64::new(0), peak: AtomicU64::new(0), by_use }))
    }

    /// Bytes that nothing uses.
    pub(crate) fn left_bytes(&self) -> u64 {
        self.0.limit.saturating_sub(self.0.used.load(Ordering::Relaxed))
    }

    /// The most bytes that were in use at once.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.0.peak.load(Ordering::Relaxed)
    }

    /// Bytes in use for something.
    pub(crate) fn used_for(&self, memory_use: MemoryUse) -> u64 {
        self.0.by_use[memory_use as usize].load(Ordering::Relaxed)
    }

    /// A share of nothing yet.
    pub(crate) fn share(&self, memory_use: MemoryUse) -> MemoryShare {
        MemoryShare { budget: self.clone(), memory_use, bytes: 0 }
    }
}

impl MemoryShare {
    /// The bytes of this share.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes `bytes` more from the budget. False if there are too few: then it takes none.
    pub(crate) fn try_grow(&mut self, bytes: u64) -> bool {
        let Budget { limit, used, .. } = &*self.budget.0;
        let take = |used: u64| used.checked_add(bytes).filter(|used| *used <= *limit);
        let Ok(before) = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) else { return false };
        self.took(before, bytes);
        true
    }

    /// Takes `bytes` more, also beyond the budget: they are in memory whether or not it has room for them.
    pub(crate) fn grow(&mut self, bytes: u64) {
        let before = self.budget.0.used.fetch_add(bytes, Ordering::Relaxed);
        self.took(before, bytes);
    }

    fn took(&mut self, before: u64, bytes: u64) {
        self.bytes += bytes;
        self.budget.0.peak.fetch_max(before + bytes, Ordering::Relaxed);
        self.budget.0.by_use[self.memory_use as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns `bytes` to the budget.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.0.used.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.0.by_use[self.memory_use as usize].fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_returns_what_it_took() {
        let budget = MemoryBudget::new(10);
        let mut share = budget.share(MemoryUse::Retries);
        assert!(share.try_grow(8) && !share.try_grow(3) && share.try_grow(2));
        share.shrink(1);
        assert_eq!((budget.left_bytes(), budget.peak_bytes()), (1, 10));
        assert_eq!(MemoryUse::ALL.map(|memory_use| budget.used_for(memory_use)), [0, 0, 0, 0, 0, 9, 0]);
        drop(share);
        assert_eq!((budget.left_bytes(), budget.used_for(MemoryUse::Retries)), (10, 0));
    }

    #[test]
    fn only_what_must_be_in_memory_exceeds_the_budget() {
        let budget = MemoryBudget::new(10);
        let (mut capture, mut request) = (budget.share(MemoryUse::Capture), budget.share(MemoryUse::GatewayRequest));
        request.grow(13);
        assert!(!capture.try_grow(1) && !capture.try_grow(u64::MAX));
        assert_eq!((budget.left_bytes(), budget.peak_bytes()), (0, 13));
        drop(request);
        assert!(capture.try_grow(10));
    }

    #[test]
    fn every_use_has_its_place() {
        for (at, memory_use) in MemoryUse::ALL.into_iter().enumerate() {
            assert_eq!(memory_use as usize, at);
        }
    }
}
