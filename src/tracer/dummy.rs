//! The tracer without a store.

use super::contract::Tracer;
use super::core::TracerCore;
use super::processor::Discard;

/// Records traces in memory only: [`Tracer::last_trace`] returns them. For tests, and as the reference of the contract.
#[derive(Clone, Debug)]
pub struct DummyTracer(TracerCore);

impl DummyTracer {
    /// A tracer without workers.
    pub fn new() -> Self {
        Self(TracerCore::new("dummy", Discard))
    }
}

impl Default for DummyTracer {
    fn default() -> Self {
        Self::new()
    }
}

impl Tracer for DummyTracer {
    fn core(&self) -> &TracerCore {
        &self.0
    }
}
