//! `tracewire trajectory`: draws the calls of a rollout as the tree that is trained on.

use super::export::SampleArgs;
use super::find::{find_rollout, open_for_reading};
use super::settings::read_config;
use super::show;
use crate::export::sample::AttemptSample;
use crate::export::text::escape_for_terminal;
use crate::store::{RolloutFilter, StoreExt};
use crate::trajectory::outline;
use anyhow::{Result, bail};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `trajectory`.
#[derive(Args)]
pub(super) struct TrajectoryArgs {
    /// The rollout's id, the beginning of it, or `latest`
    rollout: String,
    #[command(flatten)]
    sample: SampleArgs,
    /// The settings file, for its section `[verdict]`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    store: super::args::StoreArgs,
}

pub(super) async fn run(args: TrajectoryArgs) -> Result<ExitCode> {
    let options = args.sample.options(read_config(args.config.as_deref())?.verdict)?;
    let (store, place) = open_for_reading(&args.store).await?;
    let id = find_rollout(&store, &args.rollout, &place).await?;
    let found = store.attempted_rollouts(RolloutFilter::of_ids(vec![id.clone()])).await?;
    let Some(found) = found.into_iter().next() else { bail!("{place} has no rollout {id}") };
    let attempt_id = found.attempt.as_ref().map(|attempt| attempt.attempt_id.clone());
    let spans = store.spans(id, attempt_id).await?;
    store.close().await?;
    let sample = AttemptSample::of(found.rollout, found.attempt.as_ref(), &spans, &options);
    let text = outline(&sample.tree, &sample.record.rewards, &sample.verdict);
    let lines: Vec<_> = text.lines().map(escape_for_terminal).collect();
    show::out(format!("{}\n", lines.join("\n")))?;
    Ok(ExitCode::SUCCESS)
}
