//! Removes secrets from what is about to be stored: header values, URLs, bodies, error texts.
//!
//! The value goes, the name stays. Forwarded bytes are never touched. Redacting twice gives the same as redacting once.
//! A secret that has neither a known name nor a known shape is not recognised: `[redact]` adds names.

mod assignment;
mod credential;
mod events;
mod json;
mod multipart;
mod names;
mod prefilter;
mod prefixes;
mod redactor;
mod span;
#[cfg(test)]
mod tests;
mod words;

pub(crate) use redactor::RedactSettings;
pub use redactor::Redactor;
