//! Formats of spans for people and other programs, and shapes of training data. Pure functions: spans in, and text, spans,
//! training samples or the bytes of a file out.
//!
//! Nothing here prints or reads the store: the callers in `cli` and `api` do.

pub(crate) mod agent_lightning;
mod conversation;
pub(crate) mod format;
pub(crate) mod json;
pub(crate) mod model_request;
mod parquet;
pub(crate) mod sample;
pub(crate) mod shapes;
pub(crate) mod spans;
pub(crate) mod stream;
pub(crate) mod text;
pub(crate) mod timeline;
pub(crate) mod tokenizer;
pub(crate) mod triplet;
