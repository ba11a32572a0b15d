//! Spans as JSON, in Agent Lightning's shape.

use crate::trace::Span;

/// An array, indented. Spans always serialise; an empty array stands for the impossible.
pub fn spans_json(spans: &[Span]) -> String {
    serde_json::to_string_pretty(spans).unwrap_or_else(|_| "[]".to_owned())
}
