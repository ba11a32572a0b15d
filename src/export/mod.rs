//! Formats of spans for people and other programs, and shapes of training data. Pure functions: spans in, text, spans or
//! samples out.
//!
//! It does not print, and does not read the store.

pub(crate) mod agent_lightning;
pub(crate) mod json;
pub(crate) mod model_request;
pub(crate) mod sample;
pub(crate) mod shapes;
pub(crate) mod text;
pub(crate) mod timeline;
