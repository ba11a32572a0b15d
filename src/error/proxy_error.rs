//! The error of one exchange: its kind, the host it concerns, and its cause.

use super::kind::ErrorKind;
use super::side::Side;
use http::StatusCode;
use std::fmt;

/// An error of one exchange.
#[derive(Clone, Debug)]
pub struct ProxyError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// The `host` or `host:port` it concerns; empty when it concerns none.
    pub host: String,
    /// The cause in one line: a sentence, or a chain of error sources.
    pub cause: String,
}

impl ProxyError {
    /// An error about `host`, with its cause in words.
    pub fn new(kind: ErrorKind, host: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { kind, host: host.into(), cause: cause.into() }
    }

    /// An error about `host`, with the source chain of `error` as its cause.
    pub fn from_source(kind: ErrorKind, host: impl Into<String>, error: &dyn std::error::Error) -> Self {
        Self::new(kind, host, source_chain(error))
    }

    /// Who caused it.
    pub fn side(&self) -> Side {
        self.kind.side()
    }

    /// The status code that the client gets.
    pub fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// What the reader can do about it.
    pub fn fix(&self) -> &'static str {
        self.kind.fix()
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind.as_str())?;
        if !self.host.is_empty() {
            write!(f, " for {}", self.host)?;
        }
        write!(f, ": {}", self.cause)
    }
}

impl std::error::Error for ProxyError {}

/// An error and its sources in one line. A source that its parent already quotes is not repeated.
pub fn source_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let words = next.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = next.source();
    }
    text
}
