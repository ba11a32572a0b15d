//! Where spans, rollouts and attempts are kept.
//!
//! `Store` is the only door; which one is behind it is decided in `app`. A store knows nothing of HTTP, of exchanges, or
//! of who reads from it, and what reaches it has been redacted.

pub mod blob;
pub mod memory;
pub mod postgres;
pub mod records;
mod span_row;
pub mod spool;
pub mod sqlite;

pub use records::{Change, Records, SpanObserver};

use crate::trace::{
    Attempt, AttemptId, AttemptedRollout, ResourcesUpdate, Rollout, RolloutId, RolloutStatus, Span, Worker,
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

/// A boxed future, as object-safe traits return them.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a store answers.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Spans, rollouts and attempts, kept. Every method is safe to call from many tasks at once.
pub trait Store: Send + Sync + 'static {
    /// Stores spans as one commit: when it returns `Ok`, all of them survive a crash of this process. A span whose
    /// (rollout, attempt, span id) is stored already is left as it is and not counted. Rollouts and attempts that nobody
    /// registered are created, running; a span with a higher sequence id raises its rollout's counter to it.
    fn append(&self, spans: Vec<Arc<Span>>) -> BoxFuture<'_, Result<Appended>>;

    /// Registers a rollout, or replaces the one with its id. The rollout counts as registered from then on.
    fn put_rollout(&self, rollout: Rollout) -> BoxFuture<'_, Result<()>> {
        self.change(Box::new(move |records| records.put_rollout(&rollout)))
    }

    /// Adds an attempt, or replaces the one with its ids. A new one gets the next sequence id of its rollout, whatever
    /// it says itself; the stored attempt comes back.
    fn put_attempt(&self, attempt: Attempt) -> BoxFuture<'_, Result<Attempt>> {
        let stored: Arc<Mutex<Option<Attempt>>> = Arc::default();
        let place = Arc::clone(&stored);
        let changed = self.change(Box::new(move |records| {
            let put = records.put_attempt(attempt.clone())?;
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(put);
            Ok(())
        }));
        Box::pin(async move {
            changed.await?;
            stored.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(StoreError::Closed)
        })
    }

    /// One rollout.
    fn rollout(&self, id: RolloutId) -> BoxFuture<'_, Result<Option<Rollout>>>;

    /// Rollouts by start time, newest first, with what is known of each.
    fn rollouts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<RolloutSummary>>>;

    /// A rollout's attempts by sequence id.
    fn attempts(&self, id: RolloutId) -> BoxFuture<'_, Result<Vec<Attempt>>>;

    /// A rollout's spans by (sequence id, start time, insertion); all attempts when `attempt` is `None`.
    fn spans(&self, rollout: RolloutId, attempt: Option<AttemptId>) -> BoxFuture<'_, Result<Vec<Span>>>;

    /// The number of LLM calls of each of these rollouts ([`Span::is_llm_call`]), without reading spans. Rollouts without
    /// calls are absent.
    fn llm_calls(&self, rollouts: Vec<RolloutId>) -> BoxFuture<'_, Result<HashMap<RolloutId, u64>>>;

    /// Runs a transaction; when it returns `Ok`, all of it survives a crash of this process.
    fn change(&self, change: Change) -> BoxFuture<'_, Result<()>>;

    /// The rollouts that `filter` lets through, each with its latest attempt, by start time.
    fn attempted(&self, filter: RolloutFilter) -> BoxFuture<'_, Result<Vec<AttemptedRollout>>>;

    /// All workers, in the order in which they came.
    fn workers(&self) -> BoxFuture<'_, Result<Vec<Worker>>>;

    /// All sets of resources, in the order in which they came.
    fn all_resources(&self) -> BoxFuture<'_, Result<Vec<ResourcesUpdate>>>;

    /// The attempts that these traces belong to, by the first span of each that was stored.
    fn owners(&self, traces: Vec<String>) -> BoxFuture<'_, Result<HashMap<String, (RolloutId, AttemptId)>>>;

    /// Where a rollout stands once the next sequence id has been given out, in a store that several processes share. `None`:
    /// nobody else counts, the caller may do it alone.
    fn next_sequence(&self, _: RolloutId) -> BoxFuture<'_, Result<Option<Standing>>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// A page of the log of rollouts that have ended: the entries at the positions `after..after + limit`. Each time a
    /// rollout comes into a final state it gets an entry, which stays when the rollout is removed. Positions have no
    /// gaps, and nobody sees an entry before the one that precedes it.
    fn terminal(&self, _after: u64, _limit: usize) -> BoxFuture<'_, Result<TerminalPage>> {
        let cause = "this store keeps no log of the rollouts that have ended".to_owned();
        Box::pin(std::future::ready(Err(StoreError::Other(cause))))
    }

    /// What the hot path must know when it first meets a rollout.
    fn standing(&self, id: RolloutId) -> BoxFuture<'_, Result<Standing>>;

    /// Counts, for health and metrics.
    fn statistics(&self) -> BoxFuture<'_, Result<Statistics>>;

    /// Applies the retention limits now. Stores also do it themselves from time to time.
    fn prune(&self) -> BoxFuture<'_, Result<Pruned>>;

    /// Waits for what was accepted, and lets go of the files.
    fn close(&self) -> BoxFuture<'_, Result<()>>;
}

/// Which rollouts are meant; `None` lets everything through.
#[derive(Clone, Debug, Default)]
pub struct RolloutFilter {
    /// Those with one of these ids.
    pub ids: Option<Vec<RolloutId>>,
    /// Those in one of these states.
    pub statuses: Option<Vec<RolloutStatus>>,
}

impl RolloutFilter {
    /// True when a rollout is meant.
    pub fn lets_through(&self, rollout: &Rollout) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.contains(&rollout.rollout_id))
            && self.statuses.as_ref().is_none_or(|statuses| statuses.contains(&rollout.status))
    }
}

/// The rollout of spans that are nobody's; it owns no trace.
pub const UNASSIGNED: &str = "unassigned";

/// What an append did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Spans that are new.
    pub stored: usize,
    /// Spans that were stored already.
    pub duplicates: usize,
}

/// Entries of the log of rollouts that have ended, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TerminalPage {
    /// The rollouts; some may have been removed since.
    pub ids: Vec<RolloutId>,
    /// How long the log is.
    pub total: u64,
}

/// What is known of a rollout before its next exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// True when somebody registered it, rather than a span naming it first.
    pub registered: bool,
    /// The highest sequence id given so far; 0 for none.
    pub last_sequence_id: u64,
}

/// A rollout with its counts, for listings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RolloutSummary {
    /// The rollout.
    #[serde(flatten)]
    pub rollout: Rollout,
    /// How many attempts it has.
    pub attempts: u64,
    /// How many spans it has.
    pub spans: u64,
    /// How many of them are errors.
    pub errors: u64,
}

/// Counts of a whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Rollouts kept.
    pub rollouts: u64,
    /// Attempts kept.
    pub attempts: u64,
    /// Workers known.
    pub workers: u64,
    /// Sets of resources.
    pub resources: u64,
    /// Spans kept.
    pub spans: u64,
    /// Bytes in use, on disk or in memory.
    pub size_bytes: u64,
    /// Spans that wait in a file while the store's server is away; they are not among the others.
    pub waiting: u64,
    /// Spans that waited so and that the server then could not take: they are lost.
    pub refused: u64,
}

/// What retention removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Spans removed, oldest first.
    pub spans: u64,
}

/// Limits on what is kept; the oldest spans go first. 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Spans kept.
    pub max_spans: u64,
    /// Days a span is kept, by its end time.
    pub max_age_days: u64,
    /// Bytes the store may use.
    pub max_bytes: u64,
}

/// Why a store could not do it. Each message names the cause and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space is left.
    #[error("the disk that holds {path} is full; free some space, or set store.max_bytes")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Another process holds the file.
    #[error("{path} is locked by another process; end it, or give another --store")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged or is not a store.
    #[error("{path} is not a usable trace store ({cause}); move it away, or give another --store")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The file was written by a newer program.
    #[error(
        "{path} has schema version {found}, newer than this program's {known}; update tracewire, or give another --store"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The file or its folder can't be opened, created or written.
    #[error(
        "{path} can't be opened for writing ({cause}); check the folder's permissions, set TRACEWIRE_HOME, or give another --store"
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The server of the store does not answer.
    #[error(
        "the PostgreSQL server at {server} can't be reached ({cause}); check that it runs and that --store names it"
    )]
    Unreachable {
        /// Its host and port.
        server: String,
        /// What was tried and failed.
        cause: String,
    },
    /// The store has been closed.
    #[error("the trace store is closed")]
    Closed,
    /// Anything else.
    #[error("the trace store failed: {0}")]
    Other(String),
}

/// A store behind a pointer, as everything but `app` sees it.
pub type SharedStore = Arc<dyn Store>;

/// Databases' integers are signed; what does not fit is not a number that a clock or a counter gives.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The way back.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
