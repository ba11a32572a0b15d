//! The timeline for terminals.

mod draw;
mod siblings;
mod span_text;
#[cfg(test)]
mod tests;

pub(crate) use draw::{TimelineOptions, line_of, render};
pub(crate) use siblings::Fold;
