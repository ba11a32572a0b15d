//! The spans of a rollout that tail sampling leaves out, and their counts.

use super::cause::Cause;
use super::counts::{Counts, Key};
use super::essential::is_reward;
use crate::trace::{AttemptId, IdBytes, RolloutId, Span, SpanId, semconv as names};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Spans of one rollout that are to be removed.
pub(crate) struct LeftOutSpans {
    rollout: RolloutId,
    rule: Arc<str>,
    attempts: BTreeMap<AttemptId, (Counts, u64)>,
    numbers: Vec<u64>,
}

impl LeftOutSpans {
    /// None yet, of this rollout, because of this rule.
    pub(crate) fn new(rollout: RolloutId, rule: Arc<str>) -> Self {
        Self { rollout, rule, attempts: BTreeMap::new(), numbers: Vec::new() }
    }

    /// Adds a span with its number in the store, unless it stays: rewards, annotations, and the counts of other spans.
    pub(crate) fn add(&mut self, number: u64, span: &Span) {
        if is_reward(span) || span.attributes.contains_key(names::NOT_STORED_SPANS) {
            return;
        }
        let (counts, last) = self.attempts.entry(span.attempt_id.clone()).or_default();
        counts.add(span);
        *last = number;
        self.numbers.push(number);
    }

    /// Their counts, as a span of each attempt. The same spans give the same ids, so that they are not counted twice if a program
    /// is killed before it has removed them.
    pub(crate) fn counts(&self) -> Vec<Arc<Span>> {
        let counts = self.attempts.iter().filter_map(|(attempt, (counts, last))| {
            let (rollout, attempt) = (self.rollout.clone(), attempt.clone());
            let id = IdBytes::<8>::of(&format!("tail sampling {rollout} {attempt} {last}"));
            let cause = Cause::TailSampling(Arc::clone(&self.rule));
            let mut span = counts.span(&Key { rollout, attempt, cause }, SpanId(id.bytes))?;
            // The spans were read without their long attributes.
            span.attributes.remove(names::NOT_STORED_BYTES);
            Some(Arc::new(span))
        });
        counts.collect()
    }

    /// Their numbers in the store.
    pub(crate) fn into_numbers(self) -> Vec<u64> {
        self.numbers
    }
}
