//! What a tracer costs the traced code: the limit is 2 µs for a span, and for an operation. Run it with
//! `cargo bench --bench tracer` in `bench/parts`.

use std::sync::Arc;
use std::time::Instant;
use tracewire::store::{Retention, memory::MemoryStore};
use tracewire::tracer::{DummyTracer, NewSpan, StoreTracer, Tracer};

// As the program has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let store = StoreTracer::new(Arc::new(MemoryStore::new(Retention::default()))).unwrap();
    measured("DummyTracer", &DummyTracer::new());
    measured("StoreTracer", &store);
    println!("{:?}", store.counters());
}

/// Rounds of 4,000 spans, so that the queue of a store tracer has room for each.
fn measured(name: &str, tracer: &impl Tracer) {
    tracer.init_worker(0).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut spans, mut operations) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let guard = tracer.trace_guard("bench").unwrap();
        let start = Instant::now();
        for _ in 0..SPANS {
            tracer.create_span(NewSpan::new("step").attribute("size", 7)).unwrap();
        }
        spans.push(start.elapsed() / SPANS);
        runtime.block_on(tracer.flush()).unwrap();
        let start = Instant::now();
        for _ in 0..SPANS {
            let operation = tracer.operation("step").unwrap();
            operation.record("size", 7);
            operation.end();
        }
        operations.push(start.elapsed() / SPANS);
        drop(guard);
        runtime.block_on(tracer.flush()).unwrap();
    }
    spans.sort();
    operations.sort();
    println!("{name}: create_span {:?}, operation {:?} (median of {ROUNDS} rounds)", spans[ROUNDS / 2], operations[ROUNDS / 2]);
}

const ROUNDS: usize = 21;
const SPANS: u32 = 4000;
