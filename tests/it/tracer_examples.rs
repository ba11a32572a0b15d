//! The examples run as they are shown: each checks what it recorded.

use crate::support::Bench;
use tracewire::store::sqlite::{SqliteOptions, SqliteStore};

#[path = "../../examples/custom_tracer.rs"]
mod custom_tracer;
#[path = "../../examples/distributed_trace.rs"]
mod distributed_trace;
#[path = "../../examples/http_tracer.rs"]
#[allow(dead_code, reason = "its main function reads the arguments")]
mod http_tracer;
#[path = "../../examples/record_and_read_back.rs"]
#[allow(dead_code, reason = "its main function reads the arguments")]
mod record_and_read_back;
#[path = "../../examples/traced_agent.rs"]
mod traced_agent;

#[test]
fn custom_tracer_runs() {
    custom_tracer::main().unwrap();
}

#[test]
fn traced_agent_runs() {
    traced_agent::main().unwrap();
}

#[test]
fn distributed_trace_runs() {
    distributed_trace::main().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn http_tracer_runs() {
    let bench = Bench::new();
    let call = format!("curl -sS --noproxy '' {}/v1/models", bench.http());
    http_tracer::record(["sh", "-c", &call].map(str::to_owned).to_vec()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn record_and_read_back_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("traces.db");
    record_and_read_back::record_and_read(&file).await.unwrap();
    assert!(SqliteStore::open_for_reading(&file, SqliteOptions::default()).is_ok());
    assert!(folder.path().join("traces.jaeger.json").exists());
}
