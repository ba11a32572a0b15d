//! The interface of all stores: the [`Store`] trait with its arguments and results.
//!
//! Every method is required: a wrapper that forgets to forward one does not compile. Operations that others can express
//! are in [`super::extension`]. Reads return complete results, not callbacks, so that no caller's code runs while a
//! store holds a lock or a transaction; long listings take a limit. Two functions do run inside a transaction, because
//! their effect has to commit with it: a [`Change`] and a [`super::records::SpanObserver`].

use super::error::Result;
use super::pruning::{PruneCursor, PruneRequest, PruneSlice, Pruned};
use super::records::Change;
use super::span_query::{SpanContent, SpanPage, SpanPlace, SpanQuery, SpansAt};
use super::usage::{StoreUsage, Vacuum};
use super::words::{FoundRollouts, WordBatch, WordSearch};
use crate::trace::{
    Attempt, AttemptId, AttemptedRollout, ResourcesUpdate, Rollout, RolloutId, RolloutStatus, Span, Timestamp, Worker,
};
use serde::Serialize;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// The futures of object-safe traits.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A store of any kind. Only `app` knows which one was opened.
pub type SharedStore = Arc<dyn Store>;

/// Rollout id of spans that no rollout could be determined for. Their traces have no owner.
pub const UNASSIGNED: &str = "unassigned";

/// Durable storage of spans, rollouts and attempts. All methods may be called concurrently. What a store receives has
/// been redacted; it knows nothing about HTTP, exchanges or readers.
pub trait Store: Send + Sync + 'static {
    /// Stores spans in one commit: after `Ok`, all of them survive a crash of this process. A span with a rollout id,
    /// attempt id and span id that are stored already is counted as a duplicate and changes nothing. Missing rollouts and
    /// attempts are created in state `running`, unregistered. A rollout's sequence counter is raised to the highest
    /// sequence id of its spans.
    fn append(&self, spans: Vec<Arc<Span>>) -> BoxFuture<'_, Result<Appended>>;

    /// Runs a transaction. After `Ok`, all its writes survive a crash of this process, and the content of removed
    /// rollouts can no longer be read from the store.
    fn change(&self, change: Change) -> BoxFuture<'_, Result<()>>;

    /// `None` if no rollout has this id.
    fn rollout(&self, id: RolloutId) -> BoxFuture<'_, Result<Option<Rollout>>>;

    /// The newest `limit` rollouts by start time, newest first.
    fn rollouts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<RolloutSummary>>>;

    /// The rollouts that match `filter`, each with its latest attempt, in the order of the filter.
    fn attempted_rollouts(&self, filter: RolloutFilter) -> BoxFuture<'_, Result<Vec<AttemptedRollout>>>;

    /// How many rollouts match `filter`, on all pages.
    fn count_rollouts(&self, filter: RolloutFilter) -> BoxFuture<'_, Result<u64>>;

    /// The attempts of a rollout by sequence id.
    fn attempts(&self, id: RolloutId) -> BoxFuture<'_, Result<Vec<Attempt>>>;

    /// A page of the spans of a rollout, by sequence id, start time, and order of insertion. [`StoreExt::spans`] reads all.
    ///
    /// [`StoreExt::spans`]: super::StoreExt::spans
    fn span_page(&self, query: SpanQuery) -> BoxFuture<'_, Result<SpanPage>>;

    /// The spans at some places of a rollout, in the order of `places`: as many of the first ones as fit into a page.
    fn spans_at(
        &self,
        rollout: RolloutId,
        places: Vec<SpanPlace>,
        content: SpanContent,
    ) -> BoxFuture<'_, Result<SpansAt>>;

    /// A page of the spans of a rollout, in the order in which they were stored: at most `limit` with a number above `after`,
    /// which is 0 for the first page. Long attributes are left out, so that a page costs little whatever the spans contain.
    fn span_outlines(&self, rollout: RolloutId, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<SpanOutline>>>;

    /// The spans of all rollouts with a number above `after`, by number, with all their attributes: at most `limit`, and fewer
    /// if they are long. Each stored span has a number above those of all spans that were stored before it, also of those that
    /// were removed.
    fn spans_by_number(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<NumberedSpans>>;

    /// One span with all its attributes. `None` if it is not stored.
    fn span(&self, rollout: RolloutId, attempt: AttemptId, span_id: String) -> BoxFuture<'_, Result<Option<Span>>>;

    /// The number of the last span that the index of words covers. Above the number of the newest span if the store needs no index.
    fn words_through(&self) -> BoxFuture<'_, Result<u64>>;

    /// Adds the words of spans to the index, if the batch still fits: [`Store::words_through`] tells.
    fn add_words(&self, batch: WordBatch) -> BoxFuture<'_, Result<()>>;

    /// The rollouts with a phrase in the messages of the spans that the index covers.
    fn find_words(&self, search: WordSearch) -> BoxFuture<'_, Result<FoundRollouts>>;

    /// All workers, in the order of their first insertion.
    fn workers(&self) -> BoxFuture<'_, Result<Vec<Worker>>>;

    /// All resources, in the order of their first insertion.
    fn all_resources(&self) -> BoxFuture<'_, Result<Vec<ResourcesUpdate>>>;

    /// The number of LLM calls of each of these rollouts (`llm::recorded::is_llm_call`), without reading spans. Rollouts without
    /// calls are absent.
    fn llm_calls(&self, rollouts: Vec<RolloutId>) -> BoxFuture<'_, Result<HashMap<RolloutId, u64>>>;

    /// Counts of each of these rollouts, without reading spans. Rollouts that do not exist are absent.
    fn rollout_counts(&self, rollouts: Vec<RolloutId>) -> BoxFuture<'_, Result<HashMap<RolloutId, RolloutCounts>>>;

    /// The owner of each of these traces: rollout and attempt of the first span that was stored with the trace id. A
    /// trace without stored spans has no owner.
    fn trace_owners(&self, traces: Vec<String>) -> BoxFuture<'_, Result<HashMap<String, (RolloutId, AttemptId)>>>;

    /// Which side has to assign sequence ids.
    fn sequence_authority(&self) -> SequenceAuthority;

    /// Assigns the next `count` sequence ids of a rollout, at least one. The last of them is in the result. Two calls never get the
    /// same id, also from two processes. The ids are above `above`, the highest that the caller knows. The rollout is created if it
    /// is missing.
    fn next_sequences(&self, id: RolloutId, above: u64, count: u64) -> BoxFuture<'_, Result<RolloutSequenceState>>;

    /// Takes a sequence id that is at least `at_least` without asking the database: a caller that counts on its own, because it
    /// may ([`SequenceAuthority::Process`]) or because the database does not answer, confirms each id here. The id is above
    /// those that other programs on this machine took for the same store.
    fn take_sequence(&self, id: &RolloutId, at_least: u64) -> u64;

    /// The sequence counter of a rollout; all zero for a rollout that does not exist.
    fn sequence_state(&self, id: RolloutId) -> BoxFuture<'_, Result<RolloutSequenceState>>;

    /// The entries at the positions `after..after + limit` of the log of ended rollouts. A rollout gets an entry each
    /// time it enters a final state, and the entry remains when the rollout is removed. Positions have no gaps, and an
    /// entry becomes visible only after all earlier ones.
    fn ended_rollouts(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<EndedRollouts>>;

    /// Counts for health checks and metrics.
    fn statistics(&self) -> BoxFuture<'_, Result<Statistics>>;

    /// What the store takes on disk.
    fn usage(&self) -> BoxFuture<'_, Result<StoreUsage>>;

    /// Removes a slice of what the request selects. Stores also apply their own limits as they grow. After the last slice the removed
    /// content can no longer be read from the store, and each table is bounded by what is left. [`StoreExt::prune`] makes all slices.
    ///
    /// [`StoreExt::prune`]: super::StoreExt::prune
    fn prune_slice(&self, request: PruneRequest, from: PruneCursor) -> BoxFuture<'_, Result<PruneSlice>>;

    /// What a prune would remove now. The bytes are an estimate.
    fn prune_preview(&self, request: PruneRequest) -> BoxFuture<'_, Result<Pruned>>;

    /// Gives back space that the store no longer needs.
    fn vacuum(&self, extent: Vacuum) -> BoxFuture<'_, Result<()>>;

    /// Completes pending writes and releases files and connections. Later calls fail with `StoreError::Closed`.
    fn close(&self) -> BoxFuture<'_, Result<()>>;
}

/// Which side assigns the sequence ids of rollouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceAuthority {
    /// The programs that use the store. Each may read [`Store::sequence_state`] once for each rollout and then count, with
    /// [`Store::take_sequence`] for each id.
    Process,
    /// The store. Each id has to come from [`Store::next_sequences`].
    Store,
}

/// A condition on rollouts, and the page of those that match. Each `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct RolloutFilter {
    /// Matches rollouts with one of these ids.
    pub ids: Option<Vec<RolloutId>>,
    /// Matches rollouts with this part in their id, in the same case.
    pub id_contains: Option<String>,
    /// Matches rollouts in one of these states.
    pub statuses: Option<Vec<RolloutStatus>>,
    /// Matches rollouts that were registered, or those that only traffic has named.
    pub is_registered: Option<bool>,
    /// Matches rollouts that started at this time or later.
    pub started_from: Option<Timestamp>,
    /// The order of the result.
    pub order: RolloutOrder,
    /// Matches rollouts after this place in the order of the result. The place of the last rollout of a page gives the next
    /// page.
    pub after: Option<RolloutPlace>,
    /// Maximum number of rollouts in the result: the first of those that match.
    pub limit: Option<usize>,
    /// How many of them are left out before that.
    pub offset: usize,
}

/// An order of rollouts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RolloutOrder {
    /// By start time, then id.
    #[default]
    OldestFirst,
    /// By start time, then id, both descending.
    NewestFirst,
}

/// A place in the order of rollouts: by start time, then id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RolloutPlace {
    /// Start time of the rollout.
    pub start_time: Timestamp,
    /// Id of the rollout: it orders rollouts that started at the same time.
    pub rollout_id: RolloutId,
}

impl RolloutPlace {
    /// The place of a rollout.
    pub fn of(rollout: &Rollout) -> Self {
        Self { start_time: rollout.start_time, rollout_id: rollout.rollout_id.clone() }
    }
}

impl RolloutFilter {
    /// Matches rollouts with one of these ids.
    pub fn of_ids(ids: Vec<RolloutId>) -> Self {
        Self { ids: Some(ids), ..Self::default() }
    }

    /// Matches rollouts in one of these states.
    pub fn of_statuses(statuses: Vec<RolloutStatus>) -> Self {
        Self { statuses: Some(statuses), ..Self::default() }
    }

    /// The same conditions without a page.
    pub(super) fn without_page(self) -> Self {
        Self { after: None, limit: None, offset: 0, ..self }
    }

    /// True if the rollout meets all conditions that it shows itself.
    pub fn matches(&self, rollout: &Rollout) -> bool {
        let is_after = |after: &RolloutPlace| match self.order {
            RolloutOrder::OldestFirst => RolloutPlace::of(rollout) > *after,
            RolloutOrder::NewestFirst => RolloutPlace::of(rollout) < *after,
        };
        self.ids.as_ref().is_none_or(|ids| ids.contains(&rollout.rollout_id))
            && self.id_contains.as_ref().is_none_or(|part| rollout.rollout_id.as_str().contains(part.as_str()))
            && self.statuses.as_ref().is_none_or(|statuses| statuses.contains(&rollout.status))
            && self.started_from.is_none_or(|from| rollout.start_time >= from)
            && self.after.as_ref().is_none_or(is_after)
    }
}

/// Result of [`Store::append`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Spans that were not stored before.
    pub stored: usize,
    /// Spans that were stored already, or were twice in the batch.
    pub duplicates: usize,
}

/// A part of the log of ended rollouts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndedRollouts {
    /// The rollouts in the order in which they ended. Some may have been removed since.
    pub ids: Vec<RolloutId>,
    /// Number of entries in the whole log.
    pub total: u64,
}

/// What a listener has to know before it records the first exchange of a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolloutSequenceState {
    /// True if the rollout was registered through an API or by `tracewire run`; false if only spans name it.
    pub registered: bool,
    /// The highest sequence id assigned so far; 0 if none.
    pub last_sequence_id: u64,
}

/// A rollout with counts, for listings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RolloutSummary {
    /// Its fields are at the top level of the JSON.
    #[serde(flatten)]
    pub rollout: Rollout,
    /// Number of its attempts.
    pub attempts: u64,
    /// Number of its stored spans.
    pub spans: u64,
    /// Number of its stored spans with status `Error`.
    pub errors: u64,
}

/// Counts of one rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RolloutCounts {
    /// Number of its attempts.
    pub attempts: u64,
    /// Number of its stored spans.
    pub spans: u64,
    /// Number of its stored spans with status `Error`.
    pub errors: u64,
    /// Number of its LLM calls, see [`Store::llm_calls`].
    pub llm_calls: u64,
    /// The highest number of its stored spans, see [`SpanOutline::number`]; 0 if it has none. With the same number and as many spans,
    /// it has the same spans.
    #[serde(skip)]
    pub newest: u64,
}

/// A span without its long attributes, and its place among those of its store.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanOutline {
    /// Increases with each stored span, from 1. A server that several programs write to may show a number after higher ones.
    pub number: u64,
    /// The span. A store may leave out attributes of 512 bytes or more.
    pub span: Span,
}

/// Spans in the order in which they were stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NumberedSpans {
    /// The spans with all their attributes, by number.
    pub spans: Vec<Arc<Span>>,
    /// The number of each span, in the same order.
    pub numbers: Vec<u64>,
    /// The number where the next page begins: no span that is not in this page or an earlier one has this number or a lower one.
    pub through: u64,
    /// Spans between the beginning of the page and `through` that have been removed. A PostgreSQL server does not know them: 0.
    pub removed: u64,
    /// The highest number of all stored spans.
    pub newest: u64,
}

/// Counts over a whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Rollouts, registered or not.
    pub rollouts: u64,
    /// Attempts of all rollouts.
    pub attempts: u64,
    /// Workers that ever reported.
    pub workers: u64,
    /// Sets of resources.
    pub resources: u64,
    /// Spans of all rollouts.
    pub spans: u64,
    /// Bytes in use, on disk or in memory.
    pub size_bytes: u64,
    /// Spans in the spool file, not included in `spans`: the database server has not accepted them yet.
    pub waiting: u64,
    /// Spans lost since the start because the database server rejected their data.
    pub refused: u64,
    /// How often the store's file was found removed or replaced since the start. What it held is no longer in the store.
    pub lost_files: u64,
    /// Spans removed since the start by limits and prunes, not with a rollout that was deleted.
    pub pruned_spans: u64,
    /// Rollouts removed since the start by limits and prunes.
    pub pruned_rollouts: u64,
    /// How often a damaged record was read since the start, each time anew: a span, or an attribute of a span, that can't
    /// be read.
    pub damaged_reads: u64,
}
