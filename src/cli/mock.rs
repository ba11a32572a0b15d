//! `tracewire mock`: runs the mock LLM endpoint until it is stopped.

use super::show;
use crate::files::write_private;
use crate::mock::{Mock, MockOptions, Script};
use crate::run::RunFolder;
use crate::run::signals::stop_requests;
use crate::util::listen_address;
use anyhow::{Context, Result};
use clap::Args;
use rustix::process::Signal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;

/// Arguments of `mock`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire mock --http 127.0.0.1:8000 --chunk-delay-ms 100
  curl http://127.0.0.1:8000/v1/models
  tracewire mock --http 127.0.0.1:8000 --script turns.json

A request can change its response with these headers or query parameters:
  x-mock-delay-ms, x-mock-chunk-delay-ms, x-mock-chunks, x-mock-status,
  x-mock-fail (reset, truncate, stall, error-in-stream)")]
pub(super) struct MockArgs {
    /// The address for HTTP (port 0: any free port)
    #[arg(long, value_name = "ADDR", value_parser = listen_address::parse, default_value = "127.0.0.1:0")]
    http: SocketAddr,
    /// The address for HTTPS (port 0: any free port)
    #[arg(long, value_name = "ADDR", value_parser = listen_address::parse, default_value = "127.0.0.1:0")]
    https: SocketAddr,
    /// Delay before every response
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay_ms: u64,
    /// Delay before every chunk of a streamed response
    #[arg(long, value_name = "MS", default_value_t = 0)]
    chunk_delay_ms: u64,
    /// Number of content chunks of a streamed response
    #[arg(long, default_value_t = 10)]
    chunks: usize,
    /// Include the token id fields in every response, null unless requested, as vLLM does
    #[arg(long)]
    vllm: bool,
    /// File with the answers to play, JSON or YAML (docs/mock.md)
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// File to write the CA certificate to [default: a temporary file]
    #[arg(long, value_name = "FILE")]
    ca_out: Option<PathBuf>,
    /// Print the addresses as one JSON line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: MockArgs) -> Result<ExitCode> {
    let mut stop = stop_requests(&[Signal::TERM, Signal::INT])?;
    let http =
        TcpListener::bind(args.http).await.with_context(|| format!("cannot listen on {} (--http)", args.http))?;
    let https =
        TcpListener::bind(args.https).await.with_context(|| format!("cannot listen on {} (--https)", args.https))?;
    let options = MockOptions {
        delay: Duration::from_millis(args.delay_ms),
        chunk_delay: Duration::from_millis(args.chunk_delay_ms),
        chunks: args.chunks,
        vllm: args.vllm,
    };
    let script = args.script.as_deref().map(Script::read).transpose()?;
    let mock = Mock::start(Some(http), Some(https), options, script).await?;
    let folder = RunFolder::create().context("cannot create a temporary folder; check TMPDIR")?;
    let ca = args.ca_out.unwrap_or_else(|| folder.path().join("mock-ca.pem"));
    write_private(&ca, mock.ca_pem()).with_context(|| format!("cannot write {} (--ca-out)", ca.display()))?;
    let http = mock.http_addr().map(|address| format!("http://{address}")).unwrap_or_default();
    let https = mock.https_addr().map(|address| format!("https://{address}")).unwrap_or_default();
    if args.json {
        show::out(format!("{}\n", serde_json::json!({ "http": http, "https": https, "ca": ca })))?;
    } else {
        show::out(format!("http   {http}\nhttps  {https}\nca     {}\n", ca.display()))?;
    }
    stop.recv().await;
    Ok(ExitCode::SUCCESS)
}
