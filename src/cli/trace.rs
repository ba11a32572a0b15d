//! `tracewire trace`: lists the rollouts of the store, and shows one.

use super::args::StoreArgs;
use super::show;
use crate::app::{open_store, place_name, store_path};
use crate::config::{Config, StorePlace};
use crate::export::json::spans_json;
use crate::export::text::escape_for_terminal;
use crate::trace::RolloutId;
use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use std::fmt::Write as _;
use std::process::ExitCode;

/// Arguments of `trace`.
#[derive(Args)]
#[command(after_help = "Examples:\n  tracewire trace list\n  tracewire trace show ro-0123456789ab --format json")]
pub(super) struct TraceArgs {
    #[command(subcommand)]
    command: TraceCommand,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Subcommand)]
enum TraceCommand {
    /// List rollouts, newest first
    List {
        /// Maximum number of rollouts
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the spans of a rollout
    Show {
        /// The rollout's id
        rollout: String,
        /// Show this attempt only
        #[arg(long)]
        attempt: Option<String>,
        /// The output format
        #[arg(long, value_enum, default_value_t = TraceFormat::Timeline)]
        format: TraceFormat,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum TraceFormat {
    /// A tree of spans on a time axis
    Timeline,
    /// An array of spans
    Json,
}

pub(super) async fn run(args: TraceArgs) -> Result<ExitCode> {
    let config = Config { store: args.store.settings(), ..Config::default() };
    let place = place_name(&config.store);
    if matches!(config.store.place(), StorePlace::File(_)) && !store_path(&config.store).exists() {
        bail!("there is no trace store at {place}; create one with `tracewire run`, or set another with --store");
    }
    let store = open_store(&config).await?;
    match args.command {
        TraceCommand::List { limit, json } => {
            let rollouts = store.rollouts(limit).await?;
            if json {
                show::out(&format!("{}\n", serde_json::to_string_pretty(&rollouts)?));
            } else {
                show::out(&table(&rollouts));
            }
        }
        TraceCommand::Show { rollout, attempt, format } => {
            let id = RolloutId::from(rollout.as_str());
            let spans = store.spans(id.clone(), attempt.as_deref().map(Into::into)).await?;
            if spans.is_empty() {
                bail!("{place} has no spans of rollout {rollout}; list its rollouts with `tracewire trace list`");
            }
            match format {
                TraceFormat::Json => show::out(&format!("{}\n", spans_json(&spans))),
                TraceFormat::Timeline => {
                    let name = store.rollout(id).await?.and_then(|rollout| rollout.name().map(str::to_owned));
                    show::out(&show::timeline(&name.unwrap_or(rollout), &spans, &std::io::stdout()));
                }
            }
        }
    }
    store.close().await?;
    Ok(ExitCode::SUCCESS)
}

fn table(rollouts: &[crate::store::RolloutSummary]) -> String {
    if rollouts.is_empty() {
        return "no rollouts\n".to_owned();
    }
    let mut text =
        format!("{:<24} {:<10} {:>8} {:>6} {:>6}  name\n", "rollout", "status", "attempts", "spans", "errors");
    for summary in rollouts {
        let rollout = &summary.rollout;
        let status = rollout.status.as_str();
        let (id, name) =
            (escape_for_terminal(rollout.rollout_id.as_str()), escape_for_terminal(rollout.name().unwrap_or("")));
        let (attempts, spans, errors) = (summary.attempts, summary.spans, summary.errors);
        // Writing to a String can't fail.
        let _ = writeln!(text, "{id:<24} {status:<10} {attempts:>8} {spans:>6} {errors:>6}  {name}");
    }
    text
}
