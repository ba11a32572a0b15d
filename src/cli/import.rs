//! `tracewire import`: stores what other programs recorded.
//!
//! A file is read as a whole, and its parts are stored one by one. What is stored already stays as it is, so that a second
//! import of a file changes nothing.

use super::args::StoreArgs;
use super::settings::read_config;
use super::show;
use crate::app::{WhenUnreachable, open_store, place_name};
use crate::config::{Config, StorePlace};
use crate::export::text::escape_for_terminal;
use crate::import::{ImportOptions, Imported, parts};
use crate::store::{SharedStore, StoreError, StoreExt};
use crate::trace::{Attempt, AttemptId, AttemptStatus, Rollout, RolloutId, RolloutStatus, Span, Timestamp};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Arguments of `import`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire import session.har
  tracewire import spans.jsonl --store other.db
  tracewire export --all --format json -o all.jsonl; tracewire import all.jsonl --store copy.db")]
pub(super) struct ImportArgs {
    /// Files: HAR, OTLP as JSON or protobuf, Jaeger's JSON, ATIF, flows of mitmproxy, sessions of Claude Code and Codex, or
    /// exports in the format `json`; told apart by content
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The settings file, for its section `[redact]`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) async fn run(args: ImportArgs) -> Result<ExitCode> {
    let settings = read_config(args.config.as_deref())?;
    let config = Config { store: args.store.settings(), ..Config::default() };
    if config.store.place() == StorePlace::Memory {
        bail!("a store in memory would be gone at once; name the file or the server with --store");
    }
    let options = ImportOptions::new(settings.redact);
    let store = open_store(&config, WhenUnreachable::Fail).await?;
    let mut result = Ok(ExitCode::SUCCESS);
    for path in &args.files {
        let imported = import_file(path, &store, &options).await;
        match imported.with_context(|| format!("cannot import {}", path.display())) {
            Ok(counts) => show::out(counts.report(path, &place_name(&config.store)))?,
            // The other files are imported nevertheless.
            Err(error) if args.files.len() > 1 => {
                show::note(&format!("tracewire: {error:#}"));
                result = Ok(ExitCode::from(2));
            }
            Err(error) => result = Err(error),
        }
    }
    store.close().await?;
    result
}

/// What was imported from a file.
#[derive(Default)]
struct Counts {
    formats: BTreeSet<&'static str>,
    rollouts: BTreeSet<RolloutId>,
    stored: u64,
    duplicates: u64,
    // What is not stored, with how often.
    left_out: BTreeMap<String, u64>,
}

impl Counts {
    fn report(&self, path: &Path, place: &str) -> String {
        let formats: Vec<&str> = self.formats.iter().copied().collect();
        let mut report = format!(
            "{} ({}): {}, {} stored in {place}",
            path.display(),
            formats.join(", "),
            show::count(self.rollouts.len() as u64, "rollout"),
            show::count(self.stored, "span"),
        );
        if self.duplicates > 0 {
            report.push_str(&format!(", {} stored before", self.duplicates));
        }
        report.push('\n');
        for (what, number) in &self.left_out {
            report.push_str(&format!("  left out {number} times: {}\n", escape_for_terminal(what)));
        }
        report
    }

    fn leave_out(&mut self, what: String, number: u64) {
        if self.left_out.len() < MAX_REASONS || self.left_out.contains_key(&what) {
            *self.left_out.entry(what).or_default() += number;
        } else {
            *self.left_out.entry("for other reasons".to_owned()).or_default() += number;
        }
    }
}

async fn import_file(path: &Path, store: &SharedStore, options: &ImportOptions) -> Result<Counts> {
    let length = std::fs::metadata(path).context("cannot read it")?.len();
    if length > MAX_FILE_BYTES {
        bail!("it has more than {} GiB; divide it", MAX_FILE_BYTES >> 30);
    }
    let file = std::fs::read(path).context("cannot read it")?;
    let mut counts = Counts::default();
    let parts = parts(&file);
    for (at, part) in parts.iter().enumerate() {
        let read = tokio::task::block_in_place(|| part.read(options));
        let (format, imported) = match read {
            Ok(read) => read,
            // A line that is cut or damaged, as the last one of a file may be. The others are stored.
            Err(error) if parts.len() > 1 => {
                counts.leave_out(format!("line {}: {error}", at + 1), 1);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        counts.formats.insert(format);
        add(imported, path, store, &mut counts).await?;
    }
    if counts.formats.is_empty() {
        bail!(
            "none of its lines has a known form; the first: {}",
            counts.left_out.keys().next().map_or("", String::as_str)
        );
    }
    Ok(counts)
}

/// Stores a part of a file.
async fn add(imported: Imported, path: &Path, store: &SharedStore, counts: &mut Counts) -> Result<(), StoreError> {
    let Imported { rollouts, spans, left_out } = imported;
    left_out.into_iter().for_each(|(what, number)| counts.leave_out(what, number));
    for (rollout, attempt) in rollouts {
        counts.rollouts.insert(rollout.rollout_id.clone());
        add_rollout(rollout, attempt.into_iter().collect(), store).await?;
    }
    let mut by_rollout: BTreeMap<RolloutId, Vec<Arc<Span>>> = BTreeMap::new();
    for span in spans {
        by_rollout.entry(span.rollout_id.clone()).or_default().push(Arc::new(span));
    }
    for (rollout, spans) in by_rollout {
        let (made, attempts) = records_of(&rollout, &spans, path);
        add_rollout(made, attempts, store).await?;
        counts.rollouts.insert(rollout);
        for batch in spans.chunks(BATCH_SPANS) {
            let appended = store.append(batch.to_vec()).await?;
            counts.stored += appended.stored as u64;
            counts.duplicates += appended.duplicates as u64;
        }
    }
    Ok(())
}

/// Stores a rollout with its attempts, unless it is stored already.
async fn add_rollout(rollout: Rollout, attempts: Vec<Attempt>, store: &SharedStore) -> Result<(), StoreError> {
    if store.rollout(rollout.rollout_id.clone()).await?.is_some() {
        return Ok(());
    }
    store.upsert_rollout(rollout).await?;
    for attempt in attempts {
        store.upsert_attempt(attempt).await?;
    }
    Ok(())
}

/// The records of a rollout that a file has only spans of: it has ended with its last span.
fn records_of(id: &RolloutId, spans: &[Arc<Span>], path: &Path) -> (Rollout, Vec<Attempt>) {
    let (start, end) = times(spans.iter());
    let mut rollout =
        Rollout { end_time: Some(end), status: RolloutStatus::Succeeded, ..Rollout::running(id.clone(), start) };
    if let Some(metadata) = rollout.metadata.as_object_mut() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        metadata.insert("name".to_owned(), name.as_ref().into());
        metadata.insert("imported_from".to_owned(), name.as_ref().into());
    }
    let ids: BTreeSet<&AttemptId> = spans.iter().map(|span| &span.attempt_id).collect();
    let attempt = |attempt: &AttemptId| {
        let (start, end) = times(spans.iter().filter(|span| span.attempt_id == *attempt));
        let running = Attempt::running(id.clone(), attempt.clone(), start);
        Attempt { end_time: Some(end), status: AttemptStatus::Succeeded, ..running }
    };
    let mut attempts: Vec<Attempt> = ids.into_iter().map(attempt).collect();
    attempts.sort_by_key(|attempt| attempt.start_time);
    (rollout, attempts)
}

/// The first start and the last end.
fn times<'a>(spans: impl Iterator<Item = &'a Arc<Span>> + Clone) -> (Timestamp, Timestamp) {
    let start = spans.clone().filter_map(|span| span.start_time.or(span.end_time)).min().unwrap_or_default();
    let end = spans.filter_map(|span| span.end_time.or(span.start_time)).max().unwrap_or_default();
    (start, end.max(start))
}

/// Spans that are stored in one commit.
const BATCH_SPANS: usize = 500;
/// The largest file that is read into memory.
const MAX_FILE_BYTES: u64 = 4 << 30;
/// Different reasons that a report names.
const MAX_REASONS: usize = 20;
