//! A store behind a spool.

use super::file::Spool;
use crate::store::api::{
    Appended, BoxFuture, EndedRollouts, NumberedSpans, RolloutCounts, RolloutFilter, RolloutSequenceState,
    RolloutSummary, SequenceAuthority, SharedStore, SpanOutline, Statistics, Store,
};
use crate::store::error::{FailedAppend, Result, StoreError};
use crate::store::pruning::{PruneCursor, PruneRequest, PruneSlice, Pruned};
use crate::store::records::Change;
use crate::store::sequence_file::SequenceFile;
use crate::store::span_query::{SpanContent, SpanPage, SpanPlace, SpanQuery, SpansAt};
use crate::store::usage::{StoreUsage, Vacuum};
use crate::store::words::{FoundRollouts, WordBatch, WordSearch};
use crate::trace::{Attempt, AttemptId, AttemptedRollout, ResourcesUpdate, Rollout, RolloutId, Span, Worker};
use backon::{BackoffBuilder, ExponentialBuilder};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// A store that keeps spans in a file while its server can't take them.
pub struct SpooledStore {
    server: SharedStore,
    spool: Arc<Spool>,
    /// Continues the server's ids while it is away.
    sequences: SequenceFile,
    draining: JoinHandle<()>,
}

impl SpooledStore {
    /// Puts a spool before `server`: a file in `folder` of at most about `max_bytes`. Spans that wait there from earlier runs
    /// follow at once. Needs a tokio runtime.
    pub fn new(server: SharedStore, folder: &Path, max_bytes: u64) -> Result<Self> {
        let spool = Arc::new(Spool::open(folder, max_bytes)?);
        let draining = tokio::spawn(keep_draining(Arc::clone(&spool), Arc::clone(&server)));
        Ok(Self { server, spool, sequences: SequenceFile::new(folder.join("sequences")), draining })
    }
}

impl Drop for SpooledStore {
    fn drop(&mut self) {
        self.draining.abort();
    }
}

/// Drains the spool of this process when spans wait, and those of other processes from time to time.
async fn keep_draining(spool: Arc<Spool>, server: SharedStore) {
    let mut pauses = retry_pauses();
    let mut adopted: Option<Instant> = None;
    loop {
        let mut drained = spool.empty(&server).await;
        if drained.is_ok() && adopted.is_none_or(|last| last.elapsed() >= ADOPT_INTERVAL) {
            adopted = Some(Instant::now());
            drained = spool.adopt(&server).await;
        }
        let pause = match drained {
            Ok(()) => {
                pauses = retry_pauses();
                POLL_INTERVAL
            }
            Err(error) => {
                tracing::debug!(%error, "the server does not take the spans that wait in a file; trying again later");
                pauses.next().unwrap_or(MAX_RETRY_PAUSE)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Growing pauses between tries to reach the server.
fn retry_pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(POLL_INTERVAL)
        .with_max_delay(MAX_RETRY_PAUSE)
        .without_max_times()
        .build()
}

/// Time between two looks at an empty spool.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two looks at the files of other processes.
const ADOPT_INTERVAL: Duration = Duration::from_secs(10);
/// Longest pause, before jitter.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(4);

impl Store for SpooledStore {
    fn append(&self, spans: Vec<Arc<Span>>) -> BoxFuture<'_, Result<Appended>> {
        Box::pin(async move {
            match self.server.append(spans.clone()).await {
                Err(StoreError::Closed) => Err(StoreError::Closed),
                Err(error) if error.failed_append() == FailedAppend::Retry => self.spool.put(spans, error).await,
                done => done,
            }
        })
    }

    fn change(&self, change: Change) -> BoxFuture<'_, Result<()>> {
        self.server.change(change)
    }

    fn rollout(&self, id: RolloutId) -> BoxFuture<'_, Result<Option<Rollout>>> {
        self.server.rollout(id)
    }

    fn rollouts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<RolloutSummary>>> {
        self.server.rollouts(limit)
    }

    fn attempted_rollouts(&self, filter: RolloutFilter) -> BoxFuture<'_, Result<Vec<AttemptedRollout>>> {
        self.server.attempted_rollouts(filter)
    }

    fn count_rollouts(&self, filter: RolloutFilter) -> BoxFuture<'_, Result<u64>> {
        self.server.count_rollouts(filter)
    }

    fn attempts(&self, id: RolloutId) -> BoxFuture<'_, Result<Vec<Attempt>>> {
        self.server.attempts(id)
    }

    fn span_page(&self, query: SpanQuery) -> BoxFuture<'_, Result<SpanPage>> {
        self.server.span_page(query)
    }

    fn spans_at(
        &self,
        rollout: RolloutId,
        places: Vec<SpanPlace>,
        content: SpanContent,
    ) -> BoxFuture<'_, Result<SpansAt>> {
        self.server.spans_at(rollout, places, content)
    }

    fn span_outlines(&self, rollout: RolloutId, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<SpanOutline>>> {
        self.server.span_outlines(rollout, after, limit)
    }

    fn spans_by_number(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<NumberedSpans>> {
        self.server.spans_by_number(after, limit)
    }

    fn words_through(&self) -> BoxFuture<'_, Result<u64>> {
        self.server.words_through()
    }

    fn add_words(&self, batch: WordBatch) -> BoxFuture<'_, Result<()>> {
        self.server.add_words(batch)
    }

    fn find_words(&self, search: WordSearch) -> BoxFuture<'_, Result<FoundRollouts>> {
        self.server.find_words(search)
    }

    fn span(&self, rollout: RolloutId, attempt: AttemptId, span_id: String) -> BoxFuture<'_, Result<Option<Span>>> {
        self.server.span(rollout, attempt, span_id)
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<Worker>>> {
        self.server.workers()
    }

    fn all_resources(&self) -> BoxFuture<'_, Result<Vec<ResourcesUpdate>>> {
        self.server.all_resources()
    }

    fn llm_calls(&self, rollouts: Vec<RolloutId>) -> BoxFuture<'_, Result<HashMap<RolloutId, u64>>> {
        self.server.llm_calls(rollouts)
    }

    fn rollout_counts(&self, rollouts: Vec<RolloutId>) -> BoxFuture<'_, Result<HashMap<RolloutId, RolloutCounts>>> {
        self.server.rollout_counts(rollouts)
    }

    fn trace_owners(&self, traces: Vec<String>) -> BoxFuture<'_, Result<HashMap<String, (RolloutId, AttemptId)>>> {
        self.server.trace_owners(traces)
    }

    fn sequence_authority(&self) -> SequenceAuthority {
        self.server.sequence_authority()
    }

    fn next_sequences(&self, id: RolloutId, above: u64, count: u64) -> BoxFuture<'_, Result<RolloutSequenceState>> {
        Box::pin(async move {
            // The server does not know the ids of spans that wait here.
            let above = self.sequences.note(&id, above);
            let state = self.server.next_sequences(id.clone(), above, count).await?;
            self.sequences.note(&id, state.last_sequence_id);
            Ok(state)
        })
    }

    fn take_sequence(&self, id: &RolloutId, at_least: u64) -> u64 {
        self.sequences.take(id, at_least)
    }

    fn sequence_state(&self, id: RolloutId) -> BoxFuture<'_, Result<RolloutSequenceState>> {
        self.server.sequence_state(id)
    }

    fn ended_rollouts(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<EndedRollouts>> {
        self.server.ended_rollouts(after, limit)
    }

    fn statistics(&self) -> BoxFuture<'_, Result<Statistics>> {
        Box::pin(async move {
            let (waiting, refused) = (self.spool.waiting(), self.spool.dropped());
            Ok(Statistics { waiting, refused, ..self.server.statistics().await? })
        })
    }

    fn usage(&self) -> BoxFuture<'_, Result<StoreUsage>> {
        Box::pin(async move {
            Ok(StoreUsage { spool_bytes: Some(self.spool.folder_bytes()), ..self.server.usage().await? })
        })
    }

    fn prune_slice(&self, request: PruneRequest, from: PruneCursor) -> BoxFuture<'_, Result<PruneSlice>> {
        self.server.prune_slice(request, from)
    }

    fn prune_preview(&self, request: PruneRequest) -> BoxFuture<'_, Result<Pruned>> {
        self.server.prune_preview(request)
    }

    fn vacuum(&self, extent: Vacuum) -> BoxFuture<'_, Result<()>> {
        self.server.vacuum(extent)
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.draining.abort();
            // A last try. Spans that the server does not take remain in the file.
            if let Err(error) = self.spool.empty(&self.server).await {
                tracing::debug!(%error, "the server does not take the spans that wait in a file");
            }
            self.spool.close().await?;
            self.server.close().await
        })
    }
}
