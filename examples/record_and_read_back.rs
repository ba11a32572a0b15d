//! Records a trace into a file that `tracewire trace show` and `tracewire ui` open too, and reads it back. Run it with
//! `cargo run --example record_and_read_back -- traces.db`.

#![allow(clippy::print_stdout, unreachable_pub, reason = "an example prints, and a test calls its main function")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracewire::rollout::{NewRollout, Rollouts};
use tracewire::store::Store;
use tracewire::store::sqlite::{SqliteOptions, SqliteStore};
use tracewire::tracer::{StoreTracer, Trace, TraceOptions, Tracer, emit, traced};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the example.
#[tokio::main(flavor = "multi_thread")]
pub async fn main() -> Result<(), AnyError> {
    let file = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("traces.db"), PathBuf::from);
    record_and_read(&file).await
}

/// Records a trace into a file, and reads it back.
pub async fn record_and_read(file: &Path) -> Result<(), AnyError> {
    let store = Arc::new(SqliteStore::open(file, SqliteOptions::default())?);

    // A rollout with an attempt, as a runner starts them. Without them, the tracer creates both.
    let rollouts = Rollouts::new(store.clone());
    let input = serde_json::json!({ "question": "What is 6 times 7?" });
    let task = NewRollout { input, mode: None, resources_id: None, config: None, metadata: None };
    let started = rollouts.start(task, None).await?;
    let attempt = started.attempt.ok_or("the attempt has started")?;

    let tracer = StoreTracer::new(store.clone())?;
    tracer.init_worker(0)?;
    let options = TraceOptions::new("task").rollout(started.rollout.rollout_id.as_str());
    tracer
        .trace_context(options.attempt(attempt.attempt_id.as_str()), async {
            let product = traced("multiply", async { 6_i32.checked_mul(7).ok_or("overflow") }).await?;
            emit::reward(if product == 42 { 1.0 } else { 0.0 })?;
            Ok::<_, AnyError>(())
        })
        .await?;
    tracer.teardown_worker(0).await?;

    let trace = Trace::read(&*store, started.rollout.rollout_id, attempt.attempt_id).await?;
    assert_eq!(trace.spans().len(), 3);
    print!("{}", trace.timeline());
    std::fs::write(file.with_extension("jaeger.json"), trace.to_jaeger()?)?;
    Ok(store.close().await?)
}
