//! What the columns of a row say of its span, and what identifies a span.

use crate::trace::{AttemptId, RolloutId, Span, Timestamp};

/// What identifies a span within a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SpanKey {
    pub(super) rollout_id: RolloutId,
    pub(super) attempt_id: AttemptId,
    pub(super) span_id: String,
}

impl SpanKey {
    pub(super) fn of(span: &Span) -> Self {
        Self { rollout_id: span.rollout_id.clone(), attempt_id: span.attempt_id.clone(), span_id: span.span_id.clone() }
    }
}

/// What a row has of a span besides its record.
#[derive(Clone)]
pub(super) struct RowColumns {
    pub(super) key: SpanKey,
    pub(super) sequence_id: u64,
    pub(super) start_time: Option<Timestamp>,
    pub(super) end_time: Option<Timestamp>,
}
