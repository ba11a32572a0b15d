//! `tracewire trace show`: one rollout as a timeline, as conversations, as JSON, or as training data.

use super::find::{LATEST, find_attempt, find_rollout};
use super::show;
use super::terminal::Screen;
use crate::export::json::SpansJson;
use crate::export::sample::{AttemptSample, SampleOptions};
use crate::export::shapes::{Shape, shape_named};
use crate::export::spans::{ConversationOptions, TextLength, conversations};
use crate::export::timeline::{Fold, TimelineOptions, render};
use crate::store::{SharedStore, SpanPages, SpanQuery, StoreExt};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::num::NonZeroUsize;

/// Arguments of `trace show`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire trace show latest
  tracewire trace show latest --messages
  tracewire trace show ro-0123 --json
On a terminal, long output goes through $TRACEWIRE_PAGER, $PAGER or less.")]
pub(super) struct ShowArgs {
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
    /// Print the conversations as a person reads them: messages, tool calls and their results, each once
    #[arg(long, conflicts_with_all = ["format", "json"])]
    messages: bool,
    /// Leave nothing out: all spans of a long timeline, the whole text of messages
    #[arg(long, conflicts_with_all = ["format", "json"])]
    full: bool,
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
    /// Chat messages and tools as JSON
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

/// What is printed at the end. JSON of spans is printed as it is read, since it may be long.
pub(super) async fn output(args: &ShowArgs, store: &SharedStore, place: &str) -> Result<String> {
    let rollout = find_rollout(store, &args.rollout, place).await?;
    // Training data is that of one attempt.
    let wanted = args.attempt.clone().or_else(|| args.format.shape().map(|_| LATEST.to_owned()));
    let found = match wanted {
        Some(wanted) => Some(find_attempt(store, &rollout, &wanted).await?),
        None => None,
    };
    let attempt = found.as_ref().map(|attempt| attempt.attempt_id.clone());
    let query = SpanQuery { attempt_id: attempt.clone(), ..SpanQuery::of_rollout(rollout.clone()) };
    if store.span_page(SpanQuery { limit: NonZeroUsize::MIN, ..query.clone() }).await?.spans.is_empty() {
        let of = attempt.map_or_else(|| format!("rollout {rollout}"), |attempt| format!("attempt {attempt}"));
        bail!("{place} has no spans of {of}, which is registered: no traffic of it was recorded");
    }
    if args.json || matches!(args.format, TraceFormat::Json) {
        show_json(SpanPages::new(store, query)).await?;
        return Ok(String::new());
    }
    let spans = store.spans(rollout.clone(), attempt).await?;
    let record = store.rollout(rollout.clone()).await?;
    if let (Some(shape), Some(record)) = (args.format.shape(), &record) {
        let sample = AttemptSample::of(record.clone(), found.as_ref(), &spans, &SampleOptions::default());
        return Ok(shape.lines(&sample).into_iter().map(|line| format!("{line}\n")).collect());
    }
    let Screen { width, color, height } = Screen::of_stdout();
    if args.messages {
        let length = if args.full { TextLength::Whole } else { TextLength::Beginning };
        return Ok(conversations(&spans, &ConversationOptions { width, color, length }));
    }
    let title = record.and_then(|record| record.name().map(str::to_owned)).unwrap_or_else(|| rollout.to_string());
    // Programs that read the output get all of it.
    let fold = if args.full || height.is_none() { Fold::Nothing } else { Fold::LongLists };
    Ok(render(&title, &spans, &TimelineOptions { width, color, fold }))
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
