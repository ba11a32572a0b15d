//! The spans of an attempt that were counted instead of stored, because of a limit or of sampling, and those that limits of the store
//! have removed.

use crate::trace::{PrunedSpans, Span, Value, semconv as names};
use std::collections::BTreeMap;

/// What is missing from an attempt: a reason of the verdict, and what was found, for each rule that left spans out.
pub(super) fn missing(spans: &[Span]) -> Vec<(&'static str, String)> {
    let mut rules: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for span in spans {
        let count = |name: &str| {
            let count = span.attributes.get(name).and_then(Value::as_int);
            count.and_then(|count| u64::try_from(count).ok())
        };
        let Some(left_out) = count(names::NOT_STORED_SPANS) else { continue };
        let rule = span.attributes.get(names::NOT_STORED_RULE).and_then(Value::as_str).unwrap_or_default();
        let (spans, calls) = rules.entry(rule).or_default();
        *spans = spans.saturating_add(left_out);
        *calls = calls.saturating_add(count(names::NOT_STORED_LLM_CALLS).unwrap_or(0));
    }
    let reasons = rules.into_iter().map(|(rule, (spans, calls))| {
        (name(calls), format!("{spans} spans, {calls} of them LLM calls, were counted and not stored: {rule}"))
    });
    reasons.collect()
}

/// The same about spans that were stored and have been removed.
pub(super) fn pruned(PrunedSpans { spans, llm_calls }: PrunedSpans) -> Option<(&'static str, String)> {
    let detail = || {
        format!(
            "{spans} spans, {llm_calls} of them LLM calls, were removed by the limits of the store: store.retention"
        )
    };
    (spans > 0).then(|| (name(llm_calls), detail()))
}

fn name(llm_calls: u64) -> &'static str {
    if llm_calls > 0 { "llm_calls_not_stored" } else { "spans_not_stored" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn count(rule: &str, spans: u64, calls: u64) -> Span {
        serde_json::from_value(
            json!({"rollout_id": "r", "attempt_id": "a", "sequence_id": 1, "trace_id": "t", "span_id": "s",
            "parent_id": null, "name": "spans_not_stored", "status": {"status_code": "UNSET", "description": null},
            "attributes": {"tracewire.not_stored.rule": rule, "tracewire.not_stored.spans": spans,
                "tracewire.not_stored.llm_calls": calls},
            "events": [], "links": [], "start_time": null, "end_time": null, "context": null, "parent": null,
            "resource": {"attributes": {}, "schema_url": ""}}),
        )
        .unwrap()
    }

    #[test]
    fn counts_of_a_rule_add_up() {
        assert!(missing(&[]).is_empty());
        let found = missing(&[count("a", 2, 0), count("b", 1, 0), count("a", 3, 1)]);
        let expected = [
            ("llm_calls_not_stored", "5 spans, 1 of them LLM calls, were counted and not stored: a".to_owned()),
            ("spans_not_stored", "1 spans, 0 of them LLM calls, were counted and not stored: b".to_owned()),
        ];
        assert_eq!(found, expected);
    }
}
