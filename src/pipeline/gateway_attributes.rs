//! What the gateway did with a call, as attributes of its span.

use crate::llm::call::LlmCall;
use crate::trace::exchange::{Exchange, GatewayFacts};
use crate::trace::semconv as names;
use crate::trace::span::{Link, SpanContext};
use crate::trace::{Attributes, Span, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// Adds what the gateway did.
pub(super) fn describe(span: &mut Span, exchange: &Exchange, redact: impl Fn(&str) -> String) {
    let Some(facts) = &exchange.gateway else { return };
    span.set_some(names::GATEWAY_BACKEND, facts.backend.as_deref().map(&redact));
    span.set_some(names::GATEWAY_CALLED, facts.called.as_deref().map(&redact));
    span.set_some(names::GATEWAY_REQUESTED_MODEL, facts.requested_model.as_deref().map(&redact));
    span.set_some(names::GATEWAY_MODE, facts.mode.clone());
    span.set_some(names::GATEWAY_TRANSLATED_FROM, facts.translated_from);
    span.set_some(names::GATEWAY_DROPPED, (!facts.dropped.is_empty()).then(|| facts.dropped.clone()));
    span.set_some(names::GATEWAY_BILLING_LINE, facts.billing_line.as_deref().map(&redact));
    span.set_some(names::HTTP_REQUEST_RESEND_COUNT, (facts.resend_count > 0).then_some(facts.resend_count));
    if facts.paused_for > Duration::ZERO {
        span.set(names::GATEWAY_HELD_MS, facts.paused_for.as_secs_f64() * 1000.0);
    }
    span.set_some(names::POLICY_STALENESS, facts.staleness);
    span.set_some(names::GATEWAY_VERSION, facts.versions.first().map(|start| start.version.to_string()));
    // The version that was registered. If the response reports one, that replaces it.
    span.set_some(names::POLICY_VERSION, facts.versions.last().map(|start| start.version.to_string()));
    if let Some(earlier) = facts.joined {
        span.set(names::GATEWAY_JOINED, if earlier.was_in_flight { "in_flight" } else { "stored" });
        let context = SpanContext {
            trace_id: span.trace_id.clone(),
            span_id: earlier.span_id.to_string(),
            is_remote: false,
            trace_state: BTreeMap::default(),
        };
        let attributes = Attributes::from([(names::LINK.to_owned(), "retry".into())]);
        span.links.push(Link { context, attributes: Some(attributes) });
    }
}

/// Adds the policy versions that answered, and at which token of the first choice each started, unless the engine
/// reported them. `progress` has the end of each event in the recorded body, `counts` the tokens known by then.
pub(super) fn versions(
    span: &mut Span,
    facts: &GatewayFacts,
    call: &LlmCall,
    (progress, counts): (&[usize], &[usize]),
) {
    if !call.weight_versions.is_empty() || facts.versions.len() < 2 {
        return;
    }
    let versions: Vec<String> = facts.versions.iter().map(|start| start.version.to_string()).collect();
    span.set(names::POLICY_VERSIONS, versions);
    let total = call.choices.first().map_or(0, |choice| choice.tokens.count());
    // Ids that arrive all at once at the end do not show when they were sampled.
    let counts_grow = total > 0 && counts.first().is_some_and(|first| *first < total);
    if counts_grow && progress.len() == counts.len() {
        let start_of = |from: usize| {
            // The tokens of all events that had ended when the version started.
            let ended = progress.partition_point(|end| *end <= from);
            let known = ended.checked_sub(1).and_then(|last| counts.get(last)).copied().unwrap_or_default();
            i64::try_from(known).unwrap_or(i64::MAX)
        };
        let starts = facts.versions.iter().map(|start| start_of(start.from)).collect();
        span.attributes.insert(names::POLICY_VERSION_STARTS.to_owned(), Value::Ints(starts));
    }
}
