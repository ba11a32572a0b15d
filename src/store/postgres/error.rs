//! Classification of the server's errors by SQLSTATE (PostgreSQL documentation, appendix A).

use crate::store::error::StoreError;
use std::time::Duration;
use tokio_postgres::Error;

/// Why work on a connection failed.
#[derive(Debug)]
pub(super) enum QueryError {
    /// No connection could be opened or taken from the pool.
    Connection(StoreError),
    /// The server reported an error, or the connection broke.
    Server(Error),
    /// The server did not answer in this time.
    Timeout(Duration),
    /// A row has content that this program did not write.
    Damaged(String),
    /// The code of a change returned an error.
    Rejected(StoreError),
}

impl From<Error> for QueryError {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

impl QueryError {
    /// True if another transaction came between, so that an immediate retry can succeed.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Server(error) if class_of_error(error) == ErrorClass::Conflict)
    }

    pub(super) fn into_store_error(self, server: &str) -> StoreError {
        match self {
            Self::Connection(error) | Self::Rejected(error) => error,
            other => other.store_error(server),
        }
    }

    /// As [`QueryError::into_store_error`], for an error that is needed again.
    pub(super) fn store_error(&self, server: &str) -> StoreError {
        let unreachable = |cause: String| StoreError::Unreachable { server: server.to_owned(), cause };
        match self {
            Self::Connection(error) | Self::Rejected(error) => StoreError::Other(error.to_string()),
            Self::Timeout(limit) => unreachable(format!("no answer within {} ms", limit.as_millis())),
            Self::Damaged(cause) => StoreError::Other(format!("PostgreSQL at {server}: {cause}")),
            Self::Server(error) => match class_of_error(error) {
                ErrorClass::Unreachable => unreachable(cause(error)),
                ErrorClass::InvalidData => StoreError::InvalidData { cause: cause(error) },
                ErrorClass::Conflict | ErrorClass::Other => {
                    StoreError::Other(format!("PostgreSQL at {server}: {}", cause(error)))
                }
            },
        }
    }
}

/// What an error says about a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorClass {
    /// The server is away or overloaded.
    Unreachable,
    /// The data itself is the cause: a retry can't succeed.
    InvalidData,
    /// Another transaction came between.
    Conflict,
    /// Anything else, such as a read-only server or a missing permission. It can be repaired without a change of the data.
    Other,
}

/// True if the server is there and refuses the connection, because of the user, the password or the database.
pub(super) fn is_refusal(error: &Error) -> bool {
    error.code().is_some_and(|code| code.code().starts_with("28") || code.code().starts_with("3D"))
}

fn class_of_error(error: &Error) -> ErrorClass {
    // Without SQLSTATE, the connection failed.
    error.code().map_or(ErrorClass::Unreachable, |code| class_of(code.code()))
}

fn class_of(sqlstate: &str) -> ErrorClass {
    match sqlstate {
        "40001" | "40P01" => ErrorClass::Conflict,
        _ => match sqlstate.get(..2) {
            // Connection exception, insufficient resources, operator intervention.
            Some("08" | "53" | "57") => ErrorClass::Unreachable,
            // Data exception, integrity constraint violation.
            Some("22" | "23") => ErrorClass::InvalidData,
            _ => ErrorClass::Other,
        },
    }
}

/// An error's message with its cause.
pub(super) fn cause(error: &Error) -> String {
    match error.as_db_error() {
        Some(error) => error.message().to_owned(),
        None => {
            std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_errors_are_final() {
        for (sqlstate, expected) in [
            ("08006", ErrorClass::Unreachable), // connection failure
            ("53300", ErrorClass::Unreachable), // too many connections
            ("57P01", ErrorClass::Unreachable), // shut down by an administrator
            ("57014", ErrorClass::Unreachable), // statement timeout
            ("22021", ErrorClass::InvalidData), // not in the character set
            ("23502", ErrorClass::InvalidData), // null in a column that forbids it
            ("40001", ErrorClass::Conflict),    // serialization failure
            ("40P01", ErrorClass::Conflict),    // deadlock
            ("25006", ErrorClass::Other),       // read-only transaction
            ("42501", ErrorClass::Other),       // insufficient privilege
            ("42P01", ErrorClass::Other),       // no such table
            ("54000", ErrorClass::Other),       // program limit exceeded
            ("55P03", ErrorClass::Other),       // lock not available
            ("XX000", ErrorClass::Other),       // internal error
            ("2", ErrorClass::Other),
        ] {
            assert_eq!(class_of(sqlstate), expected, "{sqlstate}");
        }
    }
}
