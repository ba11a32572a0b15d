//! The store: reads go to the readers, writes to the writer thread.

use super::file::{self, SchemaState};
use super::open_file::OpenFile;
use super::options::SqliteOptions;
use super::pruning;
use super::queries;
use super::readers::Readers;
use super::rollouts;
use super::spans;
use super::usage::usage;
use super::vacuum::rewrite;
use super::words;
use super::work::{Outcome, Work};
use super::writer::Writer;
use crate::store::api::{
    Appended, BoxFuture, EndedRollouts, NumberedSpans, RolloutCounts, RolloutFilter, RolloutSequenceState,
    RolloutSummary, SequenceAuthority, SpanOutline, Statistics, Store,
};
use crate::store::error::{Result, StoreError};
use crate::store::pruning::{PruneCounters, PruneCursor, PruneRequest, PruneSlice, Pruned};
use crate::store::records::Change;
use crate::store::retention::Retention;
use crate::store::sequence_file::SequenceFile;
use crate::store::span_query::{SpanContent, SpanPage, SpanPlace, SpanQuery, SpansAt};
use crate::store::usage::{StoreUsage, Vacuum};
use crate::store::words::{FoundRollouts, WordBatch, WordSearch};
use crate::trace::{Attempt, AttemptId, AttemptedRollout, ResourcesUpdate, Rollout, RolloutId, Span, Worker};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A store in a SQLite file. Its methods need a tokio runtime. Dropping it waits for accepted writes.
pub struct SqliteStore {
    file: Arc<OpenFile>,
    readers: Arc<Readers>,
    /// `None` if the file was opened for reading.
    writer: Option<Writer>,
    sequences: SequenceFile,
    damaged_reads: Arc<AtomicU64>,
    pruned: Arc<PruneCounters>,
    retention: Retention,
    busy_timeout: Duration,
}

impl SqliteStore {
    /// Opens the file and migrates it. Creates the file and its folder if they are missing. Blocks, so that it belongs to
    /// the start of the program.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Self> {
        let file = Arc::new(OpenFile::new(path));
        let opened = file.open(|path| file::open_writer(path, &options))?;
        let mut store = Self::with(file, &options);
        let (file, readers) = (Arc::clone(&store.file), Arc::clone(&store.readers));
        store.writer = Some(Writer::start(file, opened, readers, options, Arc::clone(&store.pruned))?);
        Ok(store)
    }

    /// Opens an existing file without changing it: it need not be writable, and writes fail. A file of an older schema is
    /// migrated, as by [`Self::open`]. Blocks.
    pub fn open_for_reading(path: &Path, options: SqliteOptions) -> Result<Self> {
        match file::identify_for_reading(path, options.busy_timeout)? {
            SchemaState::Current => Ok(Self::with(Arc::new(OpenFile::new(path)), &options)),
            SchemaState::Older => Self::open(path, options),
        }
    }

    /// A store without a writer.
    fn with(file: Arc<OpenFile>, options: &SqliteOptions) -> Self {
        let readers = Arc::new(Readers::new(Arc::clone(&file), options.busy_timeout));
        let sequences = sequences_of(file.path());
        let (damaged_reads, pruned) = (Arc::default(), Arc::default());
        let (retention, busy_timeout) = (options.retention, options.busy_timeout);
        Self { file, readers, writer: None, sequences, damaged_reads, pruned, retention, busy_timeout }
    }

    fn writer(&self) -> Result<&Writer> {
        self.writer.as_ref().ok_or_else(|| StoreError::OpenedForReading { path: self.path().to_owned() })
    }

    /// The store's file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The last connection checkpoints the write-ahead log; that has to be the writer's.
        self.readers.clear();
    }
}

impl Store for SqliteStore {
    fn append(&self, spans: Vec<Arc<Span>>) -> BoxFuture<'_, Result<Appended>> {
        Box::pin(async move {
            match self.writer()?.append(spans).await? {
                Outcome::Appended(appended) => Ok(appended),
                _ => Err(unexpected_outcome()),
            }
        })
    }

    fn change(&self, change: Change) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.writer()?.run(Work::Change(change)).await.map(drop) })
    }

    fn rollout(&self, id: RolloutId) -> BoxFuture<'_, Result<Option<Rollout>>> {
        Box::pin(self.readers.read(move |connection| queries::rollout(connection, &id)))
    }

    fn rollouts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<RolloutSummary>>> {
        Box::pin(self.readers.read(move |connection| queries::rollouts(connection, limit)))
    }

    fn attempted_rollouts(&self, filter: RolloutFilter) -> BoxFuture<'_, Result<Vec<AttemptedRollout>>> {
        Box::pin(self.readers.read(move |connection| rollouts::attempted_rollouts(connection, &filter)))
    }

    fn count_rollouts(&self, filter: RolloutFilter) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.readers.read(move |connection| rollouts::count_rollouts(connection, filter)))
    }

    fn attempts(&self, id: RolloutId) -> BoxFuture<'_, Result<Vec<Attempt>>> {
        Box::pin(self.readers.read(move |connection| queries::attempts(connection, &id)))
    }

    fn span_page(&self, query: SpanQuery) -> BoxFuture<'_, Result<SpanPage>> {
        let damaged_reads = Arc::clone(&self.damaged_reads);
        Box::pin(
            self.readers.read_pieces(move |connection, pieces| spans::page(connection, pieces, &query, &damaged_reads)),
        )
    }

    fn spans_at(
        &self,
        rollout: RolloutId,
        places: Vec<SpanPlace>,
        content: SpanContent,
    ) -> BoxFuture<'_, Result<SpansAt>> {
        let damaged_reads = Arc::clone(&self.damaged_reads);
        Box::pin(self.readers.read_pieces(move |connection, pieces| {
            spans::at(connection, pieces, &rollout, &places, content, &damaged_reads)
        }))
    }

    fn span_outlines(&self, rollout: RolloutId, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<SpanOutline>>> {
        Box::pin(self.readers.read(move |connection| spans::outlines(connection, &rollout, after, limit)))
    }

    fn spans_by_number(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<NumberedSpans>> {
        let damaged_reads = Arc::clone(&self.damaged_reads);
        let recent = self.writer.as_ref().map(Writer::recent);
        Box::pin(self.readers.read_pieces(move |connection, pieces| {
            let state = spans::state(connection)?;
            match recent.and_then(|recent| recent.spans.page(after, limit, state)) {
                Some(page) => Ok(page),
                None => spans::by_number(connection, pieces, after, limit, &damaged_reads),
            }
        }))
    }

    fn span(&self, rollout: RolloutId, attempt: AttemptId, span_id: String) -> BoxFuture<'_, Result<Option<Span>>> {
        let damaged_reads = Arc::clone(&self.damaged_reads);
        Box::pin(self.readers.read_pieces(move |connection, pieces| {
            spans::one(connection, pieces, &rollout, &attempt, &span_id, &damaged_reads)
        }))
    }

    fn words_through(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.readers.read(words::indexed_through))
    }

    fn add_words(&self, batch: WordBatch) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.writer()?.run(Work::AddWords(batch)).await.map(drop) })
    }

    fn find_words(&self, search: WordSearch) -> BoxFuture<'_, Result<FoundRollouts>> {
        Box::pin(self.readers.read(move |connection| words::find(connection, &search)))
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<Worker>>> {
        Box::pin(self.readers.read(|connection| queries::all(connection, "worker")))
    }

    fn all_resources(&self) -> BoxFuture<'_, Result<Vec<ResourcesUpdate>>> {
        Box::pin(self.readers.read(|connection| queries::all(connection, "resources")))
    }

    fn llm_calls(&self, rollouts: Vec<RolloutId>) -> BoxFuture<'_, Result<HashMap<RolloutId, u64>>> {
        Box::pin(self.readers.read(move |connection| queries::llm_calls(connection, &rollouts)))
    }

    fn rollout_counts(&self, ids: Vec<RolloutId>) -> BoxFuture<'_, Result<HashMap<RolloutId, RolloutCounts>>> {
        Box::pin(self.readers.read(move |connection| rollouts::counts(connection, &ids)))
    }

    fn trace_owners(&self, traces: Vec<String>) -> BoxFuture<'_, Result<HashMap<String, (RolloutId, AttemptId)>>> {
        Box::pin(self.readers.read(move |connection| queries::trace_owners(connection, &traces)))
    }

    fn sequence_authority(&self) -> SequenceAuthority {
        SequenceAuthority::Process
    }

    fn next_sequences(&self, id: RolloutId, above: u64, count: u64) -> BoxFuture<'_, Result<RolloutSequenceState>> {
        Box::pin(async move {
            match self.writer()?.run(Work::NextSequences(id, above, count)).await? {
                Outcome::Sequence(state) => Ok(state),
                _ => Err(unexpected_outcome()),
            }
        })
    }

    fn take_sequence(&self, id: &RolloutId, at_least: u64) -> u64 {
        self.sequences.take(id, at_least)
    }

    fn sequence_state(&self, id: RolloutId) -> BoxFuture<'_, Result<RolloutSequenceState>> {
        Box::pin(self.readers.read(move |connection| queries::sequence_state(connection, &id)))
    }

    fn ended_rollouts(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<EndedRollouts>> {
        Box::pin(self.readers.read(move |connection| queries::ended_rollouts(connection, after, limit)))
    }

    fn statistics(&self) -> BoxFuture<'_, Result<Statistics>> {
        let (lost_files, damaged_reads) = (self.file.lost_files(), self.damaged_reads.load(Ordering::Relaxed));
        Box::pin(async move {
            let pruned = self.pruned.read();
            let (pruned_spans, pruned_rollouts) = (pruned.spans, pruned.rollouts);
            let counts = self.readers.read(queries::statistics).await?;
            Ok(Statistics { lost_files, damaged_reads, pruned_spans, pruned_rollouts, ..counts })
        })
    }

    fn usage(&self) -> BoxFuture<'_, Result<StoreUsage>> {
        let file = Arc::clone(&self.file);
        Box::pin(self.readers.read(move |connection| usage(connection, file.path())))
    }

    fn prune_slice(&self, request: PruneRequest, from: PruneCursor) -> BoxFuture<'_, Result<PruneSlice>> {
        Box::pin(async move {
            match self.writer()?.run(Work::Prune(request, from)).await? {
                Outcome::Pruned(slice) => Ok(slice),
                _ => Err(unexpected_outcome()),
            }
        })
    }

    fn prune_preview(&self, request: PruneRequest) -> BoxFuture<'_, Result<Pruned>> {
        let retention = self.retention;
        Box::pin(
            self.readers
                .read(move |connection| pruning::preview(connection, &request, retention, SystemTime::now().into())),
        )
    }

    fn vacuum(&self, extent: Vacuum) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.writer()?;
            if extent == Vacuum::Full {
                let (file, busy_timeout) = (Arc::clone(&self.file), self.busy_timeout);
                let rewritten = tokio::task::spawn_blocking(move || rewrite(file.path(), busy_timeout)).await;
                return rewritten.map_err(|error| StoreError::Other(error.to_string()))?;
            }
            let mut from = PruneCursor::at_pages();
            while let Some(next) = self.prune_slice(PruneRequest::OwnLimits, from).await?.next {
                from = next;
            }
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.readers.close().await;
            match &self.writer {
                Some(writer) => writer.close().await,
                None => Ok(()),
            }
        })
    }
}

/// The sequence counters that the programs of one file share.
fn sequences_of(path: &Path) -> SequenceFile {
    SequenceFile::new(file::with_end(path, "-sequences"))
}

fn unexpected_outcome() -> StoreError {
    StoreError::Other("the writer thread returned the outcome of another command".to_owned())
}
