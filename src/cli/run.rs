//! `tracewire run -- CMD`: a proxy door for one command, its environment, its exit code, its timeline.
//!
//! stdin, stdout and stderr are the command's until it has ended.

use super::recorded::{Recorded, command_name};
use super::{DoorArgs, StoreArgs, show};
use crate::app::place_name;
use crate::config::Config;
use crate::trace::{Span, SpanKind};
use anyhow::Result;
use clap::Args;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `run`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire run -- python3 agent.py
  tracewire run --name nightly --include-bodies --timeout 600 -- ./agent --task 7")]
pub(super) struct RunArgs {
    /// What to call this run [default: the command's name]
    #[arg(long)]
    name: Option<String>,
    /// The rollout it belongs to [default: a new one]
    #[arg(long, value_name = "ID")]
    rollout: Option<String>,
    /// The attempt of that rollout [default: a new one]
    #[arg(long, value_name = "ID")]
    attempt: Option<String>,
    /// End the command and all it started after so many seconds; the exit code is 124
    #[arg(long, value_name = "SECS")]
    timeout: Option<u64>,
    /// Record header fields, redacted
    #[arg(long)]
    include_headers: bool,
    /// Record bodies, redacted
    #[arg(long)]
    include_bodies: bool,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    door: DoorArgs,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) async fn run(args: RunArgs) -> Result<ExitCode> {
    let mut config = args.door.config()?;
    config.capture.include_headers |= args.include_headers;
    config.capture.include_bodies |= args.include_bodies;
    args.store.apply(&mut config.store);
    let mut recorded = Recorded::new(args.name.unwrap_or_else(|| command_name(&args.command)), args.command);
    if let Some(rollout) = args.rollout {
        recorded.rollout = rollout.as_str().into();
    }
    if let Some(attempt) = args.attempt {
        recorded.attempt = attempt.as_str().into();
    }
    recorded.timeout = args.timeout.map(Duration::from_secs);
    record_and_show(&recorded, &config).await
}

/// Runs a command behind a door of its own and shows its timeline; also what `demo` is made of.
pub(super) async fn record_and_show(recorded: &Recorded, config: &Config) -> Result<ExitCode> {
    let run = recorded.run(config).await?;
    for note in &run.notes {
        show::note(&format!("tracewire: {note}"));
    }
    match &run.spans {
        Ok(spans) => show_spans(recorded, spans, config),
        Err(error) => show::note(&format!("tracewire: the store can't be read: {error}")),
    }
    if run.stopped.lost + run.stopped.dropped > 0 {
        let (lost, dropped) = (run.stopped.lost, run.stopped.dropped);
        show::note(&format!("tracewire: {lost} spans lost, {dropped} not recorded"));
    }
    if let Err(error) = &run.ended {
        show::note(&format!("tracewire: {error}"));
    }
    Ok(run.exit_code())
}

fn show_spans(recorded: &Recorded, spans: &[Span], config: &Config) {
    if !spans.iter().any(|span| span.kind == SpanKind::Client) {
        let command = command_name(&recorded.command);
        return show::note(&format!(
            "tracewire: no exchange was seen. If {command} talks HTTP, it goes past HTTPS_PROXY or distrusts the \
             proxy's certificate: `tracewire doctor -- {command} …` says which, and what to do."
        ));
    }
    show::note(show::timeline(&recorded.name, spans, &std::io::stderr()).trim_end());
    let store = place_name(&config.store);
    show::note(&format!("tracewire: rollout {} stored in {store}", recorded.rollout));
}
