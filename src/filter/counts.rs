//! What spans that are not stored add up to, and the span that has these counts.

use super::cause::Cause;
use super::essential::is_call;
use crate::trace::span::{Resource, SpanContext};
use crate::trace::{AttemptId, RolloutId, Span, SpanId, SpanKind, Status, Timestamp, TraceId, Value, semconv as names};
use std::collections::BTreeMap;

/// What is counted together: the spans of an attempt that are not stored for one reason.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) rollout: RolloutId,
    pub(super) attempt: AttemptId,
    pub(super) cause: Cause,
}

/// What spans add up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) spans: u64,
    bytes: u64,
    errors: u64,
    llm_calls: u64,
    input_tokens: u64,
    output_tokens: u64,
    /// Trace of the first span: spans of other tracers find their rollout by it.
    trace_id: String,
    /// Of the last span.
    sequence_id: u64,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
}

impl Counts {
    /// Adds a span.
    pub(super) fn add(&mut self, span: &Span) {
        let is_call = is_call(span);
        let tokens = |name: &str| {
            let count = span.attributes.get(name).filter(|_| is_call).and_then(Value::as_int);
            count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
        };
        if self.spans == 0 {
            self.trace_id.clone_from(&span.trace_id);
        }
        self.spans += 1;
        self.bytes = self.bytes.saturating_add(span.estimated_bytes());
        self.errors += u64::from(span.is_error());
        self.llm_calls += u64::from(is_call);
        self.input_tokens = self.input_tokens.saturating_add(tokens(names::GEN_AI_USAGE_INPUT_TOKENS));
        self.output_tokens = self.output_tokens.saturating_add(tokens(names::GEN_AI_USAGE_OUTPUT_TOKENS));
        self.sequence_id = self.sequence_id.max(span.sequence_id);
        self.start = [self.start, span.start_time].into_iter().flatten().min();
        self.end = self.end.max(span.end_time);
    }

    /// The counts as a span of the attempt, with this id. `None` if there are none.
    pub(super) fn span(&self, key: &Key, own: SpanId) -> Option<Span> {
        if self.spans == 0 {
            return None;
        }
        let context = |span_id: SpanId| SpanContext {
            trace_id: self.trace_id.clone(),
            span_id: span_id.to_string(),
            is_remote: false,
            trace_state: BTreeMap::new(),
        };
        let is_own_trace = self.trace_id == TraceId::of_attempt(&key.rollout, &key.attempt).to_string();
        let parent = is_own_trace.then(|| SpanId::of_attempt_root(&key.rollout, &key.attempt));
        let mut resource = Resource { schema_url: names::SCHEMA_URL.to_owned(), ..Resource::default() };
        resource.attributes.insert("service.name".to_owned(), "tracewire".into());
        let mut span = Span {
            rollout_id: key.rollout.clone(),
            attempt_id: key.attempt.clone(),
            sequence_id: self.sequence_id,
            trace_id: self.trace_id.clone(),
            span_id: own.to_string(),
            parent_id: parent.map(|parent| parent.to_string()),
            name: "spans_not_stored".to_owned(),
            kind: Some(SpanKind::Internal),
            status: Status::default(),
            attributes: BTreeMap::new(),
            events: Vec::new(),
            links: Vec::new(),
            start_time: self.start,
            end_time: self.end,
            context: Some(context(own)),
            parent: parent.map(context),
            resource,
        };
        span.set(names::NOT_STORED_REASON, key.cause.reason());
        span.set(names::NOT_STORED_RULE, key.cause.rule());
        for (name, count) in [
            (names::NOT_STORED_SPANS, self.spans),
            (names::NOT_STORED_BYTES, self.bytes),
            (names::NOT_STORED_ERRORS, self.errors),
            (names::NOT_STORED_LLM_CALLS, self.llm_calls),
            (names::NOT_STORED_INPUT_TOKENS, self.input_tokens),
            (names::NOT_STORED_OUTPUT_TOKENS, self.output_tokens),
        ] {
            span.set(name, count);
        }
        Some(span)
    }
}
