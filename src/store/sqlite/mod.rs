//! The store in a SQLite file: one writer thread that commits in groups, and a few readers beside it.
//!
//! The write-ahead log lets readers and the writer work at once. Nothing outside may see a connection or an SQL text.

mod checkpoint;
mod reader;
mod records;
mod retention;
mod schema;
mod statements;
mod texts;
mod writer;

use super::records::nothing_heard;
use super::{
    Appended, BoxFuture, Change, Pruned, Result, Retention, RolloutFilter, RolloutSummary, SpanObserver, Standing,
    Statistics, Store, StoreError, TerminalPage,
};
use super::{signed, unsigned};
use crate::trace::{Attempt, AttemptId, AttemptedRollout, ResourcesUpdate, Rollout, RolloutId, Span, Worker};
use reader::Readers;
use rusqlite::ErrorCode;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use writer::{Done, Work, Writer};

/// When a commit is on the disk itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// From time to time: a commit survives a crash of the process, the last ones maybe not a loss of power.
    #[default]
    Normal,
    /// With every commit.
    Full,
}

/// How to open a store.
#[derive(Clone, Copy, Debug)]
pub struct SqliteOptions {
    /// What to keep.
    pub retention: Retention,
    /// When commits reach the disk.
    pub synchronous: Synchronous,
    /// How long to wait for another process that holds the file.
    pub busy_timeout: Duration,
    /// What follows from a span that is stored.
    pub heard: SpanObserver,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            synchronous: Synchronous::default(),
            busy_timeout: Duration::from_secs(2),
            heard: nothing_heard,
        }
    }
}

/// The store. Its methods need a tokio runtime; dropping it waits for what was accepted.
pub struct SqliteStore {
    path: PathBuf,
    readers: Arc<Readers>,
    writer: Writer,
}

impl SqliteStore {
    /// Opens the file, creating it and its folder if need be. Blocks; meant for start-up.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Self> {
        let connection = schema::open_writer(path, &options)?;
        let readers = Arc::new(Readers::new(path, options.busy_timeout));
        let writer = Writer::start(path, connection, options)?;
        Ok(Self { path: path.to_owned(), readers, writer })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Before the writer's connection, which folds the log into the file when it is the last to go.
        self.readers.clear();
    }
}

impl Store for SqliteStore {
    fn append(&self, spans: Vec<Arc<Span>>) -> BoxFuture<'_, Result<Appended>> {
        Box::pin(async move {
            match self.writer.ask(Work::Append(spans)).await? {
                Done::Appended(appended) => Ok(appended),
                _ => Err(mixed_up()),
            }
        })
    }

    fn rollout(&self, id: RolloutId) -> BoxFuture<'_, Result<Option<Rollout>>> {
        Box::pin(self.readers.read(move |connection| reader::rollout(connection, &id)))
    }

    fn rollouts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<RolloutSummary>>> {
        Box::pin(self.readers.read(move |connection| reader::rollouts(connection, limit)))
    }

    fn attempts(&self, id: RolloutId) -> BoxFuture<'_, Result<Vec<Attempt>>> {
        Box::pin(self.readers.read(move |connection| reader::attempts(connection, &id)))
    }

    fn spans(&self, rollout: RolloutId, attempt: Option<AttemptId>) -> BoxFuture<'_, Result<Vec<Span>>> {
        Box::pin(self.readers.read(move |connection| reader::spans(connection, &rollout, attempt.as_ref())))
    }

    fn change(&self, change: Change) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.writer.ask(Work::Change(change)).await.map(|_| ()) })
    }

    fn attempted(&self, filter: RolloutFilter) -> BoxFuture<'_, Result<Vec<AttemptedRollout>>> {
        Box::pin(self.readers.read(move |connection| reader::attempted(connection, &filter)))
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<Worker>>> {
        Box::pin(self.readers.read(|connection| reader::all(connection, "worker")))
    }

    fn all_resources(&self) -> BoxFuture<'_, Result<Vec<ResourcesUpdate>>> {
        Box::pin(self.readers.read(|connection| reader::all(connection, "resources")))
    }

    fn llm_calls(&self, rollouts: Vec<RolloutId>) -> BoxFuture<'_, Result<HashMap<RolloutId, u64>>> {
        Box::pin(self.readers.read(move |connection| reader::llm_calls(connection, &rollouts)))
    }

    fn owners(&self, traces: Vec<String>) -> BoxFuture<'_, Result<HashMap<String, (RolloutId, AttemptId)>>> {
        Box::pin(self.readers.read(move |connection| reader::owners(connection, &traces)))
    }

    fn terminal(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<TerminalPage>> {
        Box::pin(self.readers.read(move |connection| reader::terminal(connection, after, limit)))
    }

    fn standing(&self, id: RolloutId) -> BoxFuture<'_, Result<Standing>> {
        Box::pin(self.readers.read(move |connection| reader::standing(connection, &id)))
    }

    fn statistics(&self) -> BoxFuture<'_, Result<Statistics>> {
        Box::pin(self.readers.read(reader::statistics))
    }

    fn prune(&self) -> BoxFuture<'_, Result<Pruned>> {
        Box::pin(async move {
            match self.writer.ask(Work::Prune).await? {
                Done::Pruned(pruned) => Ok(pruned),
                _ => Err(mixed_up()),
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.readers.close().await;
            self.writer.close().await
        })
    }
}

fn mixed_up() -> StoreError {
    StoreError::Other("the writer gave the answer to another question".to_owned())
}

/// What a failure of SQLite means for whoever runs the program.
fn fault(path: &Path, error: &rusqlite::Error) -> StoreError {
    let (path, cause) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { path },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt { path, cause },
        Some(
            ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::SystemIoFailure,
        ) => StoreError::Unusable { path, cause },
        Some(_) => StoreError::Other(cause),
        None => match error {
            // A row that this program can't have written.
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => {
                StoreError::Corrupt { path, cause }
            }
            _ => StoreError::Other(cause),
        },
    }
}

/// True for errors that would meet the next command too; SQLite may have rolled back everything by itself.
fn concerns_the_file(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
        )
    )
}
