//! `tracewire store vacuum`: gives back the space that a store no longer needs.

use super::report::bytes;
use crate::app::{WhenUnreachable, open_store};
use crate::cli::args::StoreArgs;
use crate::cli::find::existing_place;
use crate::cli::show;
use crate::config::Config;
use crate::store::{StoreKind, Vacuum};
use anyhow::Result;
use clap::Args;
use serde_json::json;

/// Arguments of `store vacuum`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire store vacuum
  tracewire store vacuum --full")]
pub(super) struct VacuumArgs {
    /// Rewrite everything: this gives back more, needs up to twice the size of the store as free disk, and writes wait meanwhile
    #[arg(long)]
    full: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `store vacuum`.
pub(super) async fn run(args: VacuumArgs, store: &StoreArgs) -> Result<()> {
    let config = Config { store: store.settings(), ..Config::default() };
    let place = existing_place(&config)?;
    let store = open_store(&config, WhenUnreachable::Fail).await?;
    let before = store.usage().await?;
    if args.full && before.kind == StoreKind::Sqlite {
        let content = before.database_bytes.saturating_sub(before.unused_bytes.unwrap_or_default());
        show::note(&format!("rewriting {place}; this needs up to {} of free disk", bytes(content.saturating_mul(2))));
    }
    store.vacuum(if args.full { Vacuum::Full } else { Vacuum::Unused }).await?;
    let after = store.usage().await?;
    store.close().await?;
    let (before, after) = (before.total_bytes(), after.total_bytes());
    if args.json {
        let json = json!({ "store": place, "bytes_before": before, "bytes_after": after });
        return show::out(format!("{}\n", serde_json::to_string_pretty(&json)?));
    }
    let given = before.saturating_sub(after);
    show::out(format!("{} before, {} after: {} given back\n", bytes(before), bytes(after), bytes(given)))
}
