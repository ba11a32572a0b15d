//! `tracewire run -- CMD`: runs a command behind a proxy of its own, prints a timeline, and returns the command's exit
//! code.
//!
//! It prints nothing before the command has ended: stdin, stdout and stderr are the command's.

use super::args::{ProxyArgs, StoreArgs, TimeLimit, id};
use super::recorded::{Recorded, RunResult, command_name};
use super::settings::add_export_of_environment;
use super::show;
use super::terminal::Screen;
use crate::app::place_name;
use crate::config::{Config, StorePlace};
use crate::doctor::diagnosis::unexpected_bypasses;
use crate::export::text::escape_for_terminal;
use crate::export::timeline::{Fold, TimelineOptions, render};
use crate::run::child::ChildEnd;
use crate::run::processes::Process;
use crate::run::render::shell_word;
use crate::trace::{Span, SpanKind};
use anyhow::Result;
use clap::Args;
use std::ffi::OsString;
use std::process::ExitCode;

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
    #[arg(long, value_name = "ID", value_parser = id)]
    rollout: Option<String>,
    /// The attempt of the rollout [default: a new attempt]
    #[arg(long, value_name = "ID", value_parser = id)]
    attempt: Option<String>,
    /// Stop the command and all processes that it started after this time; the exit code is 124. 0 means no limit
    #[arg(long, value_name = "SECS")]
    timeout: Option<TimeLimit>,
    /// Print no timeline, only what went wrong
    #[arg(long, short)]
    quiet: bool,
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
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) async fn run(args: RunArgs) -> Result<ExitCode> {
    let mut config = args.proxy_args.config()?;
    config.capture.include_headers |= args.include_headers;
    config.capture.include_bodies |= args.include_bodies;
    args.store.apply(&mut config.store);
    add_export_of_environment(&mut config);
    let mut recorded = Recorded::new(args.name.unwrap_or_else(|| command_name(&args.command)), args.command);
    if let Some(rollout) = args.rollout {
        recorded.rollout = rollout.as_str().into();
    }
    if let Some(attempt) = args.attempt {
        recorded.attempt = attempt.as_str().into();
    }
    recorded.timeout = args.timeout.and_then(TimeLimit::duration);
    let report = if args.quiet { Report::Problems } else { Report::Timeline };
    record_and_show(&recorded, &config, report).await
}

/// What is printed of a command that has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// Its timeline, and what went wrong.
    Timeline,
    /// Only what went wrong.
    Problems,
}

/// Runs a command behind a proxy of its own and prints its timeline; `run` and `demo` share it.
pub(super) async fn record_and_show(recorded: &Recorded, config: &Config, report: Report) -> Result<ExitCode> {
    let run = recorded.run(config).await?;
    let unrecorded = run.stopped.lost + run.stopped.dropped;
    match (&run.result, &run.spans) {
        // A command that did not start has nothing to show.
        (Err(error), _) => show::note(&format!("tracewire: {error}")),
        (Ok(_), Ok(spans)) => {
            run.notes.iter().for_each(|note| show::note(&format!("tracewire: {note}")));
            show_spans(recorded, spans, unrecorded, config, report);
        }
        (Ok(_), Err(error)) => show::note(&format!("tracewire: cannot read the store: {error}")),
    }
    if let (Ok(ChildEnd { timed_out: true, .. }), Some(limit)) = (&run.result, recorded.timeout) {
        let (command, seconds) = (command_name(&recorded.command), limit.as_secs_f64());
        show::note(&format!("tracewire: {command} was stopped because it ran longer than {seconds} s (--timeout)"));
    }
    if let Some(note) = bypasses(recorded, &run) {
        show::note(&format!("tracewire: {note}"));
    }
    if let Some(note) = left_running(recorded, &run.left_running) {
        show::note(&format!("tracewire: {note}"));
    }
    if unrecorded > 0 {
        let (lost, dropped) = (show::count(run.stopped.lost, "span"), show::count(run.stopped.dropped, "exchange"));
        show::note(&format!("tracewire: {lost} lost (could not be stored), {dropped} not recorded (queue full)"));
    }
    Ok(run.exit_code())
}

/// Names the first connection past the proxy: what it carried is not recorded, and the verdict of the rollout says so.
fn bypasses(recorded: &Recorded, run: &RunResult) -> Option<String> {
    let all = unexpected_bypasses(&run.observed, &run.unproxied);
    let first = all.first()?;
    let (program, others) = (escape_for_terminal(&first.program), all.len() - 1);
    let others = if others > 0 { format!(", and {others} more") } else { String::new() };
    let command = command_name(&recorded.command);
    Some(format!(
        "not all traffic was recorded: {program} connected to {} past the proxy{others}; `tracewire doctor -- {command} …` \
         finds the cause and the fix",
        first.remote
    ))
}

/// Names what the command left running: its calls fail now.
fn left_running(recorded: &Recorded, processes: &[Process]) -> Option<String> {
    let first = processes.iter().take(MAX_NAMED_PROCESSES);
    let named: Vec<_> =
        first.map(|Process { pid, program }| format!("{} (pid {pid})", escape_for_terminal(program))).collect();
    let others = processes.len() - named.len();
    let others = if others > 0 { format!(" and {others} more") } else { String::new() };
    let (command, count) = (command_name(&recorded.command), show::count(processes.len() as u64, "process"));
    let still = if processes.len() == 1 { "is still" } else { "are still" };
    (!named.is_empty()).then(|| {
        format!(
            "{command} has ended, but {count} that it started {still} running without the proxy: {}{others}. To record a \
             background program, start it with `tracewire run`, or use `tracewire serve` and `tracewire env`",
            named.join(", ")
        )
    })
}

const MAX_NAMED_PROCESSES: usize = 5;

fn show_spans(recorded: &Recorded, spans: &[Span], unrecorded: u64, config: &Config, report: Report) {
    if !spans.iter().any(|span| span.kind == Some(SpanKind::Client)) {
        if unrecorded > 0 {
            // There were exchanges, which are counted below.
            return;
        }
        let command = command_name(&recorded.command);
        return show::note(&format!(
            "tracewire: no exchange was seen. If {command} uses HTTP, it bypasses the proxy or rejects its certificate; \
             `tracewire doctor -- {command} …` finds the cause and the fix."
        ));
    }
    if report == Report::Problems {
        return;
    }
    let screen = Screen::of_stderr();
    let options = TimelineOptions { width: screen.width, color: screen.color, fold: Fold::LongLists };
    show::note(render(&recorded.name, spans, &options).trim_end());
    let store = place_name(&config.store);
    show::note(&format!("tracewire: rollout {} stored in {store}", recorded.rollout));
    if let StorePlace::File(_) = config.store.place() {
        let flag = config.store.path.as_ref().map(|_| format!(" --store {}", shell_word(&store))).unwrap_or_default();
        show::note(&format!("tracewire: to look at it: tracewire ui {}{flag}", recorded.rollout));
    }
}
