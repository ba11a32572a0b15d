//! Removes secrets from what is about to be stored: header values, URLs, bodies, error texts.
//!
//! The value goes, the name stays. Forwarded bytes are never touched. Redacting twice gives the same as redacting once.
//! A secret that has neither a known name nor a known shape is not recognised: `[redact]` adds names.

mod credential;
mod json;
mod names;
mod prefilter;
mod redactor;
mod span;
#[cfg(test)]
mod tests;

pub(crate) use redactor::RedactSettings;
pub use redactor::Redactor;
