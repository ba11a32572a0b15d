//! Reading an exchange: its API, its request, and its response ([`ResponseReader`]).
//!
//! Pure. What can't be read is noted on the call; nothing here fails.

use super::any_json::any_json;
use super::format::CallRequest;
use super::response_reader::ResponseReader;
use crate::llm::api::detect::{ApiCall, detect};
use crate::llm::call::{LlmCall, UnreadPart};
use crate::llm::provider::{self, Service};
use http::HeaderMap;
use std::time::Duration;

/// The parts of an exchange that formats read. Content codings are removed from the bodies.
pub struct HttpExchangeView<'a> {
    /// The endpoint's host, lower case.
    pub host: &'a str,
    /// The endpoint's port.
    pub port: u16,
    /// Path and query, as sent.
    pub target: &'a str,
    /// The header fields of the request.
    pub request_headers: &'a HeaderMap,
    /// The body of the request; what was kept of it, if it was truncated.
    pub request_body: &'a [u8],
    /// The status of the response; `None` if there was none.
    pub status: Option<u16>,
    /// The header fields of the response.
    pub response_headers: &'a HeaderMap,
    /// The body of the response; what was kept of it, if it was truncated or broke off. Of a response that was begun to be
    /// read, what follows.
    pub response_body: &'a [u8],
}

/// A call, and the progress of its streamed response. Both lists have one element for each event that advanced the
/// answer.
#[derive(Debug)]
pub struct ReadCall {
    /// The call.
    pub call: LlmCall,
    /// Where the event ends in the decoded body, in bytes; ascending.
    pub event_ends: Vec<usize>,
    /// How many tokens of the first choice had come by then.
    pub token_counts: Vec<usize>,
}

/// Reads an exchange. `None`: it calls no API that is known.
pub fn read(exchange: &HttpExchangeView<'_>) -> Option<ReadCall> {
    read_begun(exchange, None)
}

/// Reads an exchange of which the beginning of the response may have been read already.
pub(crate) fn read_begun(exchange: &HttpExchangeView<'_>, begun: Option<ResponseReader>) -> Option<ReadCall> {
    let path = exchange.target.split('?').next().unwrap_or_default();
    let mut call = LlmCall::default();
    let body = any_json(exchange.request_body, UnreadPart::Request, &mut call);
    let ApiCall { api, endpoint, model } = detect(path, &body)?;
    let format = api.format?;
    (call.api, call.operation) = (api.name, endpoint.operation);
    let (operation, streaming, model) = (endpoint.operation, endpoint.streaming, model.as_deref());
    let request = CallRequest { operation, streaming, model, headers: exchange.request_headers, body: &body };
    format.request(&request, &mut call);
    let (mut reader, request) = match begun {
        Some(begun) => (begun, Some(call)),
        // A format may compare the response with its request.
        None => (ResponseReader::of_call(api, call), None),
    };
    reader.push(exchange.response_body);
    let ReadCall { mut call, event_ends, token_counts } = reader.finish(exchange.status);
    if let Some(request) = request {
        call = request.with_response(call);
    }
    call.provider = provider::of(
        &Service { host: exchange.host, port: exchange.port, path, api },
        exchange.response_headers,
        call.shown_provider,
    );
    Some(ReadCall { call, event_ends, token_counts })
}

/// The times between consecutive events.
pub(crate) fn gaps(times: &[Duration]) -> Vec<Duration> {
    times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect()
}
