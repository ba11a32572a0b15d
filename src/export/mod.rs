//! Formats of spans for people and other programs. Pure functions: spans in, text or spans out.
//!
//! It does not print, and does not read the store.

pub mod agent_lightning;
pub mod json;
pub mod model_request;
pub mod text;
pub mod timeline;
