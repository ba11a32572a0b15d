//! What a store takes on disk, for those who look after it.

use crate::trace::Timestamp;
use serde::Serialize;

/// What a store takes on disk, and the span of time that it covers. Reading it takes about as long for a large store as for a small
/// one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StoreUsage {
    /// Where the data is.
    pub kind: StoreKind,
    /// Version of the tables. `None` in memory, which has none.
    pub schema_version: Option<u64>,
    /// When the span that ended first has ended. `None` without spans.
    pub oldest_span: Option<Timestamp>,
    /// When the span that ended last has ended.
    pub newest_span: Option<Timestamp>,
    /// Of SQLite the size of the file; of PostgreSQL that of the tables with their indexes; of memory an estimate.
    pub database_bytes: u64,
    /// The part of the file that holds nothing and is used again. `None` where that is not known.
    pub unused_bytes: Option<u64>,
    /// Size of the write-ahead log. That of a PostgreSQL server belongs to all its databases: `None`.
    pub log_bytes: Option<u64>,
    /// Number of the pieces of long texts, each stored once for all spans that have it. `None` where nothing counts them.
    pub pieces: Option<u64>,
    /// Size of these pieces, compressed. It is a part of `database_bytes`; of PostgreSQL, the table of pieces with its indexes.
    pub piece_bytes: Option<u64>,
    /// Size of the files in which spans wait for a PostgreSQL server. `None` if the store has no spool.
    pub spool_bytes: Option<u64>,
}

impl StoreUsage {
    /// What the store takes in all.
    pub fn total_bytes(&self) -> u64 {
        self.database_bytes + self.log_bytes.unwrap_or_default() + self.spool_bytes.unwrap_or_default()
    }
}

/// Where a store keeps its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// In the memory of the process.
    #[default]
    Memory,
    /// In a SQLite file.
    Sqlite,
    /// In a PostgreSQL server.
    Postgresql,
}

/// How much space [`Store::vacuum`](super::Store::vacuum) gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vacuum {
    /// What is known to be unused. Other programs hardly notice it.
    Unused,
    /// All that a rewrite saves. It needs free disk for the rewritten data; writes of others wait, and in PostgreSQL also reads.
    Full,
}
