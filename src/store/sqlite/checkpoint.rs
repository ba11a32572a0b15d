//! Checkpoints of the write-ahead log on a thread of their own, since a commit that does one takes as long as hundreds of
//! others; and the erasure of removed content, whose old pages are still in the log.
//!
//! A checkpoint may block the writer only briefly, see [`BUSY_TIMEOUT`]. The thread must end before the writer's connection
//! is closed.

use super::schema::open_beside;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Called when removed content can no longer be read from the file or its log.
pub(super) type OnErased = Box<dyn FnOnce() + Send>;

/// Handle of the thread.
pub(super) struct Checkpoints {
    requests: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
    written_bytes: usize,
}

enum Request {
    /// Copy the log's pages into the file.
    Checkpoint,
    /// Copy them, then truncate the log.
    Erase(Vec<OnErased>),
}

impl Checkpoints {
    /// Starts the thread. If that fails, SQLite checkpoints the log when the store is closed.
    pub(super) fn start(path: &Path) -> Self {
        let (requests, inbox) = sync_channel(MAX_REQUESTS);
        let worker = CheckpointThread { path: path.to_owned(), connection: None, erasure: None };
        let thread = thread::Builder::new().name("store-checkpoint".to_owned()).spawn(move || worker.serve(&inbox));
        let thread = thread.inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "the checkpoint thread can't be started; the write-ahead log grows until the store is closed");
        });
        Self { requests: thread.is_ok().then_some(requests), thread: thread.ok(), written_bytes: 0 }
    }

    /// Records a commit of about `bytes`; requests a checkpoint when enough was written.
    pub(super) fn committed(&mut self, bytes: usize) {
        self.written_bytes += bytes;
        if self.written_bytes >= CHECKPOINT_EVERY_BYTES {
            self.written_bytes = 0;
            // If the channel is full, a waiting request covers these pages too.
            let _ = self.requests.as_ref().map(|requests| requests.try_send(Request::Checkpoint));
        }
    }

    /// Removes content from the log that is no longer in the file, and calls `on_erased` then. Waits while
    /// [`MAX_REQUESTS`] requests wait.
    pub(super) fn erase(&self, on_erased: Vec<OnErased>) {
        let unsent = match &self.requests {
            Some(requests) => requests.send(Request::Erase(on_erased)).err().map(|error| error.0),
            None => Some(Request::Erase(on_erased)),
        };
        if let Some(Request::Erase(on_erased)) = unsent {
            on_erased.into_iter().for_each(|call| call());
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        drop(self.requests.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct CheckpointThread {
    path: PathBuf,
    connection: Option<Connection>,
    /// An erasure that a reader of an old snapshot prevents. It is tried again.
    erasure: Option<Erasure>,
}

struct Erasure {
    on_erased: Vec<OnErased>,
    since: Instant,
}

impl CheckpointThread {
    fn serve(mut self, inbox: &Receiver<Request>) {
        loop {
            let request = match &self.erasure {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(_) => inbox.recv_timeout(ERASE_RETRY),
            };
            match request {
                Ok(Request::Checkpoint) => drop(self.run(checkpoint)),
                Ok(Request::Erase(on_erased)) => {
                    let erasure = self.erasure.get_or_insert(Erasure { on_erased: Vec::new(), since: Instant::now() });
                    erasure.on_erased.extend(on_erased);
                    self.erase();
                }
                Err(RecvTimeoutError::Timeout) => self.erase(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // Closing the store removes the log.
        self.erasure.take().into_iter().for_each(Erasure::finish);
    }

    fn erase(&mut self) {
        let erased = self.run(truncate).unwrap_or(false);
        let Some(erasure) = &mut self.erasure else { return };
        if erased {
            self.erasure.take().into_iter().for_each(Erasure::finish);
        } else if !erasure.on_erased.is_empty() && erasure.since.elapsed() > MAX_ERASE_WAIT {
            tracing::warn!(path = %self.path.display(), "removed content stays in the write-ahead log until a long read ends");
            erasure.on_erased.drain(..).for_each(|call| call());
        }
    }

    /// Runs `job` on the connection, which is opened if needed. `None` after an error.
    fn run<T>(&mut self, job: fn(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        let connection = match self.connection.take() {
            Some(connection) => Ok(connection),
            None => open_beside(&self.path, BUSY_TIMEOUT),
        };
        let done = connection.and_then(|connection| {
            let done = job(&connection)?;
            self.connection = Some(connection);
            Ok(done)
        });
        done.inspect_err(|error| {
            tracing::warn!(path = %self.path.display(), %error, "the write-ahead log could not be checkpointed; trying again later");
        })
        .ok()
    }
}

impl Erasure {
    fn finish(self) {
        self.on_erased.into_iter().for_each(|call| call());
    }
}

fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    let pages: i64 = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
    if pages > MAX_LOG_PAGES {
        // A writer without pauses only appends. It has to wait once so that the log restarts at its beginning; what is
        // left to copy was written since the statement above.
        connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
    }
    Ok(())
}

/// True if the log is empty now.
fn truncate(connection: &Connection) -> rusqlite::Result<bool> {
    let is_busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(!is_busy)
}

/// The log grows to about this size. Pages that many commits write are copied once.
const CHECKPOINT_EVERY_BYTES: usize = 16 * 1024 * 1024;
/// Size of the log in pages of 8 kB, 64 MB, above which the writer has to wait for its restart.
const MAX_LOG_PAGES: i64 = 8 * 1024;
/// How long a checkpoint waits for readers while it blocks the writer. Shorter than the writer's own timeout.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);
/// Time between two tries of an erasure that a reader prevents.
const ERASE_RETRY: Duration = Duration::from_millis(20);
/// How long a removal waits for its erasure. The erasure itself is tried until it succeeds.
const MAX_ERASE_WAIT: Duration = Duration::from_secs(5);
/// Requests that wait for the thread.
const MAX_REQUESTS: usize = 64;
