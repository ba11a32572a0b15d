//! Options of a SQLite store.

use crate::store::records::SpanObserver;
use crate::store::retention::Retention;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// When commits are flushed to the disk (`PRAGMA synchronous`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// At checkpoints: a commit survives a crash of the process. A power failure can lose the last commits.
    #[default]
    Normal,
    /// With each commit: a commit also survives a power failure.
    Full,
}

/// Options of a SQLite store.
#[derive(Clone, Copy, Debug)]
pub struct SqliteOptions {
    /// Unlimited by default.
    pub retention: Retention,
    /// `Normal` by default.
    pub synchronous: Synchronous,
    /// How long an operation waits for another process that has locked the file; 2 s by default.
    pub busy_timeout: Duration,
    /// Called for stored spans.
    pub observer: Option<SpanObserver>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            synchronous: Synchronous::default(),
            busy_timeout: Duration::from_secs(2),
            observer: None,
        }
    }
}
