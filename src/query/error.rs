//! Errors of queries, with the place in the text.

use std::fmt;
use std::ops::Range;

/// Why a query can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueryError {
    /// What is wrong, in bytes of the query.
    pub(crate) place: Range<usize>,
    /// What is wrong, and what to write instead.
    pub(crate) message: String,
}

impl QueryError {
    pub(super) fn new(place: Range<usize>, message: impl Into<String>) -> Self {
        Self { place, message: message.into() }
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "at character {}: {}", self.place.start + 1, self.message)
    }
}

impl std::error::Error for QueryError {}
