//! Appends that wait for a transaction. Those that wait at the same time share one, and its commit.
//!
//! No two transactions of a process store spans of the same rollout at once: the later one would hold a connection while it waits
//! for the other's lock. The appends of a rollout are stored in the order in which they came.

use super::append;
use super::connections::Connections;
use super::error::QueryError;
use super::options::conflict_backoff;
use crate::store::api::Appended;
use crate::store::error::{Result, StoreError};
use crate::store::records::SpanObserver;
use crate::store::span_row::SpanRow;
use crate::trace::{RolloutId, Value};
use backon::Retryable;
use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The appends of a store.
pub(super) struct AppendQueue {
    connections: Arc<Connections>,
    observer: Option<SpanObserver>,
    // Locked for moments only.
    state: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    /// In the order in which they came. Each has a caller that waits for it and holds its spans anyway.
    waiting: VecDeque<WaitingAppend>,
    /// The rollouts of the transactions that run.
    writing: HashSet<RolloutId>,
    transactions: usize,
}

struct WaitingAppend {
    rows: Vec<SpanRow>,
    rollouts: HashSet<RolloutId>,
    content_bytes: usize,
    answer: oneshot::Sender<Result<Appended>>,
}

impl AppendQueue {
    pub(super) fn new(connections: Arc<Connections>, observer: Option<SpanObserver>) -> Arc<Self> {
        Arc::new(Self { connections, observer, state: Mutex::default() })
    }

    /// Stores spans in one transaction, which other appends may share.
    pub(super) async fn append(self: &Arc<Self>, rows: Vec<SpanRow>) -> Result<Appended> {
        let rollouts = rows.iter().map(|row| row.span.rollout_id.clone()).collect();
        let content_bytes = rows.iter().map(content_bytes).sum();
        let (answer, answered) = oneshot::channel();
        self.state().waiting.push_back(WaitingAppend { rows, rollouts, content_bytes, answer });
        self.start();
        let ended = |_| Err(StoreError::Other("an append ended without a result".to_owned()));
        answered.await.unwrap_or_else(ended)
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts transactions for what waits, as far as they may run. Each goes on if its callers go away.
    fn start(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else { return };
        loop {
            let Some(appends) = self.state().take() else { return };
            let rollouts = appends.iter().flat_map(|append| append.rollouts.iter().cloned()).collect();
            let running = RunningTransaction { queue: Arc::clone(self), rollouts };
            runtime.spawn(async move { running.queue.store(appends).await });
        }
    }

    async fn store(&self, appends: Vec<WaitingAppend>) {
        let (mut rows, mut answers) = (Vec::new(), Vec::with_capacity(appends.len()));
        for append in appends {
            let start = rows.len();
            rows.extend(append.rows);
            answers.push((start..rows.len(), append.answer));
        }
        let rows = Arc::new(rows);
        match self.store_rows(&rows, 0..rows.len()).await {
            Ok(new) => {
                for (range, answer) in answers {
                    let stored =
                        new.partition_point(|at| *at < range.end) - new.partition_point(|at| *at < range.start);
                    // A caller that has gone needs no answer.
                    let _ = answer.send(Ok(Appended { stored, duplicates: range.len() - stored }));
                }
            }
            // Only the data of some is the cause.
            Err(StoreError::InvalidData { .. }) if answers.len() > 1 => {
                for (range, answer) in answers {
                    let length = range.len();
                    let stored = self.store_rows(&rows, range).await.map(|new| new.len());
                    let _ = answer.send(stored.map(|stored| Appended { stored, duplicates: length - stored }));
                }
            }
            Err(error) => {
                for (_, answer) in answers {
                    let _ = answer.send(Err(again(&error)));
                }
            }
        }
    }

    /// Stores a part of the rows in one transaction. Returns the places of the new ones, in ascending order.
    async fn store_rows(&self, rows: &Arc<Vec<SpanRow>>, range: Range<usize>) -> Result<Vec<usize>> {
        let once = || {
            let (rows, range, observer) = (Arc::clone(rows), range.clone(), self.observer);
            self.connections.run(move |connection| {
                Box::pin(async move {
                    let transaction = connection.transaction().await?;
                    let new = append::append(&transaction, &rows[range], observer).await?;
                    transaction.commit().await?;
                    Ok(new)
                })
            })
        };
        let stored = once.retry(conflict_backoff()).when(QueryError::is_conflict).await;
        stored.map_err(|error| error.into_store_error(&self.connections.server))
    }
}

impl QueueState {
    /// What the next transaction stores; `None` if none may begin.
    fn take(&mut self) -> Option<Vec<WaitingAppend>> {
        if self.transactions == MAX_TRANSACTIONS {
            return None;
        }
        let (mut taken, mut left, mut blocked) = (Vec::<WaitingAppend>::new(), VecDeque::new(), HashSet::new());
        let (mut rows, mut bytes) = (0, 0);
        while rows < MAX_ROWS
            && let Some(append) = self.waiting.pop_front()
        {
            if append.answer.is_closed() {
                continue;
            }
            let fits = taken.is_empty()
                || (rows + append.rows.len() <= MAX_ROWS && bytes + append.content_bytes <= MAX_CONTENT_BYTES);
            let is_free = append.rollouts.iter().all(|id| !self.writing.contains(id) && !blocked.contains(id));
            if fits && is_free {
                rows += append.rows.len();
                bytes += append.content_bytes;
                taken.push(append);
            } else {
                // Later appends of its rollouts don't overtake it.
                blocked.extend(append.rollouts.iter().cloned());
                left.push_back(append);
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        if taken.is_empty() {
            return None;
        }
        self.transactions += 1;
        self.writing.extend(taken.iter().flat_map(|append| append.rollouts.iter().cloned()));
        Some(taken)
    }
}

/// A transaction that runs. Its end, also by a panic, lets others begin.
struct RunningTransaction {
    queue: Arc<AppendQueue>,
    rollouts: Vec<RolloutId>,
}

impl Drop for RunningTransaction {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.transactions -= 1;
        for rollout in &self.rollouts {
            state.writing.remove(rollout);
        }
        drop(state);
        self.queue.start();
    }
}

/// About how long a row and its texts are.
fn content_bytes(row: &SpanRow) -> usize {
    let length = |value: &Value| match value {
        Value::String(text) => text.len(),
        Value::Ints(all) => all.len() * 4,
        Value::Floats(all) => all.len() * 4,
        _ => 0,
    };
    row.record.len() + row.span.attributes.values().map(length).sum::<usize>()
}

/// The error of a transaction for another one of its callers.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Closed => StoreError::Closed,
        StoreError::Unreachable { server, cause } => {
            StoreError::Unreachable { server: server.clone(), cause: cause.clone() }
        }
        StoreError::InvalidData { cause } => StoreError::InvalidData { cause: cause.clone() },
        StoreError::TooNew { path, found, known } => {
            StoreError::TooNew { path: path.clone(), found: *found, known: *known }
        }
        StoreError::Other(text) => StoreError::Other(text.clone()),
        other => StoreError::Other(other.to_string()),
    }
}

/// Transactions at once. Half of the connections are left for reads and changes.
const MAX_TRANSACTIONS: usize = 8;
/// Spans of appends that share a transaction. A longer append has one of its own.
const MAX_ROWS: usize = 512;
/// Bytes of the content of appends that share a transaction.
const MAX_CONTENT_BYTES: usize = 4 << 20;
