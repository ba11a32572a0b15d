//! The commands of the writer, and their results.

use super::error::CommandError;
use super::options::SqliteOptions;
use super::retention::prune;
use super::statements::{PackedRow, append, next_sequence};
use super::texts::RecentTexts;
use super::transaction::{self, Changed};
use crate::store::api::{Appended, Pruned, RolloutSequenceState};
use crate::store::records::Change;
use crate::trace::RolloutId;
use rusqlite::Connection;
use std::path::Path;
use std::time::SystemTime;

/// A command of the writer.
pub(super) enum Work {
    /// Spans, encoded by the caller: compression takes longer than all writes.
    Append(Vec<PackedRow>),
    Change(Change),
    NextSequence(RolloutId, u64),
    /// Apply the retention limits.
    Prune,
}

/// The result of a command, of the same kind as its [`Work`].
pub(super) enum Outcome {
    Appended(Appended),
    Changed(Changed),
    Sequence(RolloutSequenceState),
    Pruned(Pruned),
}

impl Outcome {
    /// True if content was removed, which has to be erased from the write-ahead log too.
    pub(super) fn has_removed(&self) -> bool {
        match self {
            Self::Changed(changed) => changed.has_removed,
            Self::Pruned(pruned) => pruned.spans > 0,
            Self::Appended(_) | Self::Sequence(_) => false,
        }
    }
}

pub(super) type CommandResult = Result<Outcome, CommandError>;

impl Work {
    /// About the size that its spans add to the file.
    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Self::Append(rows) => rows.iter().map(PackedRow::size_bytes).sum(),
            _ => 0,
        }
    }

    /// The spans to append. `None` for other commands.
    pub(super) fn into_rows(self) -> Option<Vec<PackedRow>> {
        if let Self::Append(rows) = self { Some(rows) } else { None }
    }

    pub(super) fn run(
        self,
        connection: &Connection,
        path: &Path,
        options: &SqliteOptions,
        recent: &RecentTexts,
    ) -> CommandResult {
        match self {
            Self::Append(rows) => {
                let appended = append(connection, std::slice::from_ref(&rows), recent, options.observer)?;
                Ok(Outcome::Appended(appended.into_iter().next().unwrap_or_default()))
            }
            Self::Change(change) => transaction::run(connection, path, change).map(Outcome::Changed),
            Self::NextSequence(id, above) => Ok(Outcome::Sequence(next_sequence(connection, &id, above)?)),
            Self::Prune => Ok(Outcome::Pruned(prune(connection, options.retention, SystemTime::now().into())?)),
        }
    }
}
