//! Translation of SQLite's errors into those of stores.

use crate::files::free_bytes;
use crate::store::error::StoreError;
use rusqlite::ErrorCode;
use std::path::Path;

/// The store's error for an error of SQLite.
pub(super) fn store_error(path: &Path, error: &rusqlite::Error) -> StoreError {
    let (path, cause) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { path },
        // SQLite does not tell that the index of the write-ahead log has no room.
        Some(ErrorCode::SystemIoFailure) if is_disk_full(&path) => StoreError::Full { path },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt { path, cause },
        Some(
            ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::SystemIoFailure,
        ) => StoreError::Unusable { path, cause },
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
            StoreError::InvalidData { cause }
        }
        Some(_) => StoreError::Other(cause),
        None => match error {
            // A row that this program did not write.
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => {
                StoreError::Corrupt { path, cause }
            }
            rusqlite::Error::ToSqlConversionFailure(_) => StoreError::InvalidData { cause },
            _ => StoreError::Other(cause),
        },
    }
}

/// True if the index of the write-ahead log has no room beside the file.
fn is_disk_full(path: &Path) -> bool {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    free_bytes(folder).is_ok_and(|free| free < LOG_INDEX_BYTES)
}

/// SQLite extends the index by so much.
const LOG_INDEX_BYTES: u64 = 32 * 1024;

/// True for errors that the next command would meet too. SQLite may have rolled back the whole transaction.
pub(super) fn concerns_file(error: &rusqlite::Error) -> bool {
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

/// Why a command of the writer failed.
#[derive(Debug)]
pub(super) enum CommandError {
    Database(rusqlite::Error),
    /// The command's own code returned an error, or its data can't be encoded.
    Rejected(StoreError),
}

impl From<rusqlite::Error> for CommandError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl CommandError {
    pub(super) fn into_store_error(self, path: &Path) -> StoreError {
        match self {
            Self::Database(error) => store_error(path, &error),
            Self::Rejected(error) => error,
        }
    }
}
