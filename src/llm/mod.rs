//! All knowledge about LLM APIs, engines and clients. Pure: no I/O, no clock, no locks.
//!
//! - [`formats`]: one file per API; parses requests and responses into an [`call::LlmCall`]
//! - [`token_ids`]: validation of token ids, logprobs and versions
//! - [`translate`]: conversion between APIs
//! - [`provider`]: which service answers

pub(crate) mod api;
pub mod call;
pub mod clients;
pub mod engine;
pub mod formats;
mod json_object;
pub mod message;
pub(crate) mod operation;
mod provider;
pub(crate) mod recorded;
pub mod token_ids;
pub mod translate;
