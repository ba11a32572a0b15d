//! The file behind a store's connections: notices that it was removed, moved or replaced.
//!
//! SQLite finds the write-ahead log and its index by the path, not by the file that it has open. If another file is at the
//! path, a connection to it would take over the log of the earlier one, truncate the index that other connections have
//! mapped (which ends the process), and delete the new log when it closes an old connection. So every connection of the
//! program is opened here: the log and the index of an earlier file are unlinked first, and stay with those that have them open.

use super::file;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// A file of a store.
pub(super) struct OpenFile {
    path: PathBuf,
    current: Mutex<Current>,
    lost: AtomicU64,
}

/// A connection, and the generation of the file that it has open. The generation grows when another file is found.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) generation: u64,
}

#[derive(Default)]
struct Current {
    generation: u64,
    /// `None` before the first connection.
    files: Option<Files>,
    is_folder_missing: bool,
}

/// What the connections have open.
#[derive(Clone, Copy)]
struct Files {
    database: file::Identity,
    log: Option<file::Identity>,
    index: Option<file::Identity>,
}

impl OpenFile {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), current: Mutex::default(), lost: AtomicU64::new(0) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the write-ahead log.
    pub(super) fn log_bytes(&self) -> usize {
        let [log, _] = file::beside(&self.path);
        std::fs::metadata(log).map_or(0, |log| usize::try_from(log.len()).unwrap_or(usize::MAX))
    }

    /// How often another file, or none, was found.
    pub(super) fn lost_files(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Opens a connection by `open`, which gets the path.
    pub(super) fn open<E>(&self, open: impl FnOnce(&Path) -> Result<Connection, E>) -> Result<Opened, E> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let found = file::identity(&self.path);
        // A reader finds nothing in a folder that is missing, but the writer's file counts as current.
        let is_kept = found.is_none() && self.is_folder_missing();
        if let Some(files) = current.files.filter(|files| found != Some(files.database) && !is_kept) {
            self.let_go(files);
            current.files = None;
            current.generation += 1;
        }
        let connection = open(&self.path)?;
        if let Some(database) = file::identity(&self.path) {
            if current.files.is_some_and(|files| files.database != database) {
                current.generation += 1;
            }
            let [log, index] = file::beside(&self.path).map(|path| file::identity(&path));
            current.files = Some(Files { database, log, index });
        }
        Ok(Opened { connection, generation: current.generation })
    }

    /// Whether a connection of this generation writes what others can read at the path. A folder that was moved or unmounted
    /// is not made anew in its place, so that its file counts as current.
    pub(super) fn is_current(&self, generation: u64) -> bool {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let found = file::identity(&self.path);
        let is_current = current.generation == generation
            && current.files.is_some_and(|files| found.is_none_or(|found| found == files.database));
        if found.is_some() || !is_current {
            current.is_folder_missing = false;
            return is_current;
        }
        if !self.is_folder_missing() {
            return false;
        }
        if !std::mem::replace(&mut current.is_folder_missing, true) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(path = %self.path.display(), "the folder of the store's file is gone; its open file is still written to");
        }
        true
    }

    fn is_folder_missing(&self) -> bool {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.is_some_and(|folder| !folder.is_dir())
    }

    /// Unlinks the log and the index of an earlier file, unless they are another's.
    fn let_go(&self, files: Files) {
        for (path, ours) in file::beside(&self.path).iter().zip([files.log, files.index]) {
            if ours.is_some() && file::identity(path) == ours {
                let _ = std::fs::remove_file(path);
            }
        }
        self.lost.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            path = %self.path.display(),
            "the store's file was removed or replaced while it was in use; what it held is no longer in the store, and a new \
             one is used from now on"
        );
    }
}

/// Closes a connection to an earlier file: its log is copied into it, for those who moved it elsewhere; what is at the path
/// stays as it is.
pub(super) fn abandon(connection: Connection) {
    let copied = connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()));
    // Otherwise SQLite would delete the log at the path.
    let kept = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    if let Err(error) = copied.and(kept) {
        tracing::warn!(%error, "the earlier file of the store may lack its last spans");
    }
}
