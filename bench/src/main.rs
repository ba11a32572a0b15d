//! Tracewire beside other proxies, beside a relay that records nothing, and beside no proxy, in one run.
//!
//! `bench/run`, `bench/service` and `bench/gateway` build and install what is measured and call `measure`, `service` and
//! `gateway`; the other commands are the processes that these start. It must not share code with Tracewire: what both
//! had could not be measured.

mod client;
mod drive;
mod failover;
mod gateway;
mod gateways;
mod long;
mod process;
mod recording;
mod relay;
mod report;
mod rival;
mod run;
mod service;
mod tls;
mod upstream;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, and print the tables
    Measure(run::RunArgs),
    /// Measure the store as a service, and print the table
    Service(service::ServiceArgs),
    /// Measure the LLM gateway, and print the tables
    Gateway(gateway::GatewayArgs),
    /// The endpoint
    Upstream { ca: PathBuf },
    /// The endpoint without TLS, as vLLM answers
    Endpoint,
    /// The floor: a relay that records nothing
    Relay {
        ca: PathBuf,
        /// Without TLS, to this endpoint
        #[arg(long)]
        to: Option<SocketAddr>,
    },
    /// hudsucker, recording nothing
    Rival {
        ca: PathBuf,
        #[arg(long)]
        http2: bool,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Measure(args) => Box::pin(run::run(args)).await,
        Command::Service(args) => service::run(args).await,
        Command::Gateway(args) => Box::pin(gateway::run(args)).await,
        Command::Endpoint => upstream::serve_plain().await,
        Command::Upstream { ca } => upstream::serve(&tls::Ca::open(&ca)).await,
        Command::Relay { to: Some(target), .. } => relay::serve_plain(target).await,
        Command::Relay { ca, to: None } => relay::serve(&tls::Ca::open(&ca)).await,
        Command::Rival { ca, http2 } => rival::serve(&tls::Ca::open(&ca), http2).await,
    }
}

/// The line that says where a process serves.
fn say_ready(address: SocketAddr) {
    println!("ready {address}");
}
