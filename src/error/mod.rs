//! What can go wrong with an exchange: whose fault it is, the status it becomes, and the word it is recorded by.
//!
//! The words are the error types of RFC 9209 (`Proxy-Status`), so that spans, logs, metrics and the header agree; those
//! of the gateway are our own. Turning an error into a response happens in `forward::reply`, for the gateway in
//! `gateway::refusal`, and nowhere else.

mod framing;
mod kind;

pub use framing::{FramingFault, FramingRule};
pub use kind::ErrorKind;

use http::StatusCode;
use std::fmt;

/// Who caused an error, or ended an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The agent.
    Downstream,
    /// The endpoint, or the way to it.
    Upstream,
    /// This program.
    Internal,
}

impl Side {
    /// The word used in attributes and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Internal => "internal",
        }
    }
}

/// An error of one exchange, with the host it concerns.
#[derive(Clone, Debug)]
pub struct ProxyError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// `host` or `host:port` it concerns; empty if none.
    pub host: String,
    /// The cause, as a chain of sources in one line.
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

    /// Whose fault it is.
    pub fn side(&self) -> Side {
        self.kind.meaning().side
    }

    /// The status the agent gets.
    pub fn status(&self) -> StatusCode {
        self.kind.meaning().status
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> &'static str {
        self.kind.meaning().hint
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

/// An error and its sources in one line, each said once.
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
