//! A store in a SQLite file: one writer thread that commits in groups, and a few readers beside it.
//!
//! The write-ahead log allows reads during writes. Only this folder knows the connections and the SQL.

mod checkpoint;
mod error;
mod file;
mod limits;
mod migrations;
mod open_file;
mod options;
mod pruning;
mod queries;
mod readers;
mod recent;
mod recent_spans;
mod retention;
mod rollouts;
mod rows;
mod span_texts;
mod spans;
mod statements;
mod store;
mod sweep;
#[cfg(test)]
mod tests;
mod texts;
mod traces;
mod transaction;
mod usage;
mod vacuum;
mod words;
mod work;
mod writer;

pub use options::{SqliteOptions, Synchronous};
pub use store::SqliteStore;
