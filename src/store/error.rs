//! Errors of all stores. Each text says what happened, why, and what to do.

use std::path::PathBuf;

/// Result of a store's operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system is full.
    #[error("the disk that holds {path} is full; free some space, or set store.retention.max_bytes")]
    Full {
        /// The store's file.
        path: PathBuf,
    },
    /// A disk has too little room for a rewrite of the file.
    #[error(
        "rewriting {path} needs {needed_mb} MB of free space in {folder}, which has {free_mb} MB; free some space, set SQLITE_TMPDIR to a \
         folder on another disk, or vacuum without --full"
    )]
    ShortOfSpace {
        /// The store's file.
        path: PathBuf,
        /// The folder on the disk.
        folder: PathBuf,
        /// Megabytes that the rewrite needs there.
        needed_mb: u64,
        /// Megabytes that are free there.
        free_mb: u64,
    },
    /// Another process has locked the file.
    #[error("{path} is locked by another process; stop that process, or choose another file with --store")]
    Locked {
        /// The store's file.
        path: PathBuf,
    },
    /// The file is damaged, or is not a store.
    #[error("{path} is not a usable trace store ({cause}); move it away, or choose another file with --store")]
    Corrupt {
        /// The store's file.
        path: PathBuf,
        /// What is wrong with the file.
        cause: String,
    },
    /// A newer program created the store.
    #[error(
        "{path} has schema version {found}, but this program knows versions up to {known}; update tracewire, or choose another store with --store"
    )]
    TooNew {
        /// The store's file, or its server.
        path: PathBuf,
        /// Schema version of the store.
        found: i64,
        /// Newest schema version of this program.
        known: i64,
    },
    /// The file or its folder can't be opened, created or written.
    #[error(
        "{path} can't be opened for writing ({cause}); check the folder's permissions, set TRACEWIRE_HOME, or choose another file with --store"
    )]
    Unusable {
        /// The store's file or folder.
        path: PathBuf,
        /// The operating system's message.
        cause: String,
    },
    /// Users other than the owner of the file can change it.
    #[error("{path} {problem}, or choose another file with --store")]
    Unsafe {
        /// The store's file, its write-ahead log, or the index of that log.
        path: PathBuf,
        /// What is wrong with the file, and what to do about it.
        problem: String,
    },
    /// The store was opened for reading.
    #[error("{path} was opened for reading only")]
    OpenedForReading {
        /// The store's file.
        path: PathBuf,
    },
    /// The database server does not answer. The same operation can succeed later.
    #[error(
        "the PostgreSQL server at {server} can't be reached ({cause}); check that it is running and that --store names it"
    )]
    Unreachable {
        /// Host and port.
        server: String,
        /// What was tried and failed.
        cause: String,
    },
    /// The URL of the database server has a syntax error.
    #[error("{url} is not a PostgreSQL URL ({cause}); write postgres://USER:PASSWORD@HOST/DATABASE")]
    InvalidUrl {
        /// The URL, without its password.
        url: String,
        /// The position of the error.
        cause: String,
    },
    /// The store rejects the data itself, so that a retry can't succeed.
    #[error("the trace store rejected the data ({cause}); this is a bug in tracewire, please report it")]
    InvalidData {
        /// The database's message.
        cause: String,
    },
    /// A transaction was rolled back by its own code.
    #[error("the change was not applied: {0}")]
    RolledBack(String),
    /// [`super::Store::close`] was called.
    #[error("the trace store is closed")]
    Closed,
    /// Any other failure of the database, such as a missing permission. The same operation can succeed later.
    #[error("the trace store failed: {0}")]
    Other(String),
}

/// What a queue of spans does after a failed append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedAppend {
    /// Keep the spans and append them again later: the cause is outside of them.
    Retry,
    /// Append the spans one by one, and drop the ones that are rejected.
    Drop,
}

impl StoreError {
    /// True when the state of the store, never the data, is the cause: the same append succeeds once that has changed.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Locked { .. } | Self::Unreachable { .. })
    }

    /// What to do with the spans of a failed append: they are dropped only if their own data is the cause.
    pub fn failed_append(&self) -> FailedAppend {
        match self {
            Self::InvalidData { .. } => FailedAppend::Drop,
            Self::Full { .. }
            | Self::ShortOfSpace { .. }
            | Self::Locked { .. }
            | Self::Corrupt { .. }
            | Self::TooNew { .. }
            | Self::Unusable { .. }
            | Self::Unsafe { .. }
            | Self::Unreachable { .. }
            | Self::InvalidUrl { .. }
            | Self::RolledBack(_)
            | Self::OpenedForReading { .. }
            | Self::Closed
            | Self::Other(_) => FailedAppend::Retry,
        }
    }
}
