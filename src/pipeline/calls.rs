//! The call of a model or tool in an exchange: read by its format, written on its span, related to other calls.
//!
//! A format that panics on its input costs the call, never the span.

use super::body::ResponseContent;
use super::call_attributes::describe;
use super::observed::{EngineObservation, ObservedCall};
use super::options::SpanOptions;
use super::relations::Relations;
use crate::llm::api::ApiCall;
use crate::llm::call::{LlmCall, UnreadPart};
use crate::llm::engine::Engine;
use crate::llm::formats::{self, HttpExchangeView, ResponseSource};
use crate::trace::exchange::Exchange;
use crate::trace::{SamplerArrays, Span, SpanKind, semconv as names};
use crate::util::panics::{Panicked, catch};
use crate::wire::encoding::Decoded;
use crate::wire::traceparent::TraceParent;
use http::{HeaderMap, Method};

/// Writes the call onto `span`, if the exchange is one. Returns what was observed, and the spans of the tools that
/// have a result in the request.
pub(super) fn read_into(
    span: &mut Span,
    exchange: &Exchange,
    (request, response): (&Decoded, ResponseContent),
    relations: &mut Relations,
    options: &SpanOptions,
) -> Option<(ObservedCall, Vec<Span>)> {
    let Some(read) = read_safely(span, exchange, request, response, options.sampler_arrays) else {
        name_refused(span, exchange);
        return None;
    };
    let (call, token_id_issues) = describe(span, read, exchange, options);
    join_callers_trace(span, &call, exchange);
    let engine = Engine::of_provider(&call.provider).map(|engine| observation(engine, exchange));
    let observed = ObservedCall {
        rollout_id: span.rollout_id.clone(),
        span_name: span.name.clone(),
        response: call.response_id.as_ref().and_then(|id| Some((id.clone(), span.context.clone()?))),
        used_tokens: exchange.gateway.is_some().then(|| used_tokens(&call)),
        engine,
        token_id_issues,
    };
    let digest = relations.digest(&exchange.request.target, &request.bytes);
    let tools = relations.observe(span, &call, digest, exchange, options);
    Some((observed, tools))
}

/// Names the span of a call that the gateway refused by its path: its body was not read. A request for a WebSocket is no call.
fn name_refused(span: &mut Span, exchange: &Exchange) {
    let is_refused = exchange.gateway.as_ref().is_some_and(|facts| facts.called.is_some() && facts.backend.is_none());
    let path = exchange.request.target.split('?').next().unwrap_or_default();
    let call = ApiCall::of_path(path).filter(|call| call.operation().samples());
    if let Some(call) = call.filter(|_| is_refused && exchange.request.method == Method::POST) {
        span.set(names::DIALECT, call.api.name);
        span.set(names::GEN_AI_OPERATION_NAME, call.operation().as_str());
        span.name = call.operation().as_str().to_owned();
        span.kind = Some(SpanKind::Client);
    }
}

/// The usage that the response reports, else the number of its token ids.
fn used_tokens(call: &LlmCall) -> u64 {
    // A server may report anything.
    let count = |reported: Option<i64>| reported.and_then(|count| u64::try_from(count).ok()).unwrap_or_default();
    let reported = count(call.usage.input).saturating_add(count(call.usage.output));
    let reported = Some(reported).filter(|reported| *reported > 0);
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

/// What a response says of the engine at its endpoint.
fn observation(engine: Engine, exchange: &Exchange) -> EngineObservation {
    EngineObservation { host: exchange.request.host.clone(), port: exchange.request.port, engine }
}

fn read_safely(
    span: &mut Span,
    exchange: &Exchange,
    request: &Decoded,
    response: ResponseContent,
    arrays: SamplerArrays,
) -> Option<formats::ReadCall> {
    catch(|| read_call(exchange, request, response, arrays)).unwrap_or_else(|Panicked| {
        tracing::error!(host = exchange.request.host, "a call could not be read; its span describes the exchange only");
        span.set(names::LLM_UNREAD, vec![UnreadPart::Fault.as_str().to_owned()]);
        None
    })
}

fn read_call(
    exchange: &Exchange,
    request: &Decoded,
    response: ResponseContent,
    arrays: SamplerArrays,
) -> Option<formats::ReadCall> {
    if request.bytes.is_empty() {
        return None;
    }
    let no_headers = HeaderMap::new();
    let head = &exchange.request;
    let view = HttpExchangeView {
        host: &head.host,
        port: head.port,
        target: &head.target,
        request_headers: &head.headers,
        request_body: &request.bytes,
        status: exchange.response.as_ref().map(|response| response.status.as_u16()),
        response_headers: exchange.response.as_ref().map_or(&no_headers, |response| &response.headers),
        response_body: &[],
    };
    match response {
        ResponseContent::Whole(decoded) => formats::read_from(&view, ResponseSource::Whole(&decoded.bytes), arrays),
        ResponseContent::Begun(begun) => formats::read_from(&view, ResponseSource::Begun(begun), arrays),
        ResponseContent::Pieces(mut decoder) => {
            let content = exchange.response_body.content.as_ref()?;
            let mut result = Ok(());
            let mut each = |on_piece: &mut dyn FnMut(&[u8])| {
                result = content.read_from(0, &mut |bytes| decoder.push(bytes, on_piece));
            };
            let mut read = formats::read_from(&view, ResponseSource::Pieces(&mut each), arrays)?;
            if let Err(error) = result {
                tracing::error!(%error, host = head.host, "a recorded response can't be read back from the spill file");
                read.call.mark_unread(UnreadPart::Response);
            }
            Some(read)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_that_no_model_has_is_no_error() {
        let mut call = LlmCall::default();
        for (input, output, used) in [
            (Some(i64::MAX), Some(i64::MAX), 2 * i64::MAX.unsigned_abs()),
            (Some(-5), Some(3), 3),
            (None, Some(i64::MIN), 0),
        ] {
            (call.usage.input, call.usage.output) = (input, output);
            assert_eq!(used_tokens(&call), used);
        }
    }
}
