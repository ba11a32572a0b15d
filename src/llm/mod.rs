//! All knowledge about LLM APIs, engines and clients. Pure: no I/O, no clock, no locks.
//!
//! - [`api`]: which requests are calls, of which API; how its streams end, how its errors look. One row an API
//! - [`engine`]: how each engine is detected, asked for token ids, probed. One file and one row an engine
//! - [`formats`]: reads requests and responses into an [`call::LlmCall`]. One file an API
//! - [`token_ids`]: requesting token ids, taking them out of responses again, checking them
//! - [`translate`]: other APIs to OpenAI's chat completions, and back
//! - [`provider`]: which service answers
//! - [`clients`]: what agents say about themselves. One row a client. [`call_role`]: what a request shows of its purpose
//! - [`recorded`]: which recorded spans are calls
//!
//! The hot path uses only functions that cost the same for a frame of any size: those of [`api`] except
//! [`api::detect::detect`], the rows of [`engine`], and [`token_ids`] for the requests and responses that it changes.
//!
//! # How to add an API
//!
//! 1. `formats/NAME.rs`: implement [`formats::format::ApiFormat`] for a unit struct, and name the file in
//!    `formats/mod.rs`.
//! 2. `api/table.rs`: add a row, and list it in `ALL`. Of the rows that fit a request the first counts, so a row with
//!    more precise fields goes before one with fewer.
//! 3. `tests/golden/NAME/CASE/`: `request.http` and `response.http`; `UPDATE_GOLDEN=1` writes `span.json`.
//!
//! # How to add an engine
//!
//! 1. `engine/NAME.rs`: a row, with what differs from `spec::COMMON`; name the file in `engine/mod.rs`.
//! 2. `engine/table.rs`: list the row in `ALL`. Settings then take its name, and responses are searched for its marks.
//!
//! If the engine has an API of its own, add that as well, and list it in the engine's `apis`.

pub(crate) mod api;
pub(crate) mod call;
pub(crate) mod call_role;
pub mod clients;
pub(crate) mod engine;
pub(crate) mod formats;
mod json_object;
pub(crate) mod message;
pub(crate) mod operation;
pub(crate) mod provider;
pub(crate) mod recorded;
pub(crate) mod token_ids;
pub(crate) mod translate;
mod unread_part;
pub(crate) mod usage;
