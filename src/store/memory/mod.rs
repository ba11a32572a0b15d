//! A store in memory, for tests and for runs without a file.
//!
//! Behaves as the SQLite store, except that its content ends with the process and that a failed transaction is not
//! undone. Bounded only by the retention limits.

mod numbered;
mod outline;
mod pruning;
mod records;
mod state;
mod store;
mod usage;
mod words;

pub use store::MemoryStore;
