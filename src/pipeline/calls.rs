//! The call of a model or tool in an exchange: read by its format, written on its span, related to other calls.
//!
//! A format that panics on its input costs the call, never the span.

use super::call_attributes::describe;
use super::observed::{EngineObservation, ObservedCall};
use super::options::SpanOptions;
use super::relations::Relations;
use crate::llm::call::{LlmCall, UnreadPart};
use crate::llm::engine::Engine;
use crate::llm::formats::{self, HttpExchangeView};
use crate::llm::token_ids::is_rejection;
use crate::trace::exchange::Exchange;
use crate::trace::{Span, semconv as names};
use crate::wire::encoding::Decoded;
use crate::wire::traceparent::TraceParent;
use http::HeaderMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Writes the call onto `span`, if the exchange is one. Returns what was observed, and the spans of the tools whose
/// results the request carries.
pub(super) fn read_into(
    span: &mut Span,
    exchange: &Exchange,
    (request, response): (&Decoded, &Decoded),
    relations: &mut Relations,
    options: &SpanOptions,
) -> Option<(ObservedCall, Vec<Span>)> {
    let read = read_safely(span, exchange, request, response)?;
    let (call, token_id_issues) = describe(span, read, exchange, options);
    join_callers_trace(span, &call, exchange);
    let observed = ObservedCall {
        rollout_id: span.rollout_id.clone(),
        span_name: span.name.clone(),
        response: call.response_id.as_ref().and_then(|id| Some((id.clone(), span.context.clone()?))),
        used_tokens: exchange.gateway.is_some().then(|| used_tokens(&call)),
        engine: engine_observation(&call, exchange, &response.bytes),
        token_id_issues,
    };
    let digest = relations.digest(&exchange.request.target, &request.bytes);
    let tools = relations.observe(span, &call, digest, exchange, options);
    Some((observed, tools))
}

/// The usage that the response reports, else the number of its token ids.
fn used_tokens(call: &LlmCall) -> u64 {
    let reported = call.usage.input.unwrap_or_default() + call.usage.output.unwrap_or_default();
    let reported = u64::try_from(reported).ok().filter(|reported| *reported > 0);
    let sampled = || call.choices.iter().map(|choice| choice.tokens.count() as u64).sum::<u64>();
    reported.unwrap_or_else(|| call.prompt_ids.count() as u64 + sampled())
}

/// MCP carries `traceparent` in the body. It names the span's parent if the header did not.
fn join_callers_trace(span: &mut Span, call: &LlmCall, exchange: &Exchange) {
    let caller = call.traceparent.as_deref().and_then(TraceParent::parse);
    let Some(caller) = caller.filter(|_| !exchange.trace.parent_is_remote) else { return };
    let (trace_id, parent_id) = (caller.trace_id.to_string(), caller.span_id.to_string());
    if let Some(context) = &mut span.context {
        context.trace_id.clone_from(&trace_id);
    }
    if let Some(parent) = &mut span.parent {
        (parent.trace_id, parent.span_id, parent.is_remote) = (trace_id.clone(), parent_id.clone(), true);
    }
    (span.trace_id, span.parent_id) = (trace_id, Some(parent_id));
}

/// An error counts as a rejection of the added fields only if it names one: a request may be bad for other reasons.
fn engine_observation(call: &LlmCall, exchange: &Exchange, response: &[u8]) -> Option<EngineObservation> {
    let status = exchange.response.as_ref().map_or(0, |response| response.status.as_u16());
    let is_rejected = is_rejection(status, response, &exchange.injection.fields);
    let engine = Engine::of_provider(&call.provider).filter(|_| !is_rejected);
    (is_rejected || engine.is_some()).then(|| EngineObservation {
        host: exchange.request.host.clone(),
        port: exchange.request.port,
        engine,
    })
}

fn read_safely(
    span: &mut Span,
    exchange: &Exchange,
    request: &Decoded,
    response: &Decoded,
) -> Option<formats::ReadCall> {
    let read = catch_unwind(AssertUnwindSafe(|| read_call(exchange, request, response)));
    read.unwrap_or_else(|_| {
        tracing::error!(host = exchange.request.host, "a call could not be read; its span describes the exchange only");
        span.set(names::LLM_UNREAD, vec![UnreadPart::Fault.as_str().to_owned()]);
        None
    })
}

fn read_call(exchange: &Exchange, request: &Decoded, response: &Decoded) -> Option<formats::ReadCall> {
    if request.bytes.is_empty() {
        return None;
    }
    let no_headers = HeaderMap::new();
    let head = &exchange.request;
    formats::read(&HttpExchangeView {
        host: &head.host,
        port: head.port,
        target: &head.target,
        request_headers: &head.headers,
        request_body: &request.bytes,
        status: exchange.response.as_ref().map(|response| response.status.as_u16()),
        response_headers: exchange.response.as_ref().map_or(&no_headers, |response| &response.headers),
        response_body: &response.bytes,
    })
}
