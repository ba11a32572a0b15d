//! A pool of read-only connections, used on threads that may block.
//!
//! Each job sees one snapshot of the file, independent of concurrent writes.

use super::error::store_error;
use super::file;
use super::open_file::{OpenFile, Opened};
use crate::store::error::{Result, StoreError};
use crate::store::piece_cache::PieceCache;
use rusqlite::Connection;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Maximum number of concurrent jobs, and so of connections. Further jobs wait.
const MAX_READERS: u32 = 4;

/// A pool of connections that only read, so that reads wait neither for the writer nor for each other. Each job sees one
/// snapshot.
pub(super) struct Readers {
    file: Arc<OpenFile>,
    busy_timeout: Duration,
    idle: Mutex<Vec<Reader>>,
    permits: Arc<Semaphore>,
}

/// A connection, and the pieces that were read on it.
struct Reader {
    opened: Opened,
    pieces: PieceCache,
}

impl Readers {
    /// An empty pool. Connections are opened when they are needed.
    pub(super) fn new(file: Arc<OpenFile>, busy_timeout: Duration) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_READERS as usize));
        Self { file, busy_timeout, idle: Mutex::new(Vec::new()), permits }
    }

    /// Runs `job` on a connection and a thread that may block. Waits while [`MAX_READERS`] jobs run.
    pub(super) async fn read<T, F>(self: &Arc<Self>, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.read_pieces(move |connection, _| job(connection)).await
    }

    /// As [`read`](Self::read), for a job that reads pieces of long values.
    pub(super) async fn read_pieces<T, F>(self: &Arc<Self>, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut PieceCache) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let readers = Arc::clone(self);
        let running = tokio::task::spawn_blocking(move || {
            let result = readers.run(job).map_err(|error| store_error(readers.file.path(), &error));
            drop(permit);
            result
        });
        running.await.map_err(|error| StoreError::Other(error.to_string()))?
    }

    fn run<T>(&self, job: impl FnOnce(&Connection, &mut PieceCache) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => {
                let opened = self.file.open(|path| file::open_reader(path, self.busy_timeout))?;
                Reader { opened, pieces: PieceCache::default() }
            }
        };
        let snapshot = reader.opened.connection.unchecked_transaction()?;
        let result = job(&snapshot, &mut reader.pieces);
        snapshot.finish()?;
        // A connection is not used again after an error, or when another file is at the path.
        if result.is_ok() && self.file.is_current(reader.opened.generation) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        }
        result
    }

    /// Waits for running jobs, rejects later ones, and closes the connections.
    pub(super) async fn close(&self) {
        let all = self.permits.acquire_many(MAX_READERS).await;
        self.permits.close();
        drop(all);
        self.clear();
    }

    /// Closes the connections that no job uses.
    pub(super) fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
