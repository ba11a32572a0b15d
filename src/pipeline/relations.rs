//! What calls of one attempt have to do with each other: a call that was tried again, a tool that was called and whose
//! result came back in a later request.
//!
//! It remembers a bounded number of calls, the newest. What it does not remember is not said; nothing waits for it.

use super::span::SpanOptions;
use crate::llm::call::LlmCall;
use crate::llm::message::Part;
use crate::trace::exchange::Exchange;
use crate::trace::semconv as names;
use crate::trace::span::{Link, SpanContext};
use crate::trace::{AttemptId, Attributes, RolloutId, Span, SpanId, SpanKind, Status, Timestamp};
use crate::util::lru::{LruCache, lru};
use crate::wire::json::Json;
use std::hash::{BuildHasher, RandomState};

/// The memory of the pipeline.
pub struct Relations {
    hasher: RandomState,
    tools: LruCache<ToolKey, Called>,
    requests: LruCache<RequestKey, Asked>,
}

impl Default for Relations {
    fn default() -> Self {
        Self { hasher: RandomState::new(), tools: lru(MAX_REMEMBERED), requests: lru(MAX_REMEMBERED) }
    }
}

type ToolKey = (RolloutId, AttemptId, String);
type RequestKey = (RolloutId, AttemptId, u64);

/// A tool that a model called.
struct Called {
    by: SpanContext,
    sequence_id: u64,
    at: Option<Timestamp>,
    name: String,
    // As JSON; none if it is too long to keep for a result that may never come.
    arguments: Option<String>,
}

/// A request that was made.
struct Asked {
    by: SpanContext,
    times: u64,
    failed: bool,
}

impl Relations {
    /// Takes note of a call, says on its span what it has to do with others, and gives back the spans of the tools whose
    /// results it brings. `body` is the request's, decoded.
    pub(super) fn observe(
        &mut self,
        span: &mut Span,
        call: &LlmCall,
        body_digest: u64,
        exchange: &Exchange,
        options: &SpanOptions,
    ) -> Vec<Span> {
        self.retries(span, body_digest, exchange);
        let tools = self.answered(span, call, options);
        self.called(span, call, options);
        tools
    }

    /// A number that tells request bodies apart.
    pub(super) fn digest(&self, target: &str, body: &[u8]) -> u64 {
        self.hasher.hash_one((target, body))
    }

    /// The same request once more: an SDK says so, or the one before failed. Sampling a prompt again is no retry.
    fn retries(&mut self, span: &mut Span, body_digest: u64, exchange: &Exchange) {
        let said = exchange.request.headers.get("x-stainless-retry-count");
        let said: Option<u64> = said.and_then(|count| count.to_str().ok()?.parse().ok()).filter(|count| *count > 0);
        let key = (span.rollout_id.clone(), span.attempt_id.clone(), body_digest);
        let before = self.requests.get(&key);
        let is_retry = said.is_some() || before.is_some_and(|before| before.failed);
        let times = before.map_or(0, |before| before.times);
        if is_retry {
            span.set(names::HTTP_REQUEST_RESEND_COUNT, said.unwrap_or(times + 1));
            if let Some(before) = before {
                let attributes = Attributes::from([(names::LINK.to_owned(), "retry_of".into())]);
                span.links.push(Link { context: before.by.clone(), attributes: Some(attributes) });
            }
        }
        let failed =
            span.is_error() || span.attributes.get(names::OUTCOME).and_then(|word| word.as_str()) != Some("complete");
        if let Some(by) = span.context.clone() {
            self.requests.put(key, Asked { by, times: if is_retry { times + 1 } else { 0 }, failed });
        }
    }

    /// Remembers the tools that the answer calls.
    fn called(&mut self, span: &Span, call: &LlmCall, options: &SpanOptions) {
        let Some(by) = &span.context else { return };
        for part in call.choices.iter().flat_map(|choice| &choice.parts) {
            if let Part::ToolCall { id: Some(id), name, arguments } = part
                && id.len().max(name.len()) <= MAX_NAME_BYTES
            {
                let called = Called {
                    by: by.clone(),
                    sequence_id: span.sequence_id,
                    at: span.end_time,
                    name: name.clone(),
                    arguments: text_of(arguments, options).filter(|text| text.len() <= MAX_ARGUMENT_BYTES),
                };
                self.tools.put((span.rollout_id.clone(), span.attempt_id.clone(), id.clone()), called);
            }
        }
    }

    /// The spans of the tools whose results come with this request. Each result is told once: later requests repeat it.
    fn answered(&mut self, span: &Span, call: &LlmCall, options: &SpanOptions) -> Vec<Span> {
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

/// From the end of the call to the start of the request that brings the result: what an agent took for its tool, as far
/// as the wire shows it.
fn tool_span(next: &Span, id: &str, response: &Json<'_>, called: Called, options: &SpanOptions) -> Span {
    let span_id = SpanId::from_random(fastrand::u64(1..)).to_string();
    let mut span = Span {
        rollout_id: next.rollout_id.clone(),
        attempt_id: next.attempt_id.clone(),
        sequence_id: called.sequence_id,
        trace_id: called.by.trace_id.clone(),
        name: options.redactor.text(&format!("execute_tool {}", called.name)).into_owned(),
        kind: SpanKind::Internal,
        status: Status::default(),
        attributes: Attributes::new(),
        events: Vec::new(),
        links: Vec::new(),
        start_time: called.at,
        end_time: next.start_time.max(called.at),
        context: Some(SpanContext { span_id: span_id.clone(), ..called.by.clone() }),
        parent_id: Some(called.by.span_id.clone()),
        parent: Some(called.by),
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

const MAX_REMEMBERED: usize = 16 * 1024;
const MAX_ARGUMENT_BYTES: usize = 16 * 1024;
/// Ids and names beyond it are no tool's.
const MAX_NAME_BYTES: usize = 256;
