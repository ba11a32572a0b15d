//! A file in which spans wait while the server of a store can't take them.
//!
//! Spans in the file are committed to this machine's disk, and follow when the server takes them again, also after a
//! restart. The file is bounded; when it is full, appends fail. Reads and changes go to the server only, and fail while it
//! is away.

mod drain;
mod file;
mod store;

pub use store::SpooledStore;
