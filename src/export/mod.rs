//! Formats of spans for people and other programs. Pure functions: spans in, text or spans out.
//!
//! It does not print, and does not read the store.

pub(crate) mod agent_lightning;
pub(crate) mod json;
pub(crate) mod model_request;
pub(crate) mod text;
pub(crate) mod timeline;
