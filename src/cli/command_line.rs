//! Parses the command line, starts the log and the runtime, and runs the subcommand.

use super::{
    ca, demo, demo_agent, diff, doctor, emit, enqueue, env, export, import, key, log, mock, reward, run, serve, show,
    store, tail, trace, trajectory, ui, wait, worker,
};
use crate::util::panics;
use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;

/// Record the HTTP traffic of AI agents as spans, in any language and without changes to the agent.
#[derive(Parser)]
#[command(name = "tracewire", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    color: colorchoice_clap::Color,
}

#[derive(Subcommand)]
enum Command {
    /// Run a command, record its HTTP traffic, and print a timeline
    Run(run::RunArgs),
    /// Run the proxy and the API server until stopped
    Serve(serve::ServeArgs),
    /// Print the environment variables that send a shell's commands through the proxy
    Env(env::EnvArgs),
    /// Print the CA certificate or its path
    Ca(ca::CaArgs),
    /// List rollouts, or show one
    Trace(trace::TraceArgs),
    /// Show where two rollouts part, and what each did then
    Diff(diff::DiffArgs),
    /// Print each span as it is stored
    Tail(tail::TailArgs),
    /// Show what a trace store takes, remove what is too old or too much, give back space
    Store(store::StoreCommandArgs),
    /// Open the web page of a trace store
    Ui(ui::UiArgs),
    /// Write rollouts as training data, or their spans in the formats of other programs
    Export(export::ExportArgs),
    /// Store what other programs recorded: HAR, OTLP, Jaeger, ATIF, mitmproxy, sessions of coding agents
    Import(import::ImportArgs),
    /// Show the calls of a rollout as the tree that is trained on
    Trajectory(trajectory::TrajectoryArgs),
    /// Find out what is not traced, and why: test the HTTP clients of this machine, or watch a command
    Doctor(doctor::DoctorArgs),
    /// Run a command for each waiting rollout, and report the result to the server
    Worker(worker::WorkerArgs),
    /// Add rollouts to the queue of the server, from a file of tasks
    Enqueue(enqueue::EnqueueArgs),
    /// Wait until rollouts have ended
    Wait(wait::WaitArgs),
    /// Create an API key for a rollout, for agents that call the gateway
    Key(key::KeyArgs),
    /// Give a rollout a reward
    Reward(reward::RewardArgs),
    /// Record a reward, a note or a span of the rollout that this shell runs in
    Emit(emit::EmitArgs),
    /// Run a mock LLM endpoint, for tests and experiments without an API key
    Mock(mock::MockArgs),
    /// Trace a small agent that calls a mock endpoint; needs no network and no API key
    Demo(demo::DemoArgs),
    #[command(hide = true)]
    DemoAgent(demo_agent::DemoAgentArgs),
}

impl Cli {
    /// Parses the arguments of this process. Otherwise, prints help, the version, or what is wrong, and returns the exit code.
    pub fn from_arguments() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|message| {
            let printed = show::unless_closed(message.print().and_then(|()| std::io::stdout().flush()));
            let code = if printed.is_err() { 2 } else { message.exit_code() };
            ExitCode::from(u8::try_from(code).unwrap_or(2))
        })
    }

    /// Runs the subcommand. An error is printed once, with its causes; the exit code is then 2.
    pub fn run(self) -> ExitCode {
        self.color.write_global();
        let level = match self.command {
            Command::Serve(_) => LevelFilter::INFO,
            // stderr belongs to the traced command.
            _ => LevelFilter::ERROR,
        };
        if let Err(error) = log::start(level) {
            return failed(&error.into());
        }
        panics::observe();
        crate::tls::install_provider();
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return failed(&anyhow::Error::new(error).context("cannot start the async runtime")),
        };
        let result = runtime.block_on(async {
            match self.command {
                Command::Run(args) => Box::pin(run::run(args)).await,
                Command::Serve(args) => Box::pin(serve::run(args)).await,
                Command::Env(args) => env::run(&args).await,
                Command::Ca(args) => ca::run(&args),
                Command::Trace(args) => trace::run(args).await,
                Command::Diff(args) => Box::pin(diff::run(args)).await,
                Command::Tail(args) => Box::pin(tail::run(args)).await,
                Command::Store(args) => Box::pin(store::run(args)).await,
                Command::Ui(args) => Box::pin(ui::run(args)).await,
                Command::Export(args) => Box::pin(export::run(args)).await,
                Command::Import(args) => Box::pin(import::run(args)).await,
                Command::Trajectory(args) => Box::pin(trajectory::run(args)).await,
                Command::Enqueue(args) => Box::pin(enqueue::run(args)).await,
                Command::Wait(args) => Box::pin(wait::run(args)).await,
                Command::Doctor(args) => Box::pin(doctor::run(args)).await,
                Command::Worker(args) => Box::pin(worker::run(args)).await,
                Command::Key(args) => Box::pin(key::run(args)).await,
                Command::Reward(args) => Box::pin(reward::run(args)).await,
                Command::Emit(args) => Box::pin(emit::run(args)).await,
                Command::Mock(args) => Box::pin(mock::run(args)).await,
                Command::Demo(args) => Box::pin(demo::run(args)).await,
                Command::DemoAgent(args) => Box::pin(demo_agent::run(args)).await,
            }
        });
        // Connections that are still open must not keep the process alive.
        runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
        result.unwrap_or_else(|error| failed(&error))
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    show::note(&format!("tracewire: {error:#}"));
    ExitCode::from(2)
}

const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "Examples:
  tracewire demo
  tracewire run -- python3 agent.py
  tracewire doctor
  tracewire trace list status:failed since:1h
  tracewire ui
  tracewire serve --config proxy.toml

Environment variables:
  TRACEWIRE_HOME   the data folder [default: ~/.local/share/tracewire]
  TRACEWIRE_TOKEN  the token of the proxy and of the API server
  TRACEWIRE_LOG    what is logged to stderr: off, error, warn, info, debug, trace, or TARGET=LEVEL,…
  TRACEWIRE_LOG_FORMAT  text or json [default: text]";
