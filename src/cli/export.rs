//! `tracewire export`: writes rollouts of the store as training data, or their spans in the formats of other programs.
//!
//! Rollouts are read, converted and written one by one. The file gets its name when it is whole. Beside training data is
//! the proof, which counts the sampled tokens that are in the data, and the others with their reasons.

use super::args::age;
use super::find::{find_rollout, open_for_query};
use super::settings::read_config;
use super::show;
use super::trace_list::parsed;
use crate::export::format::ExportFormat;
use crate::export::sample::{Proof, SampleOptions};
use crate::export::spans::AttributeConventions;
use crate::export::stream::{ExportCounts, ExportError, ExportStream, FileType, PreparedAttempt};
use crate::export::tokenizer::ModelTokenizer;
use crate::files::PartialFile;
use crate::query::{Prices, Query};
use crate::rollout::{IndexWait, RolloutSearch, SearchCache};
use crate::run::signals::stop_requests;
use crate::store::{AttemptReader, RolloutFilter, SelectedRollouts, SharedStore, StoreError};
use crate::trace::{RolloutId, RolloutStatus, Timestamp};
use crate::trajectory::{MergeMode, VerdictSettings};
use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use rustix::process::Signal;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Arguments of `export`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire export --all --format trajectories -o train.parquet
  tracewire export ro-0123 ro-4567 --format slime
  tracewire export --since 2h --status succeeded --format messages -o sft.jsonl
  tracewire export --query 'model:qwen* reward>=1 since:1d' --format verl -o train.jsonl
  tracewire export latest --format otlp-json -o spans.jsonl")]
pub(super) struct ExportArgs {
    /// Ids of rollouts, the beginnings of them, or `latest`
    #[arg(value_name = "ROLLOUT", required_unless_present_any = ["all", "query", "since", "status"])]
    rollouts: Vec<String>,
    /// Export all rollouts
    #[arg(long, conflicts_with = "rollouts")]
    all: bool,
    /// Only rollouts that match a query, as of `tracewire trace list`
    #[arg(long, value_name = "QUERY", conflicts_with_all = ["rollouts", "all", "since", "status"])]
    query: Option<String>,
    /// Only rollouts that started within this time, such as 90s, 30m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = age)]
    since: Option<Duration>,
    /// Only rollouts with this status (repeatable)
    #[arg(long, value_name = "STATUS", value_parser = status)]
    status: Vec<RolloutStatus>,
    /// What is written: a shape of training data, or a format of spans
    #[arg(long, value_parser = PossibleValuesParser::new(ExportFormat::all().map(ExportFormat::name)))]
    format: String,
    /// The file, which must not exist as a folder; it is replaced when the export is whole [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The type of the file [default: parquet if its name ends in .parquet, else jsonl]
    #[arg(long, value_enum, value_name = "TYPE")]
    file_type: Option<FileType>,
    /// With the formats otlp and otlp-json: by which conventions spans name what they hold of calls
    #[arg(long, value_enum, value_name = "NAMES", default_value_t = AttributeConventions::GenAi)]
    attributes: AttributeConventions,
    #[command(flatten)]
    sample: SampleArgs,
    /// The settings file, for its section `[verdict]`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    store: super::args::StoreArgs,
}

/// How calls become samples.
#[derive(Args)]
pub(super) struct SampleArgs {
    /// When a call continues an earlier one
    #[arg(long, value_enum, default_value_t = Merge::Strict)]
    merge: Merge,
    /// With `--merge realign`: how many sampled tokens may be lost at a break
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    realign_tokens: usize,
    /// A folder with tokenizer.json and tokenizer_config.json: gives ids to calls without, checks the ids of others, and shows breaks
    /// in text
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Merge {
    /// If its prompt begins with exactly the earlier tokens
    Strict,
    /// Also if only the ids of the same text differ
    Realign,
    /// Never
    PerCall,
}

impl SampleArgs {
    /// Reads the tokenizer, if one is named.
    pub(super) fn options(&self, verdict: VerdictSettings) -> Result<SampleOptions> {
        let mode = match self.merge {
            Merge::Strict => MergeMode::Strict,
            Merge::Realign => MergeMode::Realign(self.realign_tokens),
            Merge::PerCall => MergeMode::PerCall,
        };
        let tokenizer = self.tokenizer.as_deref().map(ModelTokenizer::from_folder).transpose()?.map(Arc::new);
        Ok(SampleOptions { mode, verdict, tokenizer })
    }
}

impl ExportArgs {
    fn file_type(&self) -> FileType {
        let is_parquet = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "parquet");
        let by_name = || if self.output.as_ref().is_some_and(is_parquet) { FileType::Parquet } else { FileType::Jsonl };
        self.file_type.unwrap_or_else(by_name)
    }
}

pub(super) async fn run(args: ExportArgs) -> Result<ExitCode> {
    if args.output.is_none() {
        return export(args).await.map(|()| ExitCode::SUCCESS);
    }
    let mut stop =
        stop_requests(&[Signal::TERM, Signal::INT, Signal::HUP]).context("cannot install a signal handler")?;
    tokio::select! {
        exported = Box::pin(export(args)) => exported.map(|()| ExitCode::SUCCESS),
        // What was written of the file goes with the export.
        Some(signal) = stop.recv() => Ok(stopped_by(signal)),
    }
}

async fn export(args: ExportArgs) -> Result<()> {
    let settings = read_config(args.config.as_deref())?;
    let Some(format) = ExportFormat::named(&args.format) else { bail!("there is no format {}", args.format) };
    let format = format.with_attributes(args.attributes).context("--attributes openinference")?;
    let export = ExportStream::new(format, args.file_type())?;
    let query = parsed(args.query.as_deref().unwrap_or_default(), Timestamp::from(SystemTime::now()))?;
    let (store, place) = open_for_query(&args.store, &query).await?;
    let options = args.sample.options(settings.verdict)?;
    let (mut rollouts, total) = match &args.query {
        Some(_) => {
            let ids = matching(&query, &store, &options.verdict, settings.prices.clone()).await?;
            let total = ids.len() as u64;
            (SelectedRollouts::listed(&store, ids), total)
        }
        None => {
            let filter = selection(&args, &store, &place).await?;
            (SelectedRollouts::by_start(&store, filter.clone(), |_| true), store.count_rollouts(filter).await?)
        }
    };
    if rollouts.is_empty().await? {
        bail!("{place} has no such rollouts; list its rollouts with `tracewire trace list`");
    }
    let reader = reader(&export, rollouts, &store, options).await?;
    let progress = Progress { is_shown: std::io::stderr().is_terminal(), total };
    let written = match &args.output {
        Some(path) => to_file(path, export, reader, &progress).await.map(Some),
        None => to_stdout(export, reader, &progress).await,
    };
    store.close().await?;
    if let Some(counts) = written? {
        show::note(&summary(&counts));
    }
    Ok(())
}

/// The rollouts that match a query, oldest first.
async fn matching(
    query: &Query,
    store: &SharedStore,
    verdict: &VerdictSettings,
    prices: Prices,
) -> Result<Vec<RolloutId>> {
    let now = Timestamp::from(SystemTime::now());
    let cache = SearchCache::new(verdict.clone(), prices, IndexWait::Complete);
    let search = RolloutSearch { store, cache: &cache, query, now, only: None };
    Ok(search.all_ids(|_| true).await?)
}

/// The rollouts that the other arguments select.
async fn selection(args: &ExportArgs, store: &SharedStore, place: &str) -> Result<RolloutFilter> {
    let mut filter = RolloutFilter::default();
    if !args.rollouts.is_empty() {
        let mut ids = Vec::with_capacity(args.rollouts.len());
        for wanted in &args.rollouts {
            ids.push(find_rollout(store, wanted, place).await?);
        }
        filter.ids = Some(ids);
    }
    filter.statuses = (!args.status.is_empty()).then(|| args.status.clone());
    let from = |age| Timestamp::from(SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH));
    filter.started_from = args.since.map(from);
    Ok(filter)
}

/// Reads the attempts of rollouts and prepares them for the export.
async fn reader(
    export: &ExportStream,
    rollouts: SelectedRollouts,
    store: &SharedStore,
    options: SampleOptions,
) -> Result<Reader> {
    let (rollouts, preparation) = (rollouts.ordered_by(export.order_key()).await?, export.preparation());
    Ok(AttemptReader::new(store, rollouts, export.scope(), move |found, spans| {
        preparation.prepare(found, spans, &options)
    }))
}

type Reader = AttemptReader<PreparedAttempt>;

/// Writes to stdout. `None`: the reader of the pipe is gone, as after `| head`, so that the rest is not made.
async fn to_stdout(export: ExportStream, reader: Reader, progress: &Progress) -> Result<Option<ExportCounts>> {
    let mut stdout = BufWriter::with_capacity(BUFFER_BYTES, std::io::stdout().lock());
    match write_all(&mut stdout, export, reader, progress).await {
        Err(WriteError::Output(error)) => {
            // What it holds would be written when it is dropped.
            drop(stdout.into_parts());
            show::unless_closed(Err(error)).context("cannot write to stdout")?;
            Ok(None)
        }
        written => Ok(Some(written?)),
    }
}

/// Writes the file, and the proof of training data. Readers see neither before both are whole.
async fn to_file(path: &Path, export: ExportStream, reader: Reader, progress: &Progress) -> Result<ExportCounts> {
    let cannot_write = || format!("cannot write {}", path.display());
    let mut file = PartialFile::create(path).with_context(cannot_write)?;
    let proof_path = proof_path(path);
    let has_proof = export.counts().proof.is_some();
    let proof_file = has_proof.then(|| PartialFile::create(&proof_path)).transpose().with_context(cannot_write)?;
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, file.file());
    let counts = write_all(&mut writer, export, reader, progress).await.with_context(cannot_write)?;
    writer.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(cannot_write)?;
    if let (Some(mut proof_file), Some(proof)) = (proof_file, &counts.proof) {
        serde_json::to_writer_pretty(proof_file.file(), proof).with_context(cannot_write)?;
        proof_file.complete().with_context(|| format!("cannot write {}", proof_path.display()))?;
    }
    file.complete().with_context(cannot_write)?;
    Ok(counts)
}

/// The exit code of a program that a signal ended.
fn stopped_by(signal: Signal) -> ExitCode {
    u8::try_from(128 + signal.as_raw()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// `train.jsonl` has its proof in `train.jsonl.proof.json`.
fn proof_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".proof.json");
    name.into()
}

async fn write_all(
    writer: &mut impl Write,
    mut export: ExportStream,
    mut reader: Reader,
    progress: &Progress,
) -> Result<ExportCounts, WriteError> {
    while let Some(attempt) = reader.next().await? {
        writer.write_all(&export.add(attempt)?).map_err(WriteError::Output)?;
        progress.show(export.counts());
    }
    let (rest, counts) = export.finish()?;
    writer.write_all(&rest).and_then(|()| writer.flush()).map_err(WriteError::Output)?;
    progress.clear();
    Ok(counts)
}

/// The line on a terminal that tells how far an export is.
struct Progress {
    is_shown: bool,
    // Rollouts to export.
    total: u64,
}

impl Progress {
    fn show(&self, counts: &ExportCounts) {
        if self.is_shown {
            let made = match &counts.proof {
                Some(proof) => format!("{} rows", proof.rows),
                None => show::count(counts.spans as u64, "span"),
            };
            show::replace_line(&format!("{} of {} rollouts, {made}", counts.rollouts, self.total));
        }
    }

    fn clear(&self) {
        if self.is_shown {
            show::replace_line("");
        }
    }
}

impl Drop for Progress {
    /// An export that ends early leaves no line.
    fn drop(&mut self) {
        self.clear();
    }
}

/// Why an export is not whole.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Output(std::io::Error),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn summary(counts: &ExportCounts) -> String {
    let Some(proof) = &counts.proof else {
        return format!("{} rollouts, {}", counts.rollouts, show::count(counts.spans as u64, "span"));
    };
    let Proof { rollouts, rows, sampled_tokens, trained_tokens, .. } = proof;
    let missing = proof.missing.iter().map(|(reason, missing)| format!("{reason} {}", missing.tokens));
    let missing = missing.collect::<Vec<_>>().join(", ");
    let why = if missing.is_empty() { String::new() } else { format!(" (others: {missing})") };
    format!("{rollouts} rollouts, {rows} rows, {trained_tokens} of {sampled_tokens} sampled tokens trained{why}")
}

#[derive(Debug, thiserror::Error)]
enum InvalidArgument {
    #[error(
        "there is no such status; rollouts are queuing, preparing, running, failed, succeeded, cancelled or requeuing"
    )]
    Status,
}

fn status(text: &str) -> Result<RolloutStatus, InvalidArgument> {
    serde_json::from_value(text.into()).map_err(|_| InvalidArgument::Status)
}

const BUFFER_BYTES: usize = 256 * 1024;
