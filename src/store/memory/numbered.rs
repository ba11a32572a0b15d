//! Reads spans in the order in which they were stored.

use super::state::State;
use crate::store::api::NumberedSpans;
use crate::store::span_query::PAGE_BYTES;
use std::sync::Arc;

impl State {
    /// The spans with a number above `after`, by number.
    pub(super) fn spans_by_number(&self, after: u64, limit: usize) -> NumberedSpans {
        let mut page = NumberedSpans { through: after, newest: self.last_number, ..NumberedSpans::default() };
        let (mut bytes, mut left) = (0, self.spans.range(after.saturating_add(1)..));
        while page.spans.len() < limit && bytes < PAGE_BYTES as u64 {
            let Some((number, span)) = left.next() else {
                page.through = self.last_number.max(after);
                break;
            };
            bytes += span.estimated_bytes();
            page.through = *number;
            page.numbers.push(*number);
            page.spans.push(Arc::clone(span));
        }
        page.removed = page.through - after - page.spans.len() as u64;
        page
    }
}
