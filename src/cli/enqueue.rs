//! `tracewire enqueue`: adds rollouts to the queue of the server, one or more for each task of a file.

use super::client::ServerArgs;
use super::settings::read_config;
use super::show;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use http::Method;
use serde_json::{Value as JsonValue, json};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `enqueue`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire enqueue tasks.jsonl --mode train --group-size 8 > rollouts
  tracewire wait - < rollouts")]
pub(super) struct EnqueueArgs {
    /// A file with one task as JSON on each line; `-` reads stdin
    #[arg(value_name = "TASKS.jsonl")]
    tasks: PathBuf,
    /// What the rollouts are for
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Rollouts for each task
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    group_size: u16,
    /// Metadata of each rollout, a JSON object
    #[arg(long, value_name = "JSON", value_parser = object)]
    metadata: Option<JsonValue>,
    /// Seconds after which an attempt is ended
    #[arg(long, value_name = "SECONDS", value_parser = super::args::seconds)]
    timeout: Option<std::time::Duration>,
    #[command(flatten)]
    server: ServerArgs,
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Train,
    Val,
    Test,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

pub(super) async fn run(args: EnqueueArgs) -> Result<ExitCode> {
    let server = args.server.client(&read_config(args.config.as_deref())?)?;
    let text = if args.tasks.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).context("cannot read stdin")?
    } else {
        std::fs::read_to_string(&args.tasks).with_context(|| format!("cannot read {}", args.tasks.display()))?
    };
    // All are read before the first is sent: a mistake in the last line costs nothing.
    let tasks = tasks(&text)?;
    let config = args.timeout.map(|limit| json!({ "timeout_seconds": limit.as_secs_f64() }));
    let rollout = |task: &JsonValue| json!({ "input": task, "mode": args.mode.map(Mode::as_str), "metadata": args.metadata, "config": config });
    let rollouts: Vec<JsonValue> =
        tasks.iter().flat_map(|task| std::iter::repeat_n(task, args.group_size.into())).map(rollout).collect();
    let shows_progress = std::io::stderr().is_terminal();
    let mut sent = 0;
    for batch in rollouts.chunks(BATCH) {
        let body = json!({ "rollouts": batch });
        let path = "/v1/agl/queues/rollouts/enqueue";
        let added = server.call_with_retries(Method::POST, path, Some(&body)).await.and_then(|one| one.into_success());
        let added = added.with_context(|| format!("{sent} of {} rollouts were added", rollouts.len()))?;
        let ids = added.body.as_array().into_iter().flatten().filter_map(|rollout| rollout["rollout_id"].as_str());
        show::out(ids.map(|id| format!("{id}\n")).collect::<String>())?;
        sent += batch.len();
        if shows_progress {
            show::replace_line(&format!("{sent} of {} rollouts", rollouts.len()));
        }
    }
    if shows_progress {
        show::replace_line("");
    }
    Ok(ExitCode::SUCCESS)
}

/// The tasks of a file; empty lines are none.
fn tasks(text: &str) -> Result<Vec<JsonValue>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(at, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("line {} is not JSON; nothing was added", at + 1))
    };
    let tasks: Vec<JsonValue> = lines.map(parse).collect::<Result<_>>()?;
    if tasks.is_empty() {
        bail!("there are no tasks; write one as JSON on each line");
    }
    Ok(tasks)
}

#[derive(Debug, thiserror::Error)]
#[error("expected a JSON object, such as {{\"run\": 7}}")]
struct NoObject;

fn object(text: &str) -> Result<JsonValue, NoObject> {
    serde_json::from_str(text).ok().filter(JsonValue::is_object).ok_or(NoObject)
}

/// Rollouts in one request.
const BATCH: usize = 100;
