//! Storage of spans, rollouts and attempts: the [`Store`] trait and its implementations in memory, in a SQLite file and in
//! a PostgreSQL server.
//!
//! A store knows nothing about HTTP, exchanges or readers. What it receives has been redacted. `app` chooses the
//! implementation; all other modules use [`SharedStore`].

mod api;
mod attempt_reader;
mod bits;
mod error;
mod export_cursor;
mod extension;
mod externalized;
mod frames;
pub mod memory;
mod orphaned_traces;
mod piece_cache;
mod pieces;
mod planes;
pub mod postgres;
mod pruning;
mod records;
mod retention;
mod selected_rollouts;
mod sequence_file;
mod span_columns;
mod span_pages;
mod span_query;
mod span_record;
mod span_row;
pub mod spool;
mod sql;
pub mod sqlite;
mod usage;
mod words;

pub use api::{
    Appended, BoxFuture, EndedRollouts, NumberedSpans, RolloutCounts, RolloutFilter, RolloutOrder, RolloutPlace,
    RolloutSequenceState, RolloutSummary, SequenceAuthority, SharedStore, SpanOutline, Statistics, Store, UNASSIGNED,
};
pub(crate) use attempt_reader::AttemptReader;
pub use error::{FailedAppend, Result, StoreError};
pub use export_cursor::ExportCursor;
pub use extension::StoreExt;
pub use pruning::{PruneCursor, PruneLimits, PruneRequest, PruneSlice, Pruned, SpanReplacement};
pub use records::{Change, Records, SpanObserver};
pub use retention::Retention;
pub(crate) use selected_rollouts::SelectedRollouts;
pub(crate) use span_pages::SpanPages;
pub use span_query::{SpanContent, SpanPage, SpanPlace, SpanQuery, SpansAt};
pub use usage::{StoreKind, StoreUsage, Vacuum};
pub use words::{FoundRollouts, SpanWords, WordBatch, WordSearch};
