//! `tracewire store prune`: removes what is too old or too much, in slices beside the programs that use the store.

use super::report::{bytes, thousands};
use crate::app::{WhenUnreachable, open_store, open_store_for_reading};
use crate::cli::args::{StoreArgs, age};
use crate::cli::find::existing_place;
use crate::cli::settings::read_config;
use crate::cli::show;
use crate::cli::trace_list::{complete, parsed, query_of};
use crate::config::{Config, StorePlace};
use crate::query::Query;
use crate::rollout::{
    IndexWait, KeptRollouts, RetentionSettings, RolloutSearch, SearchCache, SearchPageRequest, preview_expired,
    prune_expired,
};
use crate::store::{PruneLimits, PruneRequest, Pruned, SharedStore, StoreExt};
use crate::trace::{RolloutId, Timestamp};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// Arguments of `store prune`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire store prune --config proxy.toml --dry-run
  tracewire store prune --older-than 30d
  tracewire store prune --query status:failed --older-than 7d
Registered rollouts in progress are kept. Others end with their last span: use --older-than with --query for those.")]
pub(super) struct PruneArgs {
    /// Remove spans that ended longer ago; with --query, rollouts: 90s, 30m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = age)]
    older_than: Option<Duration>,
    /// Keep at most this many spans, the newest
    #[arg(long, value_name = "NUMBER", conflicts_with = "query")]
    max_spans: Option<u64>,
    /// Keep at most this many bytes; not applied to PostgreSQL
    #[arg(long, value_name = "BYTES", value_parser = size, conflicts_with = "query")]
    max_bytes: Option<u64>,
    /// Remove whole rollouts that match, as in `trace list` (repeatable)
    #[arg(long, value_name = "QUERY")]
    query: Vec<String>,
    /// Only print what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The settings file. Without other options its section `[store.retention]` applies
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs `store prune`.
pub(super) async fn run(args: PruneArgs, store: &StoreArgs) -> Result<()> {
    let mut config = read_config(args.config.as_deref())?;
    store.apply(&mut config.store);
    let now = Timestamp::from(SystemTime::now());
    let query = if args.query.is_empty() { None } else { Some(parsed(&query_of(&args.query), now)?) };
    if let Some(refusal) = query.as_ref().and_then(Query::refusal_in_removals) {
        bail!("{refusal}; leave out the negated `text`");
    }
    let rules = std::mem::take(&mut config.store.retention);
    rules.check().context("[[store.retention.rule]]")?;
    let has_options = args.has_options();
    let limits = if has_options { args.limits(now)? } else { limits_of(&rules, now)? };
    let place = existing_place(&config)?;
    if args.max_bytes.is_some() && matches!(config.store.place(), StorePlace::Postgres(_)) {
        bail!(
            "--max-bytes can't be applied to PostgreSQL, which shares its disk with others; set --max-spans or --older-than"
        );
    }
    // The store is opened without limits of its own: only what the user asked for is removed.
    let reads_only = args.dry_run && query.as_ref().is_none_or(|query| query.phrases().next().is_none());
    let store = open(&config, reads_only).await?;
    let cache = SearchCache::new(config.verdict.clone(), config.prices.clone(), IndexWait::Complete);
    let request = match &query {
        Some(query) => PruneRequest::Rollouts(found(&store, query, &cache, limits.ended_before, now).await?.into()),
        None => PruneRequest::Limits(limits),
    };
    let (kept, mut removed) = (KeptRollouts::default(), Pruned::default());
    if args.dry_run {
        if !has_options {
            removed.add(preview_expired(&store, &rules, &kept, now).await?);
        }
        removed.add(store.prune_preview(request).await?);
    } else {
        let progress = Progress::start(&store, &request).await?;
        if !has_options {
            removed.add(prune_expired(&store, &rules, &kept, now, |removed| progress.show(removed)).await?);
        }
        removed.add(store.prune_all(request, |removed| progress.show(removed)).await?);
    }
    store.close().await?;
    show::out(if args.json { report_json(&place, removed, args.dry_run)? } else { report(removed, args.dry_run) })
}

/// A search of messages adds to the index of words.
async fn open(config: &Config, reads_only: bool) -> Result<SharedStore> {
    Ok(if reads_only {
        open_store_for_reading(config).await?
    } else {
        open_store(config, WhenUnreachable::Fail).await?
    })
}

/// The limits of the settings, which have to have some.
fn limits_of(settings: &RetentionSettings, now: Timestamp) -> Result<PruneLimits> {
    if settings.is_unlimited() {
        bail!(
            "nothing says what to remove; set --older-than, --max-spans, --max-bytes or --query, or name a settings file \
             with [store.retention] in --config"
        );
    }
    Ok(PruneLimits::of(settings.limits(), now))
}

impl PruneArgs {
    /// True if the arguments say what to remove, not the settings.
    fn has_options(&self) -> bool {
        let has_limit = self.older_than.is_some() || self.max_spans.is_some() || self.max_bytes.is_some();
        has_limit || !self.query.is_empty()
    }

    fn limits(&self, now: Timestamp) -> Result<PruneLimits> {
        let zero = [("--max-spans", self.max_spans), ("--max-bytes", self.max_bytes)];
        if let Some((flag, _)) = zero.into_iter().find(|(_, value)| *value == Some(0)) {
            bail!("{flag} 0 would be no limit; to remove everything, set --older-than 0s");
        }
        let before = |age: Duration| {
            let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
            Timestamp::from_unix_nanos(now.unix_nanos.saturating_sub(age))
        };
        Ok(PruneLimits {
            ended_before: self.older_than.map(before),
            max_spans: self.max_spans.unwrap_or_default(),
            max_bytes: self.max_bytes.unwrap_or_default(),
        })
    }
}

/// The rollouts that match a query, and that ended before a time.
async fn found(
    store: &SharedStore,
    query: &Query,
    cache: &SearchCache,
    ended_before: Option<Timestamp>,
    now: Timestamp,
) -> Result<Vec<RolloutId>> {
    let search = RolloutSearch { store, cache, query, now, only: None };
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = search
            .page(SearchPageRequest { after, limit: PAGE_ROLLOUTS }, |rollout| {
                ended_before.is_none_or(|before| rollout.end_time.unwrap_or(rollout.start_time) < before)
            })
            .await?;
        for mut one in page.rollouts {
            if one.found.rollout.end_time.is_none() {
                complete(&mut one, store, &cache.totals).await?;
            }
            let rollout = one.found.rollout;
            // A rollout that only spans name ends with the last of them.
            let end = rollout.end_time.or_else(|| one.totals.and_then(|totals| totals.last_end));
            if ended_before.is_none_or(|before| end.unwrap_or(rollout.start_time) < before) {
                ids.push(rollout.rollout_id);
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(ids),
        }
    }
}

/// The line on a terminal that tells how far a prune is.
struct Progress {
    /// Spans that will be removed, about. `None` if nothing is shown.
    spans: Option<u64>,
}

impl Progress {
    async fn start(store: &SharedStore, request: &PruneRequest) -> Result<Self> {
        let is_shown = std::io::stderr().is_terminal();
        let spans = if is_shown { Some(store.prune_preview(request.clone()).await?.spans) } else { None };
        Ok(Self { spans })
    }

    fn show(&self, removed: &Pruned) {
        if let Some(spans) = self.spans {
            let spans = spans.max(removed.spans);
            show::replace_line(&format!("removed {} of about {} spans", thousands(removed.spans), thousands(spans)));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.spans.is_some() {
            show::replace_line("");
        }
    }
}

fn report(removed: Pruned, dry_run: bool) -> String {
    let Pruned { rollouts, spans, bytes: size } = removed;
    let counts = format!("{} rollouts, {} spans", thousands(rollouts), thousands(spans));
    match (dry_run, size) {
        (_, 0) if spans == 0 && rollouts == 0 => "nothing to remove\n".to_owned(),
        (true, 0) => format!("would remove {counts}\n"),
        (true, size) => format!("would remove {counts}, about {}\n", bytes(size)),
        (false, 0) => format!("removed {counts}\n"),
        (false, size) => format!("removed {counts}, {}\n", bytes(size)),
    }
}

fn report_json(place: &str, removed: Pruned, dry_run: bool) -> serde_json::Result<String> {
    let Pruned { rollouts, spans, bytes } = removed;
    let json = json!({ "store": place, "dry_run": dry_run, "rollouts": rollouts, "spans": spans, "bytes": bytes });
    Ok(format!("{}\n", serde_json::to_string_pretty(&json)?))
}

#[derive(Debug, thiserror::Error)]
#[error("expected a number of bytes such as 500000, 200kB, 50MB or 10GB")]
struct InvalidSize;

/// Parses a number of bytes, with or without a unit.
fn size(text: &str) -> std::result::Result<u64, InvalidSize> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match &text[end..] {
        "" | "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(InvalidSize),
    };
    text[..end].parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or(InvalidSize)
}

/// Rollouts that are searched at once.
const PAGE_ROLLOUTS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [("0", 0), ("500000", 500_000), ("200kB", 200_000), ("10GB", 10_000_000_000)] {
            assert_eq!(size(text).unwrap(), expected);
        }
        for invalid in ["", "GB", "1.5GB", "-1", "10 GB", "10gb", "99999999999TB"] {
            assert!(size(invalid).is_err(), "{invalid}");
        }
    }
}
