//! The commands of the writer, and their results.

use super::error::CommandError;
use super::options::SqliteOptions;
use super::pruning::prune_slice;
use super::recent::Recent;
use super::statements::{PackedRow, append, next_sequences};
use super::transaction::{self, Changed};
use super::words;
use crate::store::api::{Appended, RolloutSequenceState};
use crate::store::pruning::{PruneCursor, PruneRequest, PruneSlice};
use crate::store::records::Change;
use crate::store::words::WordBatch;
use crate::trace::RolloutId;
use rusqlite::Connection;
use std::path::Path;
use std::time::SystemTime;

/// A command of the writer.
pub(super) enum Work {
    /// Spans, encoded by the caller: compression takes longer than all writes.
    Append(Vec<PackedRow>),
    Change(Change),
    NextSequences(RolloutId, u64, u64),
    /// A slice of a prune.
    Prune(PruneRequest, PruneCursor),
    AddWords(WordBatch),
}

/// The result of a command, of the same kind as its [`Work`].
pub(super) enum Outcome {
    Appended(Appended),
    Changed(Changed),
    Sequence(RolloutSequenceState),
    Pruned(PruneSlice),
    WordsAdded,
}

impl Outcome {
    /// What the write-ahead log has to do before the caller gets the outcome.
    pub(super) fn needs_of_log(&self) -> LogNeed {
        match self {
            Self::Changed(changed) if changed.has_removed => LogNeed::Erasure,
            Self::Pruned(PruneSlice { next: Some(_), .. }) => LogNeed::Checkpoint,
            Self::Pruned(slice) if slice.has_removed => LogNeed::Erasure,
            Self::Changed(_) | Self::Pruned(_) | Self::Appended(_) | Self::Sequence(_) | Self::WordsAdded => {
                LogNeed::Nothing
            }
        }
    }
}

/// What a command needs of the write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogNeed {
    Nothing,
    /// Its pages are copied into the file, so that the log does not grow with each slice.
    Checkpoint,
    /// Removed content is erased from it.
    Erasure,
}

pub(super) type CommandResult = Result<Outcome, CommandError>;

impl Work {
    /// About the size that it adds to the file.
    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Self::Append(rows) => rows.iter().map(PackedRow::size_bytes).sum(),
            Self::AddWords(batch) => batch.spans.iter().map(|span| span.words.len() * WORD_BYTES).sum(),
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
        recent: &Recent,
    ) -> CommandResult {
        match self {
            Self::Append(rows) => {
                let appended = append(connection, std::slice::from_ref(&rows), recent, options.observer)?;
                Ok(Outcome::Appended(appended.into_iter().next().unwrap_or_default()))
            }
            Self::Change(change) => transaction::run(connection, path, change).map(Outcome::Changed),
            Self::NextSequences(id, above, count) => {
                Ok(Outcome::Sequence(next_sequences(connection, &id, above, count)?))
            }
            Self::Prune(request, from) => {
                let slice =
                    prune_slice(connection, &request, from, options.retention, recent, SystemTime::now().into())?;
                Ok(Outcome::Pruned(slice))
            }
            Self::AddWords(batch) => Ok(words::add(connection, &batch).map(|()| Outcome::WordsAdded)?),
        }
    }
}

/// What a word of a message takes in the index.
const WORD_BYTES: usize = 4;
