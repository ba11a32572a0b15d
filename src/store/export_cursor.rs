//! How far an export has read a store.

use crate::trace::Timestamp;
use serde::{Deserialize, Serialize};

/// The place of an export in a store, and the program that reads for it: of several programs with the same export, one reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExportCursor {
    /// Name of the export.
    pub name: String,
    /// What is up to here has been exported: a number of [`Store::spans_by_number`](super::Store::spans_by_number), or a position
    /// of [`Store::ended_rollouts`](super::Store::ended_rollouts).
    pub position: u64,
    /// The program that reads: an id that it chose at its start.
    pub holder: String,
    /// Until then no other program reads, unless the holder gives the cursor back.
    pub held_until: Timestamp,
}
