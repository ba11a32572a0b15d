//! `tracewire trace`: lists the rollouts of the store, or shows one. Only a search of messages adds to the store: its index of words.

use super::args::StoreArgs;
use super::find::{open_for_query, open_for_reading};
use super::settings::read_config;
use super::terminal::{Paging, page};
use super::trace_list::{Listing, parsed, query_of};
use super::trace_show::{self, ShowArgs};
use crate::trace::Timestamp;
use anyhow::Result;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

/// Arguments of `trace`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire trace list status:failed since:1h
  tracewire trace show latest
  tracewire trace show latest --messages
  tracewire trace show ro-0123 --json")]
pub(super) struct TraceArgs {
    #[command(subcommand)]
    command: TraceCommand,
    #[command(flatten)]
    store: StoreArgs,
    /// Print long output at once, without a pager
    #[arg(long, global = true)]
    no_pager: bool,
}

#[derive(Subcommand)]
enum TraceCommand {
    /// List rollouts, newest first
    #[command(after_help = "Examples:
  tracewire trace list status:failed since:1h
  tracewire trace list 'model:qwen*' 'tokens>20k' 'reward<0.5'
docs/ui.md has all fields.")]
    List {
        /// Only rollouts that match all of these: words, or fields as in `model:qwen*`
        query: Vec<String>,
        /// Maximum number of rollouts; 0 means no limit
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The settings file, for its sections `[verdict]` and `[prices]`
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Show the spans of a rollout
    Show(ShowArgs),
}

pub(super) async fn run(args: TraceArgs) -> Result<ExitCode> {
    let paging = if args.no_pager { Paging::Never } else { Paging::Auto };
    let output = match args.command {
        TraceCommand::List { query, limit, json, config } => {
            let settings = read_config(config.as_deref())?;
            let query = query_of(&query);
            let (store, _) = open_for_query(&args.store, &parsed(&query, Timestamp::from(SystemTime::now()))?).await?;
            let limit = if limit == 0 { usize::MAX } else { limit };
            let listing = Listing::read(&store, &query, limit, &settings).await?;
            store.close().await?;
            if json { listing.json()? } else { listing.table() }
        }
        TraceCommand::Show(show) => {
            let (store, place) = open_for_reading(&args.store).await?;
            let output = trace_show::output(&show, &store, &place).await?;
            store.close().await?;
            output
        }
    };
    page(&output, paging)?;
    Ok(ExitCode::SUCCESS)
}
