//! Spans as JSON, with the fields of Agent Lightning's span type.

use crate::trace::Span;

/// An indented JSON array. Spans always serialize; if one did not, the array would be empty.
pub(crate) fn spans_json(spans: &[Span]) -> String {
    serde_json::to_string_pretty(spans).unwrap_or_else(|_| "[]".to_owned())
}
