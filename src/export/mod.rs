//! Spans as people and other programs read them. Pure: spans in, text out.
//!
//! It must not print, and must not read a store.

pub mod agent_lightning;
pub mod json;
pub mod model_request;
pub mod text;
pub mod timeline;
