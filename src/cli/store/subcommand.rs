//! Runs `store`.

use super::stats::Stats;
use crate::cli::args::StoreArgs;
use crate::cli::find::open_for_reading;
use crate::cli::show;
use anyhow::Result;
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// Arguments of `store`.
#[derive(Args)]
#[command(after_help = "Example:\n  tracewire store stats")]
pub(crate) struct StoreCommandArgs {
    #[command(subcommand)]
    command: StoreCommand,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Print what the store holds, and what it takes on disk
    Stats {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the subcommand.
pub(crate) async fn run(args: StoreCommandArgs) -> Result<ExitCode> {
    match args.command {
        StoreCommand::Stats { json } => {
            let (store, place) = open_for_reading(&args.store).await?;
            let stats = Stats::read(&store, place).await?;
            store.close().await?;
            show::out(if json { stats.json()? } else { stats.table() })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
