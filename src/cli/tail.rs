//! `tracewire tail`: prints a line for each span as it is stored, by any program that writes to the store.
//!
//! It looks at the newest rollouts at intervals. A span is printed once it is stored, which is after its exchange has ended.

use super::args::StoreArgs;
use super::find::open_for_reading;
use super::show;
use super::terminal::Screen;
use super::trace_list::{parsed, query_of};
use crate::export::timeline::{TimelineOptions, line_of};
use crate::query::Query;
use crate::rollout::{FoundRollout, RolloutSearch, SearchPageRequest, TotalsCache};
use crate::run::signals::stop_requests;
use crate::store::{Result as StoreResult, SharedStore, SpanOutline};
use crate::trace::{RolloutId, Timestamp};
use crate::util::lru::{LruCache, lru};
use anyhow::Result;
use clap::Args;
use rustix::process::Signal;
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
    /// Print each span as a JSON line, without long attributes
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: TailArgs) -> Result<ExitCode> {
    let (store, place) = open_for_reading(&args.store).await?;
    let text = query_of(&args.query);
    // A wrong query is told before anything else.
    parsed(&text, now())?;
    let mut stop = stop_requests(&[Signal::TERM, Signal::INT])?;
    show::note(&format!("tracewire: waiting for spans in {place}; press Ctrl-C to end"));
    let mut tail =
        Tail { store: &store, totals: TotalsCache::default(), seen: lru(MAX_KNOWN_ROLLOUTS), is_first: true };
    loop {
        for FoundSpan { rollout, outline } in tail.new_spans(&parsed(&text, now())?).await? {
            let line = if args.json {
                serde_json::to_string(&outline.span)?
            } else {
                let Screen { width, color, .. } = Screen::of_stdout();
                line_of(
                    rollout.as_str(),
                    &outline.span,
                    &TimelineOptions { width, color, ..TimelineOptions::default() },
                )
            };
            if !show::out_part(line + "\n")? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        tokio::select! {
            _ = stop.recv() => break,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
    store.close().await?;
    Ok(ExitCode::SUCCESS)
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

struct Tail<'a> {
    store: &'a SharedStore,
    totals: TotalsCache,
    seen: LruCache<RolloutId, Seen>,
    /// Nothing was looked at yet.
    is_first: bool,
}

/// How far the spans of a rollout were printed.
#[derive(Clone, Copy, Default)]
struct Seen {
    spans: u64,
    /// The number of the last one; 0 if none was read.
    number: u64,
}

struct FoundSpan {
    rollout: RolloutId,
    outline: SpanOutline,
}

impl Tail<'_> {
    /// The spans that were stored since the last call, in rollouts that match. The first call only notes what there is.
    async fn new_spans(&mut self, query: &Query) -> StoreResult<Vec<FoundSpan>> {
        let search = RolloutSearch { store: self.store, totals: &self.totals, query, now: now(), only: None };
        let page = search.page(SearchPageRequest { after: None, limit: MAX_ROLLOUTS }, |_| true).await?;
        let mut found = Vec::new();
        for FoundRollout { found: rollout, counts, .. } in page.rollouts {
            let id = rollout.rollout.rollout_id;
            let known = self.seen.get(&id).copied();
            let mut seen = match known {
                None if self.is_first => Seen { spans: counts.spans, number: 0 },
                known => known.unwrap_or_default(),
            };
            if seen.spans < counts.spans {
                let outlines = self.behind(&id, &mut seen).await?;
                seen.spans = counts.spans;
                found.extend(outlines.into_iter().map(|outline| FoundSpan { rollout: id.clone(), outline }));
            }
            self.seen.put(id, seen);
        }
        self.is_first = false;
        found.sort_by_key(|one| one.outline.number);
        Ok(found)
    }

    /// The spans of a rollout behind those that were seen.
    async fn behind(&self, rollout: &RolloutId, seen: &mut Seen) -> StoreResult<Vec<SpanOutline>> {
        let mut found = Vec::new();
        // Without a number, those that were there at first are read too, and left out.
        let mut old = if seen.number == 0 { seen.spans } else { 0 };
        loop {
            let page = self.store.span_outlines(rollout.clone(), seen.number, PAGE_SPANS).await?;
            let is_last = page.len() < PAGE_SPANS;
            seen.number = page.last().map_or(seen.number, |last| last.number);
            for outline in page {
                if old > 0 {
                    old -= 1;
                } else {
                    found.push(outline);
                }
            }
            if is_last {
                return Ok(found);
            }
        }
    }
}

const INTERVAL: Duration = Duration::from_millis(300);
/// Rollouts that are looked at each time, the newest.
const MAX_ROLLOUTS: usize = 500;
/// Rollouts of which it is known what was printed.
const MAX_KNOWN_ROLLOUTS: usize = 16 * 1024;
const PAGE_SPANS: usize = 1000;
