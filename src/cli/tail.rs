//! `tracewire tail`: prints a line for each span as it is stored, by any program that writes to the store.
//!
//! It reads the store by the numbers of spans, at intervals. A span is printed once it is stored, which is after its exchange has
//! ended.

use super::args::StoreArgs;
use super::find::open_for_query;
use super::show::{self, OutputFormat};
use super::terminal::Screen;
use super::trace_list::{parsed, query_of};
use crate::export::timeline::{TimelineOptions, line_of};
use crate::query::Query;
use crate::rollout::{RolloutSearch, SearchCache, SearchPageRequest};
use crate::run::signals::stop_requests;
use crate::store::{Result as StoreResult, SharedStore};
use crate::trace::{RolloutId, Span, Timestamp};
use anyhow::Result;
use clap::Args;
use rustix::process::Signal;
use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// Arguments of `tail`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire tail
  tracewire tail 'model:qwen*' status:running
  tracewire tail --json host:api.example.com
docs/ui.md has all fields of queries.")]
pub(super) struct TailArgs {
    /// Only spans of rollouts that match all of these: words, or fields as in `model:qwen*`
    query: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// Print each span as a JSON line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: TailArgs) -> Result<ExitCode> {
    let text = query_of(&args.query);
    // A wrong query is reported before anything else.
    let (store, place) = open_for_query(&args.store, &parsed(&text, now())?).await?;
    let mut stop = stop_requests(&[Signal::TERM, Signal::INT])?;
    let mut position = store.spans_by_number(0, 0).await?.newest;
    show::note(&format!("tracewire: waiting for spans in {place}; press Ctrl-C to end"));
    let cache = SearchCache::default();
    loop {
        let page = store.spans_by_number(position, PAGE_SPANS).await?;
        let query = parsed(&text, now())?;
        // Whether a rollout matches may change with each page.
        let mut matching: HashMap<RolloutId, bool> = HashMap::new();
        for span in &page.spans {
            let is_match = match matching.get(&span.rollout_id) {
                Some(is_match) => *is_match,
                None => matches(&store, &cache, &query, &span.rollout_id).await?,
            };
            matching.insert(span.rollout_id.clone(), is_match);
            if is_match && !show::out_part(line(span, args.json.into())? + "\n")? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        let has_more = page.through > position && page.through < page.newest;
        position = page.through;
        tokio::select! {
            biased;
            _ = stop.recv() => break,
            () = tokio::time::sleep(INTERVAL), if !has_more => {}
            () = std::future::ready(()), if has_more => {}
        }
    }
    store.close().await?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a query selects a rollout.
async fn matches(store: &SharedStore, cache: &SearchCache, query: &Query, rollout: &RolloutId) -> StoreResult<bool> {
    if query.is_empty() {
        return Ok(true);
    }
    let search = RolloutSearch { store, cache, query, now: now(), only: Some(rollout.clone()) };
    let mut after = None;
    loop {
        let page = search.page(SearchPageRequest { after, limit: 1 }, |_| true).await?;
        match page.next {
            // A rollout of many spans takes several pages.
            Some(next) if page.rollouts.is_empty() => after = Some(next),
            _ => return Ok(!page.rollouts.is_empty()),
        }
    }
}

fn line(span: &Span, format: OutputFormat) -> Result<String> {
    if format == OutputFormat::Json {
        return Ok(serde_json::to_string(span)?);
    }
    let Screen { width, color, .. } = Screen::of_stdout();
    Ok(line_of(span.rollout_id.as_str(), span, &TimelineOptions { width, color, ..TimelineOptions::default() }))
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// How often the store is read.
const INTERVAL: Duration = Duration::from_millis(300);
/// Spans that are read at once.
const PAGE_SPANS: usize = 512;
