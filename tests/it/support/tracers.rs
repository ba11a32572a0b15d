//! Tracers with a worker, and the shape of what they recorded.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside the functions clippy takes for tests")]

use std::sync::Arc;
use tracewire::store::{Retention, memory::MemoryStore};
use tracewire::tracer::{DummyTracer, Trace, Tracer};

/// A tracer that keeps traces in memory, with a worker.
pub fn dummy() -> DummyTracer {
    let tracer = DummyTracer::new();
    tracer.init_worker(0).unwrap();
    tracer
}

/// An empty store without limits.
pub fn memory_store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Retention::default()))
}

/// The names of a trace's spans with their depths, each above those below it.
pub fn tree(trace: &Trace) -> Vec<(usize, &str)> {
    trace.tree().into_iter().map(|(depth, span)| (depth, span.name.as_str())).collect()
}
