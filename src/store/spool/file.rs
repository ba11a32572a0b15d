//! The spool's file: a SQLite store that exists only while spans wait.
//!
//! Several processes may use the same folder; each takes a numbered file of its own, protected by a lock.

use super::drain::{Drained, Progress, drain};
use crate::files::create_private_folder;
use crate::store::api::{Appended, SharedStore, Store};
use crate::store::error::{Result, StoreError};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::trace::Span;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

/// The spool of one process.
pub(super) struct Spool {
    path: PathBuf,
    max_bytes: u64,
    /// Held as long as the file belongs to this process.
    _lock: File,
    /// `None` while no spans wait. Not locked while spans are sent, which may take long: further ones are added meanwhile.
    file: Mutex<Option<Arc<SqliteStore>>>,
    /// Of the file. Locked by the one drain at a time.
    progress: Mutex<Progress>,
    waiting: AtomicU64,
    dropped: AtomicU64,
}

impl Spool {
    /// Takes a file in `folder`. Spans that wait there from an earlier run are opened.
    pub(super) fn open(folder: &Path, max_bytes: u64) -> Result<Self> {
        let unusable =
            |error: std::io::Error| StoreError::Unusable { path: folder.to_owned(), cause: error.to_string() };
        create_private_folder(folder).map_err(unusable)?;
        let (path, lock) = lock_first_free(folder).map_err(unusable)?;
        let file = if path.exists() { Some(open_file(&path)?) } else { None };
        // The exact number is known after the first drain.
        let waiting = AtomicU64::new(u64::from(file.is_some()));
        let (file, progress) = (Mutex::new(file), Mutex::default());
        Ok(Self { path, max_bytes, _lock: lock, file, progress, waiting, dropped: AtomicU64::new(0) })
    }

    /// Number of spans in the file.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Number of spans since the start that the server rejected for their data.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Size of the files of all processes that use the folder.
    pub(super) fn folder_bytes(&self) -> u64 {
        let Some(folder) = self.path.parent() else { return 0 };
        (1..=MAX_FILES).map(|number| size_bytes(&numbered(folder, number).0)).sum()
    }

    /// Stores spans that the server did not take, because of `cause`. Fails with `cause` if the file is full.
    pub(super) async fn put(&self, spans: Vec<Arc<Span>>, cause: StoreError) -> Result<Appended> {
        let mut file = self.file.lock().await;
        let store = match &mut *file {
            Some(store) => store,
            None => {
                tracing::warn!(error = %cause, path = %self.path.display(), "spans wait in a file until the server takes them");
                file.insert(open_file(&self.path)?)
            }
        };
        if size_bytes(&self.path) >= self.max_bytes {
            return Err(cause);
        }
        let appended = store.append(spans).await?;
        self.waiting.fetch_add(appended.stored as u64, Ordering::Relaxed);
        Ok(appended)
    }

    /// Sends all spans to the server, and removes the file. After an error, all of them remain in it; those that were sent are
    /// not sent again.
    pub(super) async fn empty(&self, server: &SharedStore) -> Result<()> {
        let mut progress = self.progress.lock().await;
        loop {
            let Some(store) = self.file.lock().await.clone() else { return Ok(()) };
            let before = progress.drained();
            drain(&store, server, &mut progress).await?;
            let mut file = self.file.lock().await;
            let Drained { sent, dropped } = progress.drained();
            let left = store.statistics().await?.spans.saturating_sub(sent + dropped);
            if left > 0 && before == progress.drained() {
                return Err(StoreError::Other(format!("{left} spans of the spool's file were not found")));
            }
            if left > 0 {
                // They were added meanwhile.
                continue;
            }
            *file = None;
            if let Err(error) = store.close().await {
                tracing::warn!(%error, path = %self.path.display(), "an empty spool file can't be closed");
            }
            remove(&self.path);
            self.waiting.store(0, Ordering::Relaxed);
            self.count(std::mem::take(&mut *progress).drained(), "the server has the spans that waited in a file");
            return Ok(());
        }
    }

    /// Sends the spans that other processes left behind when they ended.
    pub(super) async fn adopt(&self, server: &SharedStore) -> Result<()> {
        let Some(folder) = self.path.parent() else { return Ok(()) };
        for number in 1..=MAX_FILES {
            let (path, lock) = numbered(folder, number);
            let Ok(lock) = File::options().write(true).open(lock) else { continue };
            // The lock of a running process, also of this one, is not available.
            if path.exists() && lock.try_lock().is_ok() {
                let (file, mut progress) = (open_file(&path)?, Progress::default());
                drain(&file, server, &mut progress).await?;
                file.close().await?;
                remove(&path);
                self.count(progress.drained(), "the server has the spans that another process left in a file");
            }
        }
        Ok(())
    }

    fn count(&self, drained: Drained, message: &str) {
        let Drained { sent, dropped } = drained;
        self.dropped.fetch_add(dropped, Ordering::Relaxed);
        tracing::info!(sent, dropped, "{message}");
    }

    /// Closes the file, and leaves its spans for the next start.
    pub(super) async fn close(&self) -> Result<()> {
        let Some(file) = self.file.lock().await.take() else { return Ok(()) };
        tracing::warn!(path = %self.path.display(), "spans wait in a file for the next start");
        file.close().await
    }
}

fn open_file(path: &Path) -> Result<Arc<SqliteStore>> {
    Ok(Arc::new(SqliteStore::open(path, SqliteOptions::default())?))
}

/// The files of a SQLite database: the database, its write-ahead log, and the index of that log.
fn files(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| {
        let mut path = path.to_owned().into_os_string();
        path.push(suffix);
        path.into()
    })
}

/// Size of the files. Unlike the size of their content, it is known without a query.
fn size_bytes(path: &Path) -> u64 {
    files(path).iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

fn remove(path: &Path) {
    for path in files(path) {
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "an empty spool file can't be removed");
        }
    }
}

/// A numbered spool file and its lock.
fn numbered(folder: &Path, number: u32) -> (PathBuf, PathBuf) {
    (folder.join(format!("spool-{number}.db")), folder.join(format!("spool-{number}.lock")))
}

/// Locks the first numbered file that no other process holds.
fn lock_first_free(folder: &Path) -> std::io::Result<(PathBuf, File)> {
    for number in 1..=MAX_FILES {
        let (path, lock) = numbered(folder, number);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock)?;
        match lock.try_lock() {
            Ok(()) => return Ok((path, lock)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(std::io::Error::other(format!("{MAX_FILES} other processes use this folder")))
}

/// Maximum number of processes that share a folder.
const MAX_FILES: u32 = 64;
