//! The call of a model or tool that an exchange was: read by its format, written on its span, related to others.
//!
//! A format that fails on its input costs the call, never the span.

use super::llm::describe;
use super::relations::Relations;
use super::span::SpanOptions;
use crate::llm::call::LlmCall;
use crate::llm::engine::Engine;
use crate::llm::formats::{self, HttpExchangeView};
use crate::llm::token_ids::TokenIdIssue;
use crate::trace::exchange::Exchange;
use crate::trace::{Span, semconv as names};
use crate::wire::encoding::Decoded;
use crate::wire::traceparent::TraceParent;
use http::{HeaderMap, header};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Writes the call onto `span`, if there is one; gives back the spans of the tools whose results it brings, and what
/// speaks against its token ids.
pub(super) fn read_into(
    span: &mut Span,
    exchange: &Exchange,
    (asked, said): (&Decoded, &Decoded),
    relations: &mut Relations,
    options: &SpanOptions,
) -> Option<(Vec<Span>, Vec<BTreeSet<TokenIdIssue>>)> {
    let read = read_safely(span, exchange, asked, said)?;
    let coded = |fields: &HeaderMap| fields.contains_key(header::CONTENT_ENCODING);
    let offsets_hold = !exchange.response.as_ref().is_some_and(|response| coded(&response.headers));
    let (call, faults) = describe(span, read, exchange, offsets_hold, options);
    notice(&call, exchange, &said.bytes, options);
    join(span, &call, exchange);
    if exchange.gateway.is_some() {
        let usage = call.usage.input.unwrap_or_default() + call.usage.output.unwrap_or_default();
        let counted = call.choices.iter().map(|choice| choice.tokens.count() as u64).sum::<u64>();
        let prompt = call.prompt_ids.count() as u64;
        options
            .spent
            .add(&span.rollout_id, u64::try_from(usage).ok().filter(|usage| *usage > 0).unwrap_or(prompt + counted));
    }
    if let (Some(id), Some(context)) = (&call.response_id, &span.context) {
        options.calls.saw(&span.rollout_id, id, context);
    }
    let digest = relations.digest(&exchange.request.target, &asked.bytes);
    Some((relations.observe(span, &call, digest, exchange, options), vec![faults]))
}

/// MCP carries the caller's place in its trace in the body; where the header has none, it is the span's parent.
fn join(span: &mut Span, call: &LlmCall, exchange: &Exchange) {
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

/// Takes note of what serves there, or that it refuses what was added. A refusal names the field: a request may be bad
/// for other reasons.
fn notice(call: &LlmCall, exchange: &Exchange, answer: &[u8], options: &SpanOptions) {
    let (host, port) = (&exchange.request.host, exchange.request.port);
    let status = exchange.response.as_ref().map_or(0, |response| response.status.as_u16());
    let named = |field: &&str| memchr::memmem::find(answer, field.as_bytes()).is_some();
    if matches!(status, 400 | 422) && exchange.injection.fields.iter().any(named) {
        options.engines.refused(host, port);
    } else if let Some(engine) = Engine::of_provider(&call.provider) {
        options.engines.saw(host, port, engine);
    }
}

/// As `read_call`; a format that fails on its input costs the call, never the span.
fn read_safely(span: &mut Span, exchange: &Exchange, asked: &Decoded, said: &Decoded) -> Option<formats::Read> {
    let read = catch_unwind(AssertUnwindSafe(|| read_call(exchange, asked, said)));
    read.unwrap_or_else(|_| {
        tracing::error!(host = exchange.request.host, "a call could not be read; its span tells the exchange alone");
        span.set(names::LLM_UNREAD, vec!["fault".to_owned()]);
        None
    })
}

/// The call of a model or tool that an exchange was, if it was one.
fn read_call(exchange: &Exchange, asked: &Decoded, said: &Decoded) -> Option<formats::Read> {
    if asked.bytes.is_empty() {
        return None;
    }
    let none = HeaderMap::new();
    let request = &exchange.request;
    formats::read(&HttpExchangeView {
        host: &request.host,
        port: request.port,
        target: &request.target,
        request_headers: &request.headers,
        request_body: &asked.bytes,
        status: exchange.response.as_ref().map(|response| response.status.as_u16()),
        response_headers: exchange.response.as_ref().map_or(&none, |response| &response.headers),
        response_body: &said.bytes,
    })
}
