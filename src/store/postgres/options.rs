//! Options of a PostgreSQL store, and its URL.

use crate::store::records::SpanObserver;
use crate::store::retention::Retention;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// Options of a PostgreSQL store.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Unlimited by default. `max_bytes` has no effect, because a server's disk is not ours to measure.
    pub retention: Retention,
    /// How long the server may take to answer a read, a batch of spans, or a statement of a change; 15 s by default. After
    /// that, the statement is cancelled and its connection closed.
    pub answer_timeout: Duration,
    /// Called for stored spans.
    pub observer: Option<SpanObserver>,
    /// What an open does if the server can't be reached.
    pub when_unreachable: WhenUnreachable,
}

/// What an open does if the server can't be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnreachable {
    /// The open fails.
    #[default]
    Fail,
    /// The open succeeds. Operations fail until the server is there, and the first one then creates or migrates the tables.
    Wait,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            answer_timeout: Duration::from_secs(15),
            observer: None,
            when_unreachable: WhenUnreachable::default(),
        }
    }
}

/// Host and port of a server, for messages.
pub(super) fn server_name(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    format!("{host}:{}", config.get_ports().first().copied().unwrap_or(5432))
}

/// A URL without user name and password, for messages.
pub fn without_password(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, rest)) => format!("{scheme}://…@{rest}"),
        None => url.to_owned(),
    }
}
