//! Runs `store`.

use super::prune::{self, PruneArgs};
use super::stats::Stats;
use super::vacuum::{self, VacuumArgs};
use crate::cli::args::StoreArgs;
use crate::cli::find::open_for_reading;
use crate::cli::show;
use anyhow::Result;
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// Arguments of `store`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire store stats
  tracewire store prune --older-than 30d --dry-run")]
pub(crate) struct StoreCommandArgs {
    #[command(subcommand)]
    command: StoreCommand,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Remove what is too old or too much, as the settings or these options say
    Prune(PruneArgs),
    /// Print what the store holds, and what it takes on disk
    Stats {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give back the space on disk that the store no longer needs
    Vacuum(VacuumArgs),
}

/// Runs the subcommand.
pub(crate) async fn run(args: StoreCommandArgs) -> Result<ExitCode> {
    match args.command {
        StoreCommand::Prune(options) => prune::run(options, &args.store).await?,
        StoreCommand::Vacuum(options) => vacuum::run(options, &args.store).await?,
        StoreCommand::Stats { json } => {
            let (store, place) = open_for_reading(&args.store).await?;
            let stats = Stats::read(&store, place).await?;
            store.close().await?;
            show::out(if json { stats.json()? } else { stats.table() })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
