//! The command line, one file per subcommand. With `main.rs` the only place that prints or decides exit codes.

mod ca;
mod client;
mod demo;
mod demo_agent;
mod doctor;
mod env;
mod key;
mod mock;
mod recorded;
mod reward;
mod run;
mod serve;
mod show;
mod trace;
mod worker;

use crate::config::{Config, StoreSettings};
use crate::run::Loopback;
use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// See every HTTP exchange of an agent as a span, in any language, without changing it.
#[derive(Parser)]
#[command(name = "tracewire", version, about, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a command, record what it does on the wire, and show it
    Run(run::RunArgs),
    /// Run both doors until stopped: the proxy, and the server with health and metrics
    Serve(serve::ServeArgs),
    /// Print the environment that sends a shell's commands through the proxy door
    Env(env::EnvArgs),
    /// Where the CA certificate is, and the certificate itself
    Ca(ca::CaArgs),
    /// List rollouts, and show what one did
    Trace(trace::TraceArgs),
    /// Try every client of this machine, or watch one command, and say what is not traced and why
    Doctor(doctor::DoctorArgs),
    /// Run a command for every rollout that waits, and tell the server how it ended
    Worker(worker::WorkerArgs),
    /// Make an API key that names a rollout, for agents that call the gateway
    Key(key::KeyArgs),
    /// Give a rollout a reward
    Reward(reward::RewardArgs),
    /// Run a mock LLM endpoint: to try without a key, to test, to load
    Mock(mock::MockArgs),
    /// A mock endpoint, a small agent and its trace: no network, no key, no set-up
    Demo(demo::DemoArgs),
    #[command(hide = true)]
    DemoAgent(demo_agent::DemoAgentArgs),
}

/// Where traces are kept.
#[derive(Args, Clone, Debug)]
pub(crate) struct StoreArgs {
    /// The trace store: a file, `memory:`, or a PostgreSQL URL [default: traces.db under the data folder]
    #[arg(long, global = true, value_name = "PATH|memory:|postgres://…")]
    store: Option<PathBuf>,
}

impl StoreArgs {
    fn apply(&self, settings: &mut StoreSettings) {
        if let Some(path) = &self.store {
            settings.path = Some(path.clone());
        }
    }

    fn is_default(&self) -> bool {
        self.store.is_none()
    }

    fn settings(&self) -> StoreSettings {
        let mut settings = StoreSettings::default();
        self.apply(&mut settings);
        settings
    }
}

/// The door that a command is run behind.
#[derive(Args, Clone, Debug)]
pub(crate) struct DoorArgs {
    /// Are calls to this machine itself traced? [default: auto, that is unless NO_PROXY names it]
    #[arg(long, value_enum)]
    loopback: Option<Loopback>,
    /// Load nothing into Node and Python programs
    #[arg(long)]
    no_hooks: bool,
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// PEM file with roots for endpoints, besides the system's (may be given again)
    #[arg(long, value_name = "PEM")]
    upstream_ca: Vec<PathBuf>,
    /// Dial another address for a host and port, as curl has it (may be given again)
    #[arg(long, value_name = "HOST:PORT:HOST:PORT")]
    connect_to: Vec<String>,
}

impl DoorArgs {
    fn config(&self) -> Result<Config> {
        let mut config = read_config(self.config.as_ref())?;
        config.tls.upstream_ca.extend_from_slice(&self.upstream_ca);
        config.upstream.connect_to.extend_from_slice(&self.connect_to);
        config.run.loopback = self.loopback.unwrap_or(config.run.loopback);
        config.run.hooks &= !self.no_hooks;
        Ok(config)
    }
}

impl Cli {
    /// Runs the subcommand. Errors are printed here, once, with their causes.
    pub fn run(self) -> ExitCode {
        start_log(matches!(self.command, Command::Serve(_)));
        crate::tls::install_provider();
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return failed(&anyhow::Error::new(error).context("the runtime can't be started")),
        };
        let ended = runtime.block_on(async {
            match self.command {
                Command::Run(args) => Box::pin(run::run(args)).await,
                Command::Serve(args) => Box::pin(serve::run(args)).await,
                Command::Env(args) => env::run(&args),
                Command::Ca(args) => ca::run(&args),
                Command::Trace(args) => trace::run(args).await,
                Command::Doctor(args) => Box::pin(doctor::run(args)).await,
                Command::Worker(args) => Box::pin(worker::run(args)).await,
                Command::Key(args) => Box::pin(key::run(args)).await,
                Command::Reward(args) => Box::pin(reward::run(args)).await,
                Command::Mock(args) => Box::pin(mock::run(args)).await,
                Command::Demo(args) => Box::pin(demo::run(args)).await,
                Command::DemoAgent(args) => Box::pin(demo_agent::run(args)).await,
            }
        });
        // A connection that is still open must not keep the process.
        runtime.shutdown_timeout(std::time::Duration::from_millis(200));
        ended.unwrap_or_else(|error| failed(&error))
    }
}

#[expect(clippy::print_stderr, reason = "this is where errors reach people")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("tracewire: {error:#}");
    ExitCode::from(2)
}

/// The log goes to stderr. `run` is quiet by default: stderr belongs to the agent until it has ended.
fn start_log(serving: bool) {
    let default = if serving { "tracewire=info" } else { "tracewire=error" };
    let filter = EnvFilter::try_from_env("TRACEWIRE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // An error only says that a log was started before.
    let _ = format.try_init();
}

/// The settings of a file, or the defaults.
fn read_config(path: Option<&PathBuf>) -> Result<Config> {
    let mut config = match path {
        Some(path) => Config::read(path).context("the settings can't be used")?,
        None => Config::default(),
    };
    if let Some(token) = std::env::var("TRACEWIRE_TOKEN").ok().filter(|token| !token.is_empty()) {
        config.proxy.token = crate::proxy::Secret::new(token);
    }
    Ok(config)
}

/// A variable of our own environment.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

const EXAMPLES: &str = "Examples:
  tracewire demo
  tracewire run -- python3 agent.py
  tracewire doctor
  tracewire trace list
  tracewire serve --config proxy.toml

TRACEWIRE_HOME chooses the data folder, TRACEWIRE_LOG the log (error, warn, info, debug).";
