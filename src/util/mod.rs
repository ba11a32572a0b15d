//! Small pure helpers that several layers share: patterns and secrets. Nothing here knows HTTP, LLMs or storage.

pub mod glob;
pub mod secret;
