//! Formats of spans for people and other programs, and shapes of training data. Pure functions: spans in, and text, spans or
//! training samples out.
//!
//! Nothing here prints or reads the store: the callers in `cli` and `api` do.

pub(crate) mod agent_lightning;
pub(crate) mod json;
pub(crate) mod model_request;
pub(crate) mod sample;
pub(crate) mod shapes;
pub(crate) mod text;
pub(crate) mod timeline;
