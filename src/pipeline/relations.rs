//! Relations between the calls of an attempt: a call that was retried, a tool that was called and its result in a later
//! request.
//!
//! Bounded: the least recently used calls are forgotten, and their relations are not recorded.

use super::callers::Callers;
use super::options::SpanOptions;
use crate::llm::call::LlmCall;
use crate::llm::message::Part;
use crate::trace::exchange::{Exchange, Outcome};
use crate::trace::semconv as names;
use crate::trace::span::{Link, SpanContext};
use crate::trace::{AttemptId, Attributes, RolloutId, Span, SpanId, SpanKind, Status, Timestamp};
use crate::util::lru::{LruCache, lru};
use crate::wire::json::Json;
use std::hash::{BuildHasher, RandomState};

/// Earlier calls, for the spans of later ones.
pub struct Relations {
    hasher: RandomState,
    tools: LruCache<ToolKey, ToolCall>,
    requests: LruCache<RequestKey, EarlierRequest>,
    callers: Callers,
}

impl Default for Relations {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            tools: lru(MAX_CALLS),
            requests: lru(MAX_CALLS),
            callers: Callers::default(),
        }
    }
}

type ToolKey = (RolloutId, AttemptId, String);
type RequestKey = (RolloutId, AttemptId, u64);

/// A tool that a model called.
struct ToolCall {
    // The span of the model's call.
    span: SpanContext,
    sequence_id: u64,
    at: Option<Timestamp>,
    name: String,
    // Redacted JSON. None if it is longer than `MAX_ARGUMENT_BYTES`: the result may never come.
    arguments: Option<String>,
}

/// A request that an agent sent.
struct EarlierRequest {
    span: SpanContext,
    // How many times it had been sent before.
    resend_count: u64,
    failed: bool,
}

impl Relations {
    /// Notes a call, adds its relations to its span, and returns the spans of the tools that have a result in its
    /// request.
    pub(super) fn observe(
        &mut self,
        span: &mut Span,
        call: &LlmCall,
        body_digest: u64,
        exchange: &Exchange,
        options: &SpanOptions,
    ) -> Vec<Span> {
        self.callers.describe(span, call, exchange, options);
        self.add_retry(span, body_digest, exchange);
        let tools = self.tool_results(span, call, options);
        self.note_tool_calls(span, call, options);
        tools
    }

    /// A digest of a decoded request body. It is only comparable within this process.
    pub(super) fn digest(&self, target: &str, body: &[u8]) -> u64 {
        self.hasher.hash_one((target, body))
    }

    /// Marks a retry: the SDK says that it is one, or the same request failed before. Sampling a prompt again is none.
    fn add_retry(&mut self, span: &mut Span, body_digest: u64, exchange: &Exchange) {
        let header = exchange.request.headers.get("x-stainless-retry-count");
        let reported: Option<u64> =
            header.and_then(|count| count.to_str().ok()?.parse().ok()).filter(|count| *count > 0);
        let key = (span.rollout_id.clone(), span.attempt_id.clone(), body_digest);
        let before = self.requests.get(&key);
        let is_retry = reported.is_some() || before.is_some_and(|before| before.failed);
        let resend_count = before.map_or(0, |before| before.resend_count);
        if is_retry {
            span.set(names::HTTP_REQUEST_RESEND_COUNT, reported.unwrap_or(resend_count + 1));
            if let Some(before) = before {
                let attributes = Attributes::from([(names::LINK.to_owned(), "retry_of".into())]);
                span.links.push(Link { context: before.span.clone(), attributes: Some(attributes) });
            }
        }
        let failed = span.is_error() || !matches!(exchange.outcome, Outcome::Complete);
        if let Some(span) = span.context.clone() {
            let resend_count = if is_retry { resend_count + 1 } else { 0 };
            self.requests.put(key, EarlierRequest { span, resend_count, failed });
        }
    }

    /// Notes the tools that the response calls.
    fn note_tool_calls(&mut self, span: &Span, call: &LlmCall, options: &SpanOptions) {
        let Some(context) = &span.context else { return };
        for part in call.choices.iter().flat_map(|choice| &choice.parts) {
            if let Part::ToolCall { id: Some(id), name, arguments } = part
                && id.len().max(name.len()) <= MAX_NAME_BYTES
            {
                let called = ToolCall {
                    span: context.clone(),
                    sequence_id: span.sequence_id,
                    at: span.end_time,
                    name: name.clone(),
                    arguments: text_of(arguments, options).filter(|text| text.len() <= MAX_ARGUMENT_BYTES),
                };
                self.tools.put((span.rollout_id.clone(), span.attempt_id.clone(), id.clone()), called);
            }
        }
    }

    /// The spans of the tools that have a result in the request. Later requests repeat a result; it counts once.
    fn tool_results(&mut self, span: &Span, call: &LlmCall, options: &SpanOptions) -> Vec<Span> {
        let mut tools = Vec::new();
        for part in call.input.iter().flat_map(|message| &message.parts) {
            if let Part::ToolCallResponse { id: Some(id), response } = part
                && let key = (span.rollout_id.clone(), span.attempt_id.clone(), id.clone())
                && let Some(called) = self.tools.pop(&key)
            {
                tools.push(tool_span(span, id, response, called, options));
            }
        }
        tools
    }
}

/// The span of a tool: from the end of the call that asked for it to the start of the request with its result, which is
/// what the wire shows of the time that the tool took.
fn tool_span(next: &Span, id: &str, response: &Json<'_>, called: ToolCall, options: &SpanOptions) -> Span {
    let span_id = SpanId::from_random(fastrand::u64(1..)).to_string();
    let mut span = Span {
        rollout_id: next.rollout_id.clone(),
        attempt_id: next.attempt_id.clone(),
        sequence_id: called.sequence_id,
        trace_id: called.span.trace_id.clone(),
        name: options.redactor.text(&format!("execute_tool {}", called.name)).into_owned(),
        kind: Some(SpanKind::Internal),
        status: Status::default(),
        attributes: Attributes::new(),
        events: Vec::new(),
        links: Vec::new(),
        start_time: called.at,
        end_time: next.start_time.max(called.at),
        context: Some(SpanContext { span_id: span_id.clone(), ..called.span.clone() }),
        parent_id: Some(called.span.span_id.clone()),
        parent: Some(called.span),
        span_id,
        resource: next.resource.clone(),
    };
    span.set(names::GEN_AI_OPERATION_NAME, "execute_tool");
    span.set(names::GEN_AI_TOOL_NAME, options.redactor.text(&called.name).into_owned());
    span.set(names::GEN_AI_TOOL_CALL_ID, options.redactor.text(id).into_owned());
    span.set(names::INFERRED, true);
    span.set_some(names::GEN_AI_TOOL_CALL_ARGUMENTS, called.arguments);
    span.set_some(names::GEN_AI_TOOL_CALL_RESULT, text_of(response, options));
    span
}

/// A value as redacted JSON, if content is recorded.
fn text_of(json: &Json<'_>, options: &SpanOptions) -> Option<String> {
    let json = Some(json).filter(|json| options.llm_content && !json.is_null())?;
    let text = serde_json::to_string(json).ok()?;
    Some(options.redactor.body(Some("application/json"), "", &text).into_owned())
}

const MAX_CALLS: usize = 16 * 1024;
const MAX_ARGUMENT_BYTES: usize = 16 * 1024;
/// Longer ids and names are ignored.
const MAX_NAME_BYTES: usize = 256;
