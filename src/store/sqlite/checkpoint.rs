//! Folding the write-ahead log into the file, beside the writer: a commit that did it itself would take as long as
//! hundreds of others.
//!
//! It must never make the writer wait, and must be gone before the writer's connection closes.

use super::schema::open_beside;
use rusqlite::Connection;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The thread that folds.
pub(super) struct Checkpoints {
    asked: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    written_bytes: usize,
}

impl Checkpoints {
    /// Starts the thread. Without it SQLite folds the log when the store is closed.
    pub(super) fn start(path: &Path, busy_timeout: Duration) -> Self {
        let (asked, requests) = sync_channel(1);
        let own = path.to_owned();
        let thread =
            thread::Builder::new().name("store-fold".to_owned()).spawn(move || fold(&own, busy_timeout, &requests));
        let thread = thread.inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "the write-ahead log grows until the store is closed: no thread to fold it");
        });
        Self { asked: Some(asked), thread: thread.ok(), written_bytes: 0 }
    }

    /// So much more was committed.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written_bytes += bytes;
        if self.written_bytes >= FOLD_EVERY_BYTES {
            self.written_bytes = 0;
            // One request waits at most; it will fold what came after it too.
            let _ = self.asked.as_ref().map(|asked| asked.try_send(()));
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        drop(self.asked.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn fold(path: &Path, busy_timeout: Duration, requests: &Receiver<()>) {
    let mut connection: Option<Connection> = None;
    while requests.recv().is_ok() {
        if connection.is_none() {
            connection = open_beside(path, busy_timeout).inspect_err(|error| note(path, error)).ok();
        }
        if let Some(open) = &connection
            && let Err(error) = fold_once(open)
        {
            note(path, &error);
            connection = None;
        }
    }
}

fn fold_once(connection: &Connection) -> rusqlite::Result<()> {
    let frames: i64 = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
    if frames > MAX_FRAMES {
        // A writer that never pauses only ever appends: it has to wait once for the log to begin anew. What is left to
        // fold is what came since the line above.
        connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
    }
    Ok(())
}

fn note(path: &Path, error: &rusqlite::Error) {
    tracing::warn!(path = %path.display(), %error, "the write-ahead log could not be folded; trying again later");
}

/// The log grows to about this much. Pages that many commits write are folded once.
const FOLD_EVERY_BYTES: usize = 16 * 1024 * 1024;

/// Pages in the log, of 8 kB: 64 MB.
const MAX_FRAMES: i64 = 8 * 1024;
