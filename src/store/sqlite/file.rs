//! Opening of the file: creation, identification, migration and configuration.
//!
//! A file is not changed before it is identified as a trace store.

use super::error::store_error;
use super::migrations::{apply_from, known_version};
use super::options::{SqliteOptions, Synchronous};
use crate::files::{Owner, UnsafeFile, check_unchangeable, create_private_folder};
use crate::store::error::{Result, StoreError};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Identifies a SQLite file as a trace store: `TWTS`.
const APPLICATION_ID: i64 = 0x5457_5453;

/// Opens the file for writing. Creates and migrates it if needed. `Ok` means that a write succeeded.
pub(super) fn open_writer(path: &Path, options: &SqliteOptions) -> Result<Connection> {
    // Before the file is created: a link of another user may lead anywhere.
    check_files(path, Owner::ThisUser)?;
    create(path).map_err(|error| StoreError::Unusable { path: path.to_owned(), cause: error.to_string() })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = open(path, flags, options.busy_timeout);
    let mut connection = opened.map_err(|error| store_error(path, &error))?;
    let state = identify(path, &connection)?;
    configure(&connection, state, options.synchronous).map_err(|error| store_error(path, &error))?;
    migrate(path, &mut connection)?;
    Ok(connection)
}

/// Opens the file for reading. On a read-only file system without a write-ahead log, nothing can change the file; SQLite
/// does not open it without being told so.
pub(super) fn open_reader(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = open(path, flags, busy_timeout).and_then(|connection| {
        connection.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
        Ok(connection)
    });
    opened.or_else(|error| match error.sqlite_error_code() {
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly) if path.is_file() && !has_write_ahead_log(path) => {
            open(&immutable_uri(path), flags | OpenFlags::SQLITE_OPEN_URI, busy_timeout)
        }
        _ => Err(error),
    })
}

fn has_write_ahead_log(path: &Path) -> bool {
    let [log, _] = beside(path);
    std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

/// The path as a URI; `%`, `?` and `#` have a meaning in one.
fn immutable_uri(path: &Path) -> PathBuf {
    let mut uri = b"file:".to_vec();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | b'?' | b'#' => uri.extend(format!("%{byte:02x}").into_bytes()),
            _ => uri.push(*byte),
        }
    }
    uri.extend(b"?immutable=1");
    OsString::from_vec(uri).into()
}

/// Whether a file must be migrated before it can be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SchemaState {
    /// No: this program wrote it, or one with the same schema.
    Current,
    /// Yes: an older program wrote it, or it is new.
    Older,
}

/// Identifies an existing file without changing it.
pub(super) fn identify_for_reading(path: &Path, busy_timeout: Duration) -> Result<SchemaState> {
    check_files(path, Owner::Any)?;
    let connection = open_reader(path, busy_timeout).map_err(|error| store_error(path, &error))?;
    identify(path, &connection)?;
    let found: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(|error| store_error(path, &error))?;
    Ok(if found == known_version() { SchemaState::Current } else { SchemaState::Older })
}

/// Opens the file for checkpoints. The writer has opened it before.
pub(super) fn open_beside(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    open(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX, busy_timeout)
}

fn open(path: &Path, flags: OpenFlags, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout)?;
    // Plans do not depend on the bound values. Otherwise SQLite plans some statements again at each execution.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Device and inode of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

/// Which file a path leads to. `None` if there is none.
pub(super) fn identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|file| Identity(file.dev(), file.ino()))
}

/// The paths of the write-ahead log and of its index.
pub(super) fn beside(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|end| with_end(path, end))
}

/// The path with `end` added to its file name.
pub(super) fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(end);
    beside.into()
}

/// Rejects files that others can change: what they wrote would be taken for what agents did.
fn check_files(path: &Path, owner: Owner) -> Result<()> {
    let [log, index] = beside(path);
    let mut files = [path, &log, &index].into_iter();
    files
        .try_for_each(|file| check_unchangeable(file, owner))
        .map_err(|UnsafeFile { path, problem }| StoreError::Unsafe { path, problem })
}

/// Creates the file and its folder with access for their owner only, because they contain what agents send. The permissions
/// of existing files and folders do not change.
fn create(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        create_private_folder(folder)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {
            // What is left of an earlier file would be taken for the log of this one.
            for left in beside(path) {
                let _ = std::fs::remove_file(left);
            }
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Rejects files of other programs and of newer versions.
fn identify(path: &Path, connection: &Connection) -> Result<FileState> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let map = |error: rusqlite::Error| store_error(path, &error);
    let application = number("PRAGMA application_id").map_err(map)?;
    let found = number("PRAGMA user_version").map_err(map)?;
    let is_empty = number("SELECT COUNT(*) FROM sqlite_schema").map_err(map)? == 0;
    let is_fresh = is_empty && application == 0 && found == 0;
    if application != APPLICATION_ID && !is_fresh {
        return Err(StoreError::Corrupt {
            path: path.to_owned(),
            cause: "it is another program's database".to_owned(),
        });
    }
    if found > known_version() {
        return Err(StoreError::TooNew { path: path.to_owned(), found, known: known_version() });
    }
    Ok(if is_empty { FileState::New } else { FileState::Existing })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FileState {
    New,
    Existing,
}

fn configure(connection: &Connection, state: FileState, synchronous: Synchronous) -> rusqlite::Result<()> {
    if state == FileState::New {
        // Only possible before the first page is written, which the switch to WAL does. The row of a span has some
        // kilobytes.
        connection.execute_batch("PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL")?;
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        tracing::warn!(mode, "the store's file system does not allow write-ahead logging; writes are slower");
    }
    // Checkpoints run on a thread of their own, see `checkpoint`. Removed content is overwritten with zeros.
    let pragmas = "PRAGMA cache_size = -4096; PRAGMA wal_autocheckpoint = 0; PRAGMA secure_delete = ON;";
    connection.execute_batch(pragmas)?;
    connection.execute_batch(match synchronous {
        Synchronous::Normal => "PRAGMA synchronous = NORMAL",
        Synchronous::Full => "PRAGMA synchronous = FULL",
    })
}

fn migrate(path: &Path, connection: &mut Connection) -> Result<()> {
    let map = |error: rusqlite::Error| store_error(path, &error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(map)?;
    // Read again under the lock, because another process may have migrated the file.
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(map)?;
    if found > known_version() {
        return Err(StoreError::TooNew { path: path.to_owned(), found, known: known_version() });
    }
    apply_from(&transaction, found).map_err(map)?;
    // Written even without a change, to test that the file can be written.
    let version = known_version();
    let stamp = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};");
    transaction.execute_batch(&stamp).map_err(map)?;
    transaction.commit().map_err(map)
}
