//! Checkpoints of the write-ahead log on a thread of their own, since a commit that does one takes as long as hundreds of
//! others; and the erasure of removed content.
//!
//! SQLite overwrites removed content with zeros (`secure_delete`), but two kinds of copies remain. Old pages are in the log: it
//! is truncated before a removal returns. And when SQLite moves rows between pages, it leaves a few of them in unallocated
//! space: the file is compacted when no commits arrive for [`IDLE_TIME`], and when the store is closed. A file of more than
//! [`MAX_COMPACTED_BYTES`] is not, since that would block the writer for long: there such copies last until SQLite reuses
//! their space.
//!
//! A checkpoint may block the writer only briefly, see [`BUSY_TIMEOUT`]. The thread must end before the writer's connection
//! is closed.

use super::file::open_beside;
use super::open_file::{OpenFile, Opened};
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Called when removed content can no longer be read from the file or its log, or when the log was copied.
pub(super) type OnErased = Box<dyn FnOnce() + Send>;

/// Handle of the thread.
pub(super) struct Checkpoints {
    requests: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
    written_bytes: usize,
    commits: Arc<AtomicU64>,
}

enum Request {
    /// Copy the log's pages into the file, then call.
    Checkpoint(Vec<OnErased>),
    /// Copy them, then truncate the log.
    Erase(Vec<OnErased>),
}

impl Checkpoints {
    /// Starts the thread. If that fails, SQLite checkpoints the log when the store is closed.
    pub(super) fn start(file: Arc<OpenFile>, generation: u64) -> Self {
        let (requests, inbox) = sync_channel(MAX_REQUESTS);
        // A program that was killed leaves its log behind: it would grow with each start.
        let written_bytes = file.log_bytes();
        let commits = Arc::new(AtomicU64::new(0));
        let worker = CheckpointThread {
            file,
            generation,
            connection: None,
            erasure: None,
            compaction_due: false,
            commits: Arc::clone(&commits),
        };
        let thread = thread::Builder::new().name("store-checkpoint".to_owned()).spawn(move || worker.serve(&inbox));
        let thread = thread.inspect_err(|error| {
            tracing::warn!(%error, "the checkpoint thread can't be started; the write-ahead log grows until the store is closed");
        });
        Self { requests: thread.is_ok().then_some(requests), thread: thread.ok(), written_bytes, commits }
    }

    /// Records a commit with content of about `bytes`; requests a checkpoint when enough was written.
    pub(super) fn committed(&mut self, bytes: usize) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.written_bytes = self.written_bytes.saturating_add(bytes).saturating_add(COMMIT_BYTES);
        if self.written_bytes >= CHECKPOINT_EVERY_BYTES {
            self.written_bytes = 0;
            // If the channel is full, a waiting request covers these pages too.
            let _ = self.requests.as_ref().map(|requests| requests.try_send(Request::Checkpoint(Vec::new())));
        }
    }

    /// Copies the log's pages into the file, and calls `then`. It does not wait for readers. Waits while [`MAX_REQUESTS`] requests
    /// wait.
    pub(super) fn checkpoint(&mut self, then: Vec<OnErased>) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.written_bytes = 0;
        self.request(Request::Checkpoint(then));
    }

    /// Removes content from the log that is no longer in the file, and calls `on_erased` then. Waits while
    /// [`MAX_REQUESTS`] requests wait.
    pub(super) fn erase(&self, on_erased: Vec<OnErased>) {
        self.request(Request::Erase(on_erased));
    }

    /// Sends a request. Without the thread, its calls are made at once.
    fn request(&self, request: Request) {
        let unsent = match &self.requests {
            Some(requests) => requests.send(request).err().map(|error| error.0),
            None => Some(request),
        };
        if let Some(Request::Erase(calls) | Request::Checkpoint(calls)) = unsent {
            calls.into_iter().for_each(|call| call());
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
    file: Arc<OpenFile>,
    /// The writer's. Another file has another writer and another thread.
    generation: u64,
    connection: Option<Connection>,
    /// An erasure that a reader of an old snapshot prevents. It is tried again.
    erasure: Option<Erasure>,
    /// True if unallocated space may contain removed content.
    compaction_due: bool,
    /// Commits of the writer, to see whether it is idle.
    commits: Arc<AtomicU64>,
}

struct Erasure {
    on_erased: Vec<OnErased>,
    since: Instant,
}

impl CheckpointThread {
    fn serve(mut self, inbox: &Receiver<Request>) {
        loop {
            let commits = self.commits.load(Ordering::Relaxed);
            let request = match (&self.erasure, self.compaction_due) {
                (Some(_), _) => inbox.recv_timeout(ERASE_RETRY),
                (None, true) => inbox.recv_timeout(IDLE_TIME),
                (None, false) => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match request {
                Ok(Request::Checkpoint(then)) => {
                    let _ = self.run(if then.is_empty() { checkpoint } else { checkpoint_slice });
                    then.into_iter().for_each(|call| call());
                }
                Ok(Request::Erase(on_erased)) => {
                    let erasure = self.erasure.get_or_insert(Erasure { on_erased: Vec::new(), since: Instant::now() });
                    erasure.on_erased.extend(on_erased);
                    self.compaction_due = true;
                    self.erase();
                }
                Err(RecvTimeoutError::Timeout) if self.erasure.is_some() => self.erase(),
                Err(RecvTimeoutError::Timeout) => {
                    if self.commits.load(Ordering::Relaxed) == commits {
                        self.compact();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // The writer has ended. Closing its connection removes the log.
        if self.compaction_due {
            self.compact();
        }
        self.erasure.take().into_iter().for_each(Erasure::finish);
    }

    /// Rewrites the file without unallocated space. After an error it is still due.
    fn compact(&mut self) {
        self.compaction_due = self.run(compact).is_none();
        if !self.compaction_due {
            self.run(truncate);
        }
    }

    fn erase(&mut self) {
        let erased = self.run(truncate).unwrap_or(false);
        let Some(erasure) = &mut self.erasure else { return };
        if erased {
            self.erasure.take().into_iter().for_each(Erasure::finish);
        } else if !erasure.on_erased.is_empty() && erasure.since.elapsed() > MAX_ERASE_WAIT {
            tracing::warn!(path = %self.file.path().display(), "removed content stays in the write-ahead log until a long read ends");
            erasure.on_erased.drain(..).for_each(|call| call());
        }
    }

    /// Runs `job` on the connection, which is opened if needed. `None` after an error.
    fn run<T>(&mut self, job: fn(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        let connection = match self.connection.take() {
            Some(connection) => Ok(connection),
            None => match self.file.open(|path| open_beside(path, BUSY_TIMEOUT)) {
                Ok(Opened { generation, .. }) if generation != self.generation => return None,
                opened => opened.map(|opened| opened.connection),
            },
        };
        let done = connection.and_then(|connection| {
            let done = job(&connection)?;
            self.connection = Some(connection);
            Ok(done)
        });
        done.inspect_err(|error| {
            tracing::warn!(path = %self.file.path().display(), %error, "the write-ahead log could not be checkpointed; trying again later");
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
    copy_log(connection, MAX_LOG_PAGES)
}

/// As [`checkpoint`], between two slices, which write more than other commits.
fn checkpoint_slice(connection: &Connection) -> rusqlite::Result<()> {
    copy_log(connection, MAX_SLICE_LOG_PAGES)
}

fn copy_log(connection: &Connection, max_pages: i64) -> rusqlite::Result<()> {
    let pages: i64 = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
    if pages > max_pages {
        // A writer without pauses only appends. It has to wait once so that the log restarts at its beginning; what is
        // left to copy was written since the statement above.
        connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
    }
    Ok(())
}

fn compact(connection: &Connection) -> rusqlite::Result<()> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    if number("PRAGMA page_count")? * number("PRAGMA page_size")? > MAX_COMPACTED_BYTES {
        return Ok(());
    }
    connection.execute_batch("VACUUM")
}

/// True if the log is empty now.
fn truncate(connection: &Connection) -> rusqlite::Result<bool> {
    // Most pages are copied while the writer goes on.
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    let is_busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(!is_busy)
}

/// The log grows to about this size. Pages that many commits write are copied once.
const CHECKPOINT_EVERY_BYTES: usize = 16 * 1024 * 1024;
/// What a commit writes beside its content: whole pages of indexes and of what the last commit left partly filled. A commit of one
/// span was measured.
const COMMIT_BYTES: usize = 16 * 8 * 1024;
/// Size of the log in pages of 8 kB, 64 MB, above which the writer has to wait for its restart.
const MAX_LOG_PAGES: i64 = 8 * 1024;
/// The same for the log between two slices of a prune: 8 MB.
const MAX_SLICE_LOG_PAGES: i64 = 1024;
/// How long a checkpoint waits for readers while it blocks the writer. Shorter than the writer's own timeout.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);
/// Time between two tries of an erasure that a reader prevents.
const ERASE_RETRY: Duration = Duration::from_millis(20);
/// How long a removal waits for its erasure. The erasure itself is tried until it succeeds.
const MAX_ERASE_WAIT: Duration = Duration::from_secs(5);
/// Time without commits after which the file is compacted.
const IDLE_TIME: Duration = Duration::from_secs(1);
/// Maximum size of a file that is compacted: the writer is blocked for about half a second.
const MAX_COMPACTED_BYTES: i64 = 64 * 1024 * 1024;
/// Requests that wait for the thread.
const MAX_REQUESTS: usize = 64;
