//! A store in a PostgreSQL server, which several processes can share.
//!
//! Plain SQL without extensions, so that databases with PostgreSQL's protocol work too. Conflicts with transactions of
//! other processes are retried. Only this folder knows the connections and the SQL.

mod append;
mod connections;
mod ended;
mod error;
mod options;
mod parents;
mod pruning;
mod queries;
mod retention;
mod rollouts;
mod rows;
mod schema;
mod settled;
mod spans;
mod statements;
mod statistics;
mod store;
mod texts;
mod traces;
mod transaction;
mod usage;
mod words;

pub use options::{PostgresOptions, WhenUnreachable, without_password};
pub use store::PostgresStore;
