//! Records the HTTP calls of a child process, in any language. Run it with
//! `cargo run --example http_tracer -- python3 agent.py`; without arguments it runs a small shell script.

#![allow(clippy::print_stdout, unreachable_pub, reason = "an example prints, and a test calls its main function")]

use tracewire::tracer::{HttpTracer, TraceOptions, Tracer, TracerError};

/// Runs the example.
#[tokio::main(flavor = "multi_thread")]
pub async fn main() -> Result<(), TracerError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let command = if arguments.is_empty() { ["sh", "-c", SCRIPT].map(str::to_owned).to_vec() } else { arguments };
    record(command).await
}

/// Runs a command behind a proxy of its own, and prints what it called.
pub async fn record(command: Vec<String>) -> Result<(), TracerError> {
    let tracer = HttpTracer::new().with_headers().with_bodies().with_timeout(std::time::Duration::from_secs(60));
    tracer.init_worker(0)?;
    let end = tracer.run_command(TraceOptions::new("child"), command).await?;

    let trace = tracer.last_trace()?;
    println!("exit code {}", end.exit_code);
    print!("{}", trace.timeline());
    tracer.teardown_worker(0).await
}

const SCRIPT: &str = "command -v curl > /dev/null && curl -sS http://127.0.0.1:1/ || echo no server there";
