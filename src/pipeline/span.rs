//! An exchange becomes spans: a pure function, and the last code that sees what is not redacted.

use super::body::{self, ResponseContent};
use super::http_attributes::{bare_span, connection, headers, outcome, request, server, timing};
use super::observed::BuiltSpans;
use super::options::SpanOptions;
use super::relations::Relations;
use super::websocket_messages::MessageContents;
use super::{absorbed_spans, calls, gateway_attributes, websocket_calls, websocket_messages};
use crate::capture::{BegunCall, is_trace_export};
use crate::trace::exchange::{Exchange, ExchangeKind};
use crate::trace::{Span, semconv as names};
use http::HeaderMap;

/// Builds the spans of an exchange. `begun`: the call that was begun to be read from its response.
pub fn build_spans(
    exchange: &mut Exchange,
    begun: Option<BegunCall>,
    relations: &mut Relations,
    options: &SpanOptions,
) -> BuiltSpans {
    let mut built = BuiltSpans { span: bare_span(exchange), inferred: Vec::new(), calls: Vec::new() };
    describe(&mut built.span, exchange, options);
    match exchange.kind {
        ExchangeKind::Upgrade => add_websocket(&mut built, exchange, relations, options),
        ExchangeKind::Http | ExchangeKind::Connect(_) => add_bodies(&mut built, exchange, begun, relations, options),
    }
    built
}

/// Everything but bodies and messages.
fn describe(span: &mut Span, exchange: &Exchange, options: &SpanOptions) {
    request(span, exchange, options);
    connection(span, exchange);
    timing(span, exchange);
    outcome(span, exchange, options);
    gateway_attributes::describe(span, exchange, |text| options.redactor.url(text).into_owned());
    if !options.include_headers {
        return;
    }
    headers(span, names::REQUEST_HEADER_PREFIX, &exchange.request.headers, options);
    if let Some(response) = &exchange.response {
        headers(span, names::RESPONSE_HEADER_PREFIX, &response.headers, options);
    }
    for (prefix, body) in [
        (names::REQUEST_TRAILER_PREFIX, &exchange.request_body),
        (names::RESPONSE_TRAILER_PREFIX, &exchange.response_body),
    ] {
        if let Some(trailers) = &body.trailers {
            headers(span, prefix, trailers, options);
        }
    }
}

/// The messages of a WebSocket, and the calls in them as spans of their own.
fn add_websocket(built: &mut BuiltSpans, exchange: &Exchange, relations: &mut Relations, options: &SpanOptions) {
    let contents = MessageContents::of(exchange, options);
    websocket_messages::describe(&mut built.span, exchange, &contents, options);
    for mut call in websocket_calls::exchanges(exchange, &contents) {
        let mut span = bare_span(&call);
        server(&mut span, &call);
        outcome(&mut span, &call, options);
        let request = body::decoded(&mut call.request_body, &HeaderMap::new());
        let response = ResponseContent::of(&mut call.response_body, None, &HeaderMap::new());
        if let Some((observed, tools)) = calls::read_into(&mut span, &call, (&request, response), relations, options) {
            built.inferred.push(span);
            built.inferred.extend(tools);
            built.calls.push(observed);
        }
    }
}

/// The bodies, and what they mean: a call, an export of spans.
fn add_bodies(
    built: &mut BuiltSpans,
    exchange: &mut Exchange,
    begun: Option<BegunCall>,
    relations: &mut Relations,
    options: &SpanOptions,
) {
    let no_headers = HeaderMap::new();
    let request = body::decoded(&mut exchange.request_body, &exchange.request.headers);
    let response_headers = exchange.response.as_ref().map_or(&no_headers, |response| &response.headers);
    let response = ResponseContent::of(&mut exchange.response_body, begun, response_headers);
    if options.absorbs_exports && is_trace_export(&exchange.request) {
        built.inferred = absorbed_spans::read(&mut built.span, exchange, &request.bytes, options);
    } else if exchange.kind == ExchangeKind::Http
        && !is_part_of_a_call(exchange)
        && let Some((observed, tools)) =
            calls::read_into(&mut built.span, exchange, (&request, response), relations, options)
    {
        built.inferred = tools;
        built.calls.push(observed);
    }
    if options.include_bodies || exchange.records_bodies {
        let target = &exchange.request.target;
        let (sent, received) = (&mut exchange.request_body, &mut exchange.response_body);
        body::describe(&mut built.span, body::REQUEST, sent, &exchange.request.headers, target, options);
        body::describe(&mut built.span, body::RESPONSE, received, response_headers, target, options);
    }
}

/// A failed try of a call, or a retry that got the answer of another: the call is on another span.
fn is_part_of_a_call(exchange: &Exchange) -> bool {
    exchange.gateway.as_ref().is_some_and(|facts| facts.is_failed_try || facts.joined.is_some())
}
