//! What the server says, in words for whoever runs the program.

use crate::store::StoreError;
use tokio_postgres::{Config, Error};

/// What an error means for whoever runs the program.
pub(super) fn fault(server: &str, error: &Error) -> StoreError {
    // Without connection, room or will on the server's side (classes 08, 53, 57): trying later may help.
    let is_away = match error.code() {
        Some(code) => ["08", "53", "57"].iter().any(|class| code.code().starts_with(class)),
        None => true,
    };
    match is_away {
        true => StoreError::Unreachable { server: server.to_owned(), cause: cause(error) },
        false => StoreError::Other(format!("PostgreSQL at {server}: {}", cause(error))),
    }
}

/// An error with what is behind it.
pub(super) fn cause(error: &Error) -> String {
    match error.as_db_error() {
        Some(error) => error.message().to_owned(),
        None => {
            std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
        }
    }
}

pub(super) fn server_of(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
        #[cfg(unix)]
        Some(tokio_postgres::config::Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    format!("{host}:{}", config.get_ports().first().copied().unwrap_or(5432))
}

/// A URL as it may be shown.
pub fn without_password(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, rest)) => format!("{scheme}://…@{rest}"),
        None => url.to_owned(),
    }
}
