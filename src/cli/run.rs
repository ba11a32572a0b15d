//! `tracewire run -- CMD`: runs a command behind a proxy of its own, prints a timeline, and returns the command's exit
//! code.
//!
//! It prints nothing before the command has ended: stdin, stdout and stderr are the command's.

use super::args::{ProxyArgs, StoreArgs};
use super::recorded::{Recorded, command_name};
use super::show;
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
    /// The name of this run [default: the command's name]
    #[arg(long)]
    name: Option<String>,
    /// The rollout that this run belongs to [default: a new rollout]
    #[arg(long, value_name = "ID")]
    rollout: Option<String>,
    /// The attempt of the rollout [default: a new attempt]
    #[arg(long, value_name = "ID")]
    attempt: Option<String>,
    /// Stop the command and its process group after this time; the exit code is 124
    #[arg(long, value_name = "SECS")]
    timeout: Option<u64>,
    /// Record headers, redacted
    #[arg(long)]
    include_headers: bool,
    /// Record bodies, redacted
    #[arg(long)]
    include_bodies: bool,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    proxy_args: ProxyArgs,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) async fn run(args: RunArgs) -> Result<ExitCode> {
    let mut config = args.proxy_args.config()?;
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

/// Runs a command behind a proxy of its own and prints its timeline; `run` and `demo` share it.
pub(super) async fn record_and_show(recorded: &Recorded, config: &Config) -> Result<ExitCode> {
    let run = recorded.run(config).await?;
    for note in &run.notes {
        show::note(&format!("tracewire: {note}"));
    }
    match &run.spans {
        Ok(spans) => show_spans(recorded, spans, config),
        Err(error) => show::note(&format!("tracewire: cannot read the store: {error}")),
    }
    if run.stopped.lost + run.stopped.dropped > 0 {
        let (lost, dropped) = (show::count(run.stopped.lost, "span"), show::count(run.stopped.dropped, "exchange"));
        show::note(&format!("tracewire: {lost} lost (could not be stored), {dropped} not recorded (queue full)"));
    }
    if let Err(error) = &run.result {
        show::note(&format!("tracewire: {error}"));
    }
    Ok(run.exit_code())
}

fn show_spans(recorded: &Recorded, spans: &[Span], config: &Config) {
    if !spans.iter().any(|span| span.kind == Some(SpanKind::Client)) {
        let command = command_name(&recorded.command);
        return show::note(&format!(
            "tracewire: no exchange was seen. If {command} uses HTTP, it bypasses the proxy or rejects its certificate; \
             `tracewire doctor -- {command} …` finds the cause and the fix."
        ));
    }
    show::note(show::timeline(&recorded.name, spans, &std::io::stderr()).trim_end());
    let store = place_name(&config.store);
    show::note(&format!("tracewire: rollout {} stored in {store}", recorded.rollout));
}
