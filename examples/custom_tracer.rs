//! A tracer of your own: it counts spans and keeps the slowest one. Run it with `cargo run --example custom_tracer`.

#![allow(clippy::print_stdout, unreachable_pub, reason = "an example prints, and a test calls its main function")]

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracewire::trace::Span;
use tracewire::tracer::{SpanProcessor, Tracer, TracerCore, TracerError, traced_sync};

/// What the tracer has seen. A processor gets each span when it has ended, and must not block.
#[derive(Default)]
struct Slowest(Mutex<(usize, Option<Arc<Span>>)>);

impl SpanProcessor for Slowest {
    fn on_end(&self, span: Arc<Span>) {
        let Ok(mut seen) = self.0.lock() else { return };
        seen.0 += 1;
        if seen.1.as_ref().is_none_or(|slowest| duration(&span) > duration(slowest)) {
            seen.1 = Some(span);
        }
    }
}

/// The tracer itself: everything but `core` has a default.
struct SlowestTracer(TracerCore);

impl Tracer for SlowestTracer {
    fn core(&self) -> &TracerCore {
        &self.0
    }
}

/// Runs the example.
pub fn main() -> Result<(), TracerError> {
    let seen = Arc::new(Slowest::default());
    let tracer = SlowestTracer(TracerCore::new("slowest", Arc::clone(&seen)));
    tracer.init_worker(0)?;

    let guard = tracer.trace_guard("task")?;
    traced_sync("quick", || Ok::<_, TracerError>(()))?;
    traced_sync("slow", || Ok::<u64, TracerError>((0..10_000).sum()))?;
    guard.end();

    let Ok(seen) = seen.0.lock() else { return Ok(()) };
    let slowest = seen.1.as_ref().map(|span| span.name.as_str());
    assert_eq!((seen.0, slowest), (3, Some("task")));
    println!("{} spans, the slowest is {slowest:?}", seen.0);
    Ok(())
}

fn duration(span: &Span) -> Duration {
    span.end_time.unwrap_or_default().since(span.start_time.unwrap_or_default())
}
