//! Exports as Parquet: the columns of each shape that can be a table, and the file. docs/exports.md describes the columns.

mod column;
mod conversations;
mod file;
mod table;
mod trajectories;

pub(crate) use conversations::ConversationTable;
pub(crate) use file::{FileError, ParquetFile};
pub(crate) use table::Table;
pub(crate) use trajectories::TrajectoryTable;
