//! Traces that have lost their last span, and the spans that may still belong to them.
//!
//! A trace refers to its last span only. When that span goes, the spans of its rollout before it tell whether the trace goes too: few
//! are left, since limits remove the oldest first.

use super::span_row::{StoredSpan, trace_id};
use std::collections::HashMap;

/// A trace of a rollout that no longer has the span that it refers to.
pub(super) struct OrphanedTrace {
    pub(super) id: String,
    pub(super) last_span: i64,
}

/// What becomes of the orphaned traces of a rollout.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// They have no spans.
    pub(super) removed: Vec<String>,
    /// They refer to the span with this number from now on.
    pub(super) kept: Vec<(String, i64)>,
}

/// The spans of a rollout, as far as they were looked at.
#[derive(Default)]
pub(super) struct EarlierSpans {
    /// The highest number for each trace.
    by_trace: HashMap<String, i64>,
    count: usize,
    lowest: Option<i64>,
}

impl EarlierSpans {
    /// Adds one of the spans with the highest numbers, in any order: all, or one more than [`MAX_EARLIER_SPANS`].
    pub(super) fn add(&mut self, number: i64, stored: StoredSpan<'_>) {
        self.count += 1;
        self.lowest = Some(self.lowest.map_or(number, |lowest| lowest.min(number)));
        // A damaged record names no trace.
        if let Ok(id) = trace_id(stored) {
            let last = self.by_trace.entry(id).or_insert(number);
            *last = number.max(*last);
        }
    }

    /// What becomes of traces. A trace that may have spans further back is kept until the lowest one that was looked at goes.
    pub(super) fn settle(&self, traces: Vec<OrphanedTrace>) -> Settled {
        let mut settled = Settled::default();
        let looked_from = self.lowest.filter(|_| self.count > MAX_EARLIER_SPANS);
        for OrphanedTrace { id, last_span } in traces {
            let known = self.by_trace.get(&id).copied().filter(|number| *number < last_span);
            match known.or(looked_from.filter(|number| *number < last_span)) {
                Some(number) => settled.kept.push((id, number)),
                None => settled.removed.push(id),
            }
        }
        settled
    }
}

/// Spans of a rollout that are looked at, so that a rollout with many does not hold the database.
pub(super) const MAX_EARLIER_SPANS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_stays_with_its_spans_or_if_not_all_were_looked_at() {
        let orphaned = |id: &str, last_span| OrphanedTrace { id: id.to_owned(), last_span };
        let traces = || vec![orphaned("a", 9000), orphaned("b", 9000), orphaned("c", 3)];
        let jsons = [r#"{"trace_id":"a"}"#, "damaged"];
        let spans = |count| {
            let mut spans = EarlierSpans::default();
            (0..count).zip(jsons.into_iter().cycle()).for_each(|(at, json)| spans.add(5 + at, StoredSpan::Json(json)));
            spans
        };
        let few = spans(4).settle(traces());
        assert_eq!(few, Settled { removed: vec!["b".to_owned(), "c".to_owned()], kept: vec![("a".to_owned(), 7)] });
        let many = spans(1001).settle(traces());
        let kept = vec![("a".to_owned(), 1005), ("b".to_owned(), 5)];
        assert_eq!(many, Settled { removed: vec!["c".to_owned()], kept });
    }
}
