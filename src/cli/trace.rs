//! `tracewire trace`: lists the rollouts of the store, and shows one. The store is not changed.

use super::args::StoreArgs;
use super::show;
use super::trace_list::{Listing, query_of};
use crate::app::{open_store_for_reading, place_name, store_path};
use crate::config::{Config, StorePlace};
use crate::export::json::SpansJson;
use crate::export::sample::{AttemptSample, SampleOptions};
use crate::export::shapes::{Shape, shape_named};
use crate::export::text::escape_for_terminal;
use crate::store::{RolloutFilter, SelectedRollouts, SharedStore, SpanPages, SpanQuery, StoreExt};
use crate::trace::{Attempt, Rollout, RolloutId};
use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use std::process::ExitCode;

/// Arguments of `trace`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire trace list status:failed since:1h
  tracewire trace show latest
  tracewire trace show ro-0123 --json")]
pub(super) struct TraceArgs {
    #[command(subcommand)]
    command: TraceCommand,
    #[command(flatten)]
    store: StoreArgs,
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
    },
    /// Show the spans of a rollout
    Show {
        /// The rollout's id, the beginning of it, or `latest`
        rollout: String,
        /// Show this attempt only: its id, the beginning of it, or `latest`
        #[arg(long)]
        attempt: Option<String>,
        /// The output format
        #[arg(long, value_enum, default_value_t = TraceFormat::Timeline)]
        format: TraceFormat,
        /// Print JSON, as with `--format json`
        #[arg(long, conflicts_with = "format")]
        json: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum TraceFormat {
    /// A tree of spans on a time axis
    Timeline,
    /// An array of spans
    Json,
    /// Rows of training data
    Trajectory,
    /// Agent Lightning's triplets
    Triplets,
    /// Chat messages and tools
    Messages,
}

impl TraceFormat {
    /// The shape of training data that the format stands for.
    fn shape(self) -> Option<&'static dyn Shape> {
        match self {
            Self::Timeline | Self::Json => None,
            Self::Trajectory => shape_named("trajectories"),
            Self::Triplets => shape_named("agent-lightning-0.3"),
            Self::Messages => shape_named("messages"),
        }
    }
}

pub(super) async fn run(args: TraceArgs) -> Result<ExitCode> {
    let (store, place) = open_for_reading(&args.store).await?;
    let output = match args.command {
        TraceCommand::List { query, limit, json } => {
            let limit = if limit == 0 { usize::MAX } else { limit };
            let listing = Listing::read(&store, &query_of(&query), limit).await?;
            if json { listing.json()? } else { listing.table() }
        }
        TraceCommand::Show { rollout, attempt, format, json } => {
            let rollout = find_rollout(&store, &rollout, &place).await?;
            // Training data is that of one attempt.
            let wanted = attempt.or_else(|| format.shape().map(|_| LATEST.to_owned()));
            let found = match wanted {
                Some(wanted) => Some(find_attempt(&store, &rollout, &wanted).await?),
                None => None,
            };
            let attempt = found.as_ref().map(|attempt| attempt.attempt_id.clone());
            let of = || match &attempt {
                Some(attempt) => format!("attempt {attempt}"),
                None => format!("rollout {rollout}"),
            };
            let query = SpanQuery { attempt_id: attempt.clone(), ..SpanQuery::of_rollout(rollout.clone()) };
            if store.span_page(SpanQuery { limit: 1, ..query.clone() }).await?.spans.is_empty() {
                bail!("{place} has no spans of {}, which is registered: no traffic of it was recorded", of());
            }
            if json || matches!(format, TraceFormat::Json) {
                show_json(SpanPages::new(&store, query)).await?;
                String::new()
            } else {
                let spans = store.spans(rollout.clone(), attempt).await?;
                let record = store.rollout(rollout.clone()).await?;
                match (format.shape(), record) {
                    (Some(shape), Some(record)) => {
                        let sample = AttemptSample::of(record, found.as_ref(), &spans, &SampleOptions::default());
                        shape.lines(&sample).into_iter().map(|line| format!("{line}\n")).collect()
                    }
                    (_, record) => {
                        let name = record.and_then(|record| record.name().map(str::to_owned));
                        show::timeline(&name.unwrap_or_else(|| rollout.to_string()), &spans, &std::io::stdout())
                    }
                }
            }
        }
    };
    store.close().await?;
    show::out(output)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints spans as JSON, page by page.
async fn show_json(mut pages: SpanPages) -> Result<()> {
    let mut json = SpansJson::default();
    while let Some(page) = pages.next().await? {
        if !show::out_part(json.add(page.iter().map(|(_, span)| span))?)? {
            return Ok(());
        }
    }
    show::out(json.finish())
}

/// Opens the store that the arguments name. Returns it with its name for messages.
pub(super) async fn open_for_reading(args: &StoreArgs) -> Result<(SharedStore, String)> {
    let config = Config { store: args.settings(), ..Config::default() };
    let place = place_name(&config.store);
    if matches!(config.store.place(), StorePlace::File(_)) && !store_path(&config.store).exists() {
        bail!("there is no trace store at {place}; create one with `tracewire run`, or set another with --store");
    }
    if config.store.place() == StorePlace::Memory {
        bail!("a store in memory is gone when its program has ended; name the file or the server with --store");
    }
    Ok((open_store_for_reading(&config).await?, place))
}

/// The rollout with this id or with an id that begins with it, or the `latest`.
pub(super) async fn find_rollout(store: &SharedStore, wanted: &str, place: &str) -> Result<RolloutId> {
    if wanted == LATEST {
        let newest = store.rollouts(1).await?.into_iter().next();
        let Some(newest) = newest else { bail!("{place} has no rollouts; record one with `tracewire run`") };
        return Ok(newest.rollout.rollout_id);
    }
    if store.rollout(wanted.into()).await?.is_some() {
        return Ok(wanted.into());
    }
    let start = wanted.to_owned();
    let begins = move |rollout: &Rollout| !start.is_empty() && rollout.rollout_id.as_str().starts_with(&start);
    let mut rollouts = SelectedRollouts::by_start(store, RolloutFilter::default(), begins);
    let mut found = Vec::new();
    while found.len() <= MAX_LISTED_IDS
        && let Some(rollout) = rollouts.next().await?
    {
        found.push(rollout.rollout.rollout_id);
    }
    match found.as_slice() {
        [id] => Ok(id.clone()),
        [] => bail!("{place} has no rollout {wanted}; list its rollouts with `tracewire trace list`"),
        several => bail!("{wanted} is the beginning of several rollout ids: {}", some_of(several)),
    }
}

/// The attempt with this id or with an id that begins with it, or the `latest`.
async fn find_attempt(store: &SharedStore, rollout: &RolloutId, wanted: &str) -> Result<Attempt> {
    let mut attempts = store.attempts(rollout.clone()).await?;
    attempts.sort_by_key(|attempt| attempt.sequence_id);
    let ids: Vec<_> = attempts.iter().map(|attempt| attempt.attempt_id.clone()).collect();
    if ids.is_empty() {
        bail!("rollout {rollout} has no attempt {wanted}; it has no attempts");
    }
    let is_wanted = |attempt: &Attempt| attempt.attempt_id.as_str() == wanted;
    if let Some(at) = attempts.iter().position(is_wanted) {
        return Ok(attempts.swap_remove(at));
    }
    if wanted == LATEST {
        attempts.reverse();
    } else {
        attempts.retain(|attempt| !wanted.is_empty() && attempt.attempt_id.as_str().starts_with(wanted));
        if attempts.len() > 1 {
            bail!("{wanted} is the beginning of several attempt ids: {}", some_of(&ids));
        }
    }
    match attempts.into_iter().next() {
        Some(attempt) => Ok(attempt),
        None => bail!("rollout {rollout} has no attempt {wanted}; it has {}", some_of(&ids)),
    }
}

/// Ids for a message.
fn some_of(ids: &[impl ToString]) -> String {
    let first = ids.iter().take(MAX_LISTED_IDS);
    let first: Vec<_> = first.map(|id| escape_for_terminal(&id.to_string()).into_owned()).collect();
    let others = if ids.len() > first.len() { ", …" } else { "" };
    format!("{}{others}", first.join(", "))
}

const LATEST: &str = "latest";
const MAX_LISTED_IDS: usize = 5;
