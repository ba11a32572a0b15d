//! The store: work on pooled connections, retried if another transaction conflicts with it.

use super::connections::Connections;
use super::error::{QueryError, cause};
use super::options::{PostgresOptions, WhenUnreachable, without_password};
use super::settled::Settled;
use super::statistics::StatisticsCache;
use super::transaction::Changed;
use super::{append, ended, pruning, queries, spans, texts, transaction, usage, words};
use crate::store::api::{
    Appended, BoxFuture, EndedRollouts, NumberedSpans, RolloutCounts, RolloutFilter, RolloutSequenceState,
    RolloutSummary, SequenceAuthority, SpanOutline, Statistics, Store,
};
use crate::store::error::{Result, StoreError};
use crate::store::pruning::{PruneBackoff, PruneCounters, PruneCursor, PruneRequest, PruneSlice, Pruned};
use crate::store::records::Change;
use crate::store::span_query::{SpanContent, SpanPage, SpanPlace, SpanQuery, SpansAt};
use crate::store::span_row::SpanRow;
use crate::store::usage::{StoreUsage, Vacuum};
use crate::store::words::{FoundRollouts, WordBatch, WordSearch};
use crate::trace::{Attempt, AttemptId, AttemptedRollout, ResourcesUpdate, Rollout, RolloutId, Span, Worker};
use backon::{ExponentialBuilder, Retryable};
use deadpool_postgres::Object;
use rustls::ClientConfig;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio_postgres::Config;

/// A store in a PostgreSQL server.
pub struct PostgresStore {
    connections: Connections,
    options: PostgresOptions,
    /// Spans stored since the last check of the retention limits.
    unchecked_spans: AtomicUsize,
    pruning: tokio::sync::Mutex<Pruning>,
    statistics: StatisticsCache,
    settled: Arc<Settled>,
    pruned: PruneCounters,
}

/// How far a prune by the limits is.
#[derive(Default)]
struct Pruning {
    /// Where it goes on. `None`: none is in progress.
    next: Option<PruneCursor>,
    backoff: PruneBackoff,
}

type Answer<T> = std::result::Result<T, QueryError>;

impl PostgresStore {
    /// Connects to the server in `url`, and creates or migrates its tables. `tls` is used if the URL's `sslmode` requires
    /// or prefers it.
    pub async fn open(url: &str, tls: Arc<ClientConfig>, options: PostgresOptions) -> Result<Self> {
        let config: Config = url.parse().map_err(|error: tokio_postgres::Error| StoreError::InvalidUrl {
            url: without_password(url),
            cause: cause(&error),
        })?;
        let connections = Connections::new(config, &tls, options.answer_timeout)?;
        let statistics = StatisticsCache::default();
        let (unchecked_spans, settled, pruned) = (AtomicUsize::new(0), Arc::default(), PruneCounters::default());
        let pruning = tokio::sync::Mutex::default();
        let store = Self { connections, options, unchecked_spans, pruning, statistics, settled, pruned };
        match store.connections.make_tables().await {
            // A process may have ended between a removal and the removal of its texts.
            Ok(()) => store.remove_orphaned_texts().await,
            Err(error) => {
                let error = error.into_store_error(&store.connections.server);
                let is_away = matches!(error, StoreError::Unreachable { .. });
                if !is_away || store.options.when_unreachable == WhenUnreachable::Fail {
                    return Err(error);
                }
                tracing::warn!(%error, "starting without the store's server; spans wait for it");
            }
        }
        Ok(store)
    }

    async fn run<T: Send>(
        &self,
        work: impl for<'c> FnOnce(&'c mut Object) -> BoxFuture<'c, Answer<T>> + Send,
    ) -> Result<T> {
        self.connections.run(work).await.map_err(|error| error.into_store_error(&self.connections.server))
    }

    async fn append_once(&self, rows: &Arc<Vec<SpanRow>>) -> Answer<Appended> {
        let (rows, observer) = (Arc::clone(rows), self.options.observer);
        self.connections
            .run(move |connection| {
                Box::pin(async move {
                    let transaction = connection.transaction().await?;
                    let new = append::append(&transaction, &rows, observer).await?.len();
                    transaction.commit().await?;
                    Ok(Appended { stored: new, duplicates: rows.len() - new })
                })
            })
            .await
    }

    /// Runs a change. It remains in its slot, so that it can run again.
    async fn change_once(&self, slot: &Arc<Mutex<Change>>) -> Answer<Changed> {
        let slot = Arc::clone(slot);
        self.connections
            .run_blocking(move |connection, blocking| {
                let mut change = slot.lock().unwrap_or_else(PoisonError::into_inner);
                transaction::run(connection, blocking, &mut change)
            })
            .await
    }

    async fn slice_once(&self, request: PruneRequest, from: PruneCursor) -> Answer<PruneSlice> {
        let (retention, now) = (self.options.retention, SystemTime::now().into());
        self.connections
            .run(move |connection| Box::pin(pruning::prune_slice(connection, request, from, retention, now)))
            .await
    }

    /// Removes a slice of what exceeds the retention limits, if enough spans were stored since the last check or the last slice
    /// was not the end. More than a slice would hold up the spans that wait to be stored.
    async fn apply_limits(&self, stored: usize) {
        if self.options.retention.is_unlimited() {
            return;
        }
        let unchecked = self.unchecked_spans.fetch_add(stored, Ordering::Relaxed) + stored;
        // One slice at a time: other appends go on.
        let Ok(mut pruning) = self.pruning.try_lock() else { return };
        // It stays until the slice is done: a caller that goes away must not lose it.
        let from = match pruning.next.clone() {
            Some(from) => from,
            None if unchecked >= SPANS_PER_CHECK && pruning.backoff.is_over() => {
                self.unchecked_spans.store(0, Ordering::Relaxed);
                PruneCursor::default()
            }
            None => return,
        };
        match self.prune_slice(PruneRequest::OwnLimits, from).await {
            Ok(slice) => {
                pruning.backoff.note(&slice);
                pruning.next = slice.next;
            }
            Err(error) => {
                pruning.next = None;
                tracing::warn!(%error, "the store's retention limits could not be applied; trying again later");
            }
        }
    }

    /// Removes texts without references. After an error they remain listed, and the next removal continues.
    async fn remove_orphaned_texts(&self) {
        let sweep = || {
            self.connections.run(|connection| {
                Box::pin(async move {
                    let transaction = connection.transaction().await?;
                    let processed = texts::sweep(&transaction).await?;
                    transaction.commit().await?;
                    Ok(processed)
                })
            })
        };
        loop {
            match sweep.retry(conflict_backoff()).when(QueryError::is_conflict).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    let error = error.into_store_error(&self.connections.server);
                    return tracing::warn!(%error, "texts of removed spans could not be removed; trying again later");
                }
            }
        }
    }
}

impl Store for PostgresStore {
    fn append(&self, spans: Vec<Arc<Span>>) -> BoxFuture<'_, Result<Appended>> {
        Box::pin(async move {
            let rows = spans.iter().map(append::encode_row).collect::<Result<Vec<_>>>()?;
            if rows.is_empty() {
                return Ok(Appended::default());
            }
            let rows = Arc::new(rows);
            let appended = (|| self.append_once(&rows)).retry(conflict_backoff()).when(QueryError::is_conflict).await;
            let appended = appended.map_err(|error| error.into_store_error(&self.connections.server))?;
            self.apply_limits(appended.stored).await;
            Ok(appended)
        })
    }

    fn change(&self, change: Change) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let slot = Arc::new(Mutex::new(change));
            let changed = (|| self.change_once(&slot)).retry(conflict_backoff()).when(QueryError::is_conflict).await;
            let changed = changed.map_err(|error| error.into_store_error(&self.connections.server))?;
            if changed.has_removed {
                self.remove_orphaned_texts().await;
            }
            Ok(())
        })
    }

    fn rollout(&self, id: RolloutId) -> BoxFuture<'_, Result<Option<Rollout>>> {
        Box::pin(self.run(move |connection| Box::pin(async move { queries::rollout(connection, &id).await })))
    }

    fn rollouts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<RolloutSummary>>> {
        Box::pin(self.run(move |connection| Box::pin(queries::rollouts(connection, limit))))
    }

    fn attempted_rollouts(&self, filter: RolloutFilter) -> BoxFuture<'_, Result<Vec<AttemptedRollout>>> {
        Box::pin(
            self.run(move |connection| Box::pin(async move { queries::attempted_rollouts(connection, &filter).await })),
        )
    }

    fn count_rollouts(&self, filter: RolloutFilter) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.run(move |connection| Box::pin(queries::count_rollouts(connection, filter))))
    }

    fn attempts(&self, id: RolloutId) -> BoxFuture<'_, Result<Vec<Attempt>>> {
        Box::pin(self.run(move |connection| Box::pin(async move { queries::attempts(connection, &id).await })))
    }

    fn span_page(&self, query: SpanQuery) -> BoxFuture<'_, Result<SpanPage>> {
        Box::pin(self.run(move |connection| Box::pin(async move { spans::page(connection, &query).await })))
    }

    fn spans_at(
        &self,
        rollout: RolloutId,
        places: Vec<SpanPlace>,
        content: SpanContent,
    ) -> BoxFuture<'_, Result<SpansAt>> {
        Box::pin(
            self.run(move |connection| {
                Box::pin(async move { spans::at(connection, &rollout, &places, content).await })
            }),
        )
    }

    fn span_outlines(&self, rollout: RolloutId, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<SpanOutline>>> {
        Box::pin(
            self.run(move |connection| {
                Box::pin(async move { spans::outlines(connection, &rollout, after, limit).await })
            }),
        )
    }

    fn spans_by_number(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<NumberedSpans>> {
        let settled = Arc::clone(&self.settled);
        Box::pin(
            self.run(move |connection| {
                Box::pin(async move { spans::by_number(connection, after, limit, &settled).await })
            }),
        )
    }

    fn span(&self, rollout: RolloutId, attempt: AttemptId, span_id: String) -> BoxFuture<'_, Result<Option<Span>>> {
        Box::pin(
            self.run(move |connection| {
                Box::pin(async move { spans::one(connection, &rollout, &attempt, &span_id).await })
            }),
        )
    }

    fn words_through(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.run(|connection| Box::pin(words::indexed_through(connection))))
    }

    fn add_words(&self, batch: WordBatch) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.run(move |connection| Box::pin(async move { words::add(connection, &batch).await })))
    }

    fn find_words(&self, search: WordSearch) -> BoxFuture<'_, Result<FoundRollouts>> {
        Box::pin(self.run(move |connection| Box::pin(async move { words::find(connection, &search).await })))
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<Worker>>> {
        Box::pin(self.run(|connection| Box::pin(queries::all(connection, "worker"))))
    }

    fn all_resources(&self) -> BoxFuture<'_, Result<Vec<ResourcesUpdate>>> {
        Box::pin(self.run(|connection| Box::pin(queries::all(connection, "resources"))))
    }

    fn llm_calls(&self, rollouts: Vec<RolloutId>) -> BoxFuture<'_, Result<HashMap<RolloutId, u64>>> {
        Box::pin(self.run(move |connection| Box::pin(async move { queries::llm_calls(connection, &rollouts).await })))
    }

    fn rollout_counts(&self, rollouts: Vec<RolloutId>) -> BoxFuture<'_, Result<HashMap<RolloutId, RolloutCounts>>> {
        Box::pin(
            self.run(move |connection| Box::pin(async move { queries::rollout_counts(connection, &rollouts).await })),
        )
    }

    fn trace_owners(&self, traces: Vec<String>) -> BoxFuture<'_, Result<HashMap<String, (RolloutId, AttemptId)>>> {
        Box::pin(self.run(move |connection| Box::pin(async move { queries::trace_owners(connection, &traces).await })))
    }

    fn sequence_authority(&self) -> SequenceAuthority {
        SequenceAuthority::Store
    }

    fn next_sequences(&self, id: RolloutId, above: u64, count: u64) -> BoxFuture<'_, Result<RolloutSequenceState>> {
        Box::pin(self.run(move |connection| {
            Box::pin(async move { queries::next_sequences(connection, &id, above, count).await })
        }))
    }

    fn take_sequence(&self, _: &RolloutId, at_least: u64) -> u64 {
        // The spool before this store knows more.
        at_least
    }

    fn sequence_state(&self, id: RolloutId) -> BoxFuture<'_, Result<RolloutSequenceState>> {
        Box::pin(self.run(move |connection| Box::pin(async move { queries::sequence_state(connection, &id).await })))
    }

    fn ended_rollouts(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<EndedRollouts>> {
        Box::pin(self.run(move |connection| Box::pin(ended::read(connection, after, limit))))
    }

    fn statistics(&self) -> BoxFuture<'_, Result<Statistics>> {
        Box::pin(async move {
            // Health checks read the counts: kept ones must not hide that the server is gone.
            self.run(|connection| Box::pin(queries::check(connection))).await?;
            let counts =
                self.statistics.get(async || self.run(|connection| Box::pin(queries::statistics(connection))).await);
            let Pruned { spans: pruned_spans, rollouts: pruned_rollouts, .. } = self.pruned.read();
            Ok(Statistics { pruned_spans, pruned_rollouts, ..counts.await? })
        })
    }

    fn usage(&self) -> BoxFuture<'_, Result<StoreUsage>> {
        Box::pin(self.run(|connection| Box::pin(usage::usage(connection))))
    }

    fn prune_slice(&self, request: PruneRequest, from: PruneCursor) -> BoxFuture<'_, Result<PruneSlice>> {
        Box::pin(async move {
            let once = || self.slice_once(request.clone(), from.clone());
            let slice = once.retry(conflict_backoff()).when(QueryError::is_conflict).await;
            let slice = slice.map_err(|error| error.into_store_error(&self.connections.server))?;
            self.pruned.add(&slice);
            if slice.removed.spans > 0 {
                self.remove_orphaned_texts().await;
            }
            Ok(slice)
        })
    }

    fn prune_preview(&self, request: PruneRequest) -> BoxFuture<'_, Result<Pruned>> {
        let (retention, now) = (self.options.retention, SystemTime::now().into());
        Box::pin(self.run(move |connection| {
            Box::pin(async move { pruning::preview(connection, request, retention, now).await })
        }))
    }

    fn vacuum(&self, extent: Vacuum) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let limit = self.options.answer_timeout;
            let done = self.connections.run_long(move |connection| Box::pin(usage::vacuum(connection, extent, limit)));
            let done = done.await;
            done.map_err(|error| error.into_store_error(&self.connections.server))
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.connections.close();
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Pauses between the tries of a transaction that conflicts with others: 20 retries within about a second.
fn conflict_backoff() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(Duration::from_millis(1))
        .with_max_delay(Duration::from_millis(100))
        .with_max_times(20)
}

/// Spans stored by this process between two checks of the limits.
const SPANS_PER_CHECK: usize = 1024;
