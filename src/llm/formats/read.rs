//! Reading an exchange: its API, its request, and its response ([`ResponseReader`]).
//!
//! Pure. What can't be read is noted on the call; nothing here fails.

use super::any_json::any_json;
use super::begun_response::BegunResponse;
use super::format::CallRequest;
use super::read_call::ReadCall;
use super::response_reader::ResponseReader;
use crate::llm::api::detect::{ApiCall, detect};
use crate::llm::call::{LlmCall, UnreadPart};
use crate::llm::provider::{self, Service};
use crate::trace::SamplerArrays;
use http::HeaderMap;

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
    /// The body of the response; what was kept of it, if it was truncated or broke off.
    pub response_body: &'a [u8],
}

/// Where the response of an exchange is read from.
pub(crate) enum ResponseSource<'a> {
    /// All of it, without its content coding.
    Whole(&'a [u8]),
    /// It was begun to be read while it passed; all bytes were pushed.
    Begun(Box<BegunResponse>),
    /// Its bytes are given piece by piece, without their content coding.
    Pieces(&'a mut dyn FnMut(OnPiece<'_>)),
}

/// Takes a piece of a response.
pub(crate) type OnPiece<'a> = &'a mut dyn FnMut(&[u8]);

/// Reads an exchange. `None`: it calls no API that is known.
pub fn read(exchange: &HttpExchangeView<'_>) -> Option<ReadCall> {
    read_from(exchange, ResponseSource::Whole(exchange.response_body), SamplerArrays::default())
}

/// Reads an exchange with its response from elsewhere than `response_body`. These arrays are kept of a long one.
pub(crate) fn read_from(
    exchange: &HttpExchangeView<'_>,
    response: ResponseSource<'_>,
    arrays: SamplerArrays,
) -> Option<ReadCall> {
    let path = exchange.target.split('?').next().unwrap_or_default();
    let mut call = LlmCall::default();
    let body = any_json(exchange.request_body, UnreadPart::Request, &mut call);
    let ApiCall { api, endpoint, model } = detect(path, &body)?;
    let format = api.format?;
    (call.api, call.operation) = (api.name, endpoint.operation);
    let (operation, streaming, model) = (endpoint.operation, endpoint.streaming, model.as_deref());
    let request = CallRequest { operation, streaming, model, headers: exchange.request_headers, body: &body };
    format.request(&request, &mut call);
    let (request, reader) = match response {
        ResponseSource::Begun(begun) => {
            let reader = begun.into_reader();
            if !reader.is_of(api) {
                // The request is another API's than its path told. What was read of the response means nothing.
                call.mark_unread(UnreadPart::Response);
                return Some(ReadCall { call, event_ends: Vec::new(), token_counts: Vec::new() });
            }
            (Some(call), reader)
        }
        // A format may compare the response with its request.
        ResponseSource::Whole(body) => {
            let mut reader = ResponseReader::of_call(api, call, arrays);
            reader.push(body);
            (None, reader)
        }
        ResponseSource::Pieces(each) => {
            let mut reader = ResponseReader::of_call(api, call, arrays);
            each(&mut |piece| reader.push(piece));
            (None, reader)
        }
    };
    let ReadCall { mut call, event_ends, token_counts } = reader.finish(exchange.status);
    if let Some(request) = request {
        call = request.with_response(call);
    }
    call.share_prompts();
    call.provider = provider::of(
        &Service { host: exchange.host, port: exchange.port, path, api },
        exchange.response_headers,
        call.shown_provider,
    );
    Some(ReadCall { call, event_ends, token_counts })
}
