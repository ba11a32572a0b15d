//! `tracewire trace`: lists the rollouts of the store, or shows one. The store is not changed.

use super::args::StoreArgs;
use super::find::open_for_reading;
use super::settings::read_config;
use super::terminal::{Paging, page};
use super::trace_list::{Listing, query_of};
use super::trace_show::{self, ShowArgs};
use crate::export::sample::SampleOptions;
use anyhow::Result;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

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
        /// The settings file, for its section `[verdict]`
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Show the spans of a rollout
    Show(ShowArgs),
}

pub(super) async fn run(args: TraceArgs) -> Result<ExitCode> {
    let paging = if args.no_pager { Paging::Never } else { Paging::Auto };
    let (store, place) = open_for_reading(&args.store).await?;
    let output = match args.command {
        TraceCommand::List { query, limit, json, config } => {
            let options =
                SampleOptions { verdict: read_config(config.as_deref())?.verdict, ..SampleOptions::default() };
            let limit = if limit == 0 { usize::MAX } else { limit };
            let listing = Listing::read(&store, &query_of(&query), limit, &options).await?;
            if json { listing.json()? } else { listing.table() }
        }
        TraceCommand::Show(args) => trace_show::output(&args, &store, &place).await?,
    };
    store.close().await?;
    page(&output, paging)?;
    Ok(ExitCode::SUCCESS)
}
