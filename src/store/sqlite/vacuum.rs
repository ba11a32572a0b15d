//! Rewriting of a file without its unused space.
//!
//! SQLite writes the content into a temporary file, and then through the write-ahead log back into the file: both need room for it.
//! Other programs can read meanwhile; their writes wait.

use super::error::store_error;
use super::file::open_beside;
use super::retention::size_bytes;
use crate::files::{device, free_bytes, sqlite_temporary_folder};
use crate::store::error::{Result, StoreError};
use rusqlite::Connection;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Rewrites the file, if the disks have room for it.
pub(super) fn rewrite(path: &Path, busy_timeout: Duration) -> Result<()> {
    let failed = |error: rusqlite::Error| store_error(path, &error);
    let connection = open_beside(path, busy_timeout).map_err(failed)?;
    let content = size_bytes(&connection).map_err(failed)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = sqlite_temporary_folder(&|name| std::env::var_os(name));
    let room = Room::of(folder, &temporary);
    let room = room.map_err(|error| StoreError::Unusable { path: folder.to_owned(), cause: error.to_string() })?;
    room.check(content).map_err(|Short { folder, needed, free }| StoreError::ShortOfSpace {
        path: path.to_owned(),
        folder,
        needed_mb: needed.div_ceil(BYTES_PER_MB),
        free_mb: free / BYTES_PER_MB,
    })?;
    vacuum(&connection).map_err(failed)
}

fn vacuum(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("VACUUM")?;
    // Programs of older versions do not count the pieces that they store.
    connection.execute_batch(
        "UPDATE row_count SET pieces = (SELECT COUNT(*) FROM text),
             piece_bytes = (SELECT COALESCE(SUM(LENGTH(data)), 0) FROM text)",
    )?;
    // While others read, the log keeps its size.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// The free space of the folders that a rewrite writes to.
struct Room {
    folder: PathBuf,
    free: u64,
    /// The folder of the temporary file, if it is on another disk.
    temporary: Option<(PathBuf, u64)>,
}

/// A folder on a disk with too little space.
#[derive(Debug, PartialEq, Eq)]
struct Short {
    folder: PathBuf,
    needed: u64,
    free: u64,
}

impl Room {
    fn of(folder: &Path, temporary: &Path) -> io::Result<Self> {
        let is_other = device(folder)? != device(temporary)?;
        let other = if is_other { Some((temporary.to_owned(), free_bytes(temporary)?)) } else { None };
        Ok(Self { folder: folder.to_owned(), free: free_bytes(folder)?, temporary: other })
    }

    /// An error unless there is room for `content`: twice on one disk, or once on each of two.
    fn check(&self, content: u64) -> std::result::Result<(), Short> {
        let needed = if self.temporary.is_none() { content.saturating_mul(2) } else { content };
        if self.free < needed {
            return Err(Short { folder: self.folder.clone(), needed, free: self.free });
        }
        match &self.temporary {
            Some((folder, free)) if *free < content => {
                Err(Short { folder: folder.clone(), needed: content, free: *free })
            }
            _ => Ok(()),
        }
    }
}

const BYTES_PER_MB: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewrite_needs_room_for_two_copies() {
        let room = |free: u64, other: Option<u64>| Room {
            folder: "a".into(),
            free,
            temporary: other.map(|free| ("b".into(), free)),
        };
        let short = |folder: &str, needed, free| Err(Short { folder: folder.into(), needed, free });
        assert_eq!(room(200, None).check(100), Ok(()));
        assert_eq!(room(199, None).check(100), short("a", 200, 199));
        assert_eq!(room(100, Some(100)).check(100), Ok(()));
        assert_eq!(room(99, Some(100)).check(100), short("a", 100, 99));
        assert_eq!(room(100, Some(99)).check(100), short("b", 100, 99));
    }
}
