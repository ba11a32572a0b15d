//! Reading an exchange: its API, the framing of its response, and each event in the API's format.
//!
//! Pure. What can't be read is noted on the call; nothing here fails.

use super::bedrock::inner_event;
use super::format::{ApiFormat, CallRequest};
use crate::llm::api::detect::{ApiCall, detect};
use crate::llm::api::stream_end::DONE;
use crate::llm::api::table::ApiSpec;
use crate::llm::call::{Choice, LlmCall, UnreadPart};
use crate::llm::engine::table::Engine;
use crate::llm::provider::{self, Service};
use crate::wire::json::{self, Json};
use crate::wire::{event_stream, json_stream, sse};
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
    /// The body of the response; what was kept of it, if it was truncated or broke off.
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
    let path = exchange.target.split('?').next().unwrap_or_default();
    let mut call = LlmCall::default();
    let body = any_json(exchange.request_body, UnreadPart::Request, &mut call);
    let ApiCall { api, endpoint, model } = detect(path, &body)?;
    let format = api.format?;
    (call.api, call.operation) = (api.name, endpoint.operation);
    let (operation, streaming, model) = (endpoint.operation, endpoint.streaming, model.as_deref());
    let request = CallRequest { operation, streaming, model, headers: exchange.request_headers, body: &body };
    format.request(&request, &mut call);
    let mut progress = Progress::default();
    match framing_of(exchange.response_body) {
        Framing::None => {}
        Framing::Whole => {
            let body = any_json(exchange.response_body, UnreadPart::Response, &mut call);
            read_response(format, &body, exchange.status, &mut call);
        }
        Framing::Events => {
            call.streamed = true;
            for event in sse::Events::new(exchange.response_body) {
                if event.data.as_ref() == DONE {
                    call.ended = true;
                } else if event.data.iter().all(u8::is_ascii_whitespace) {
                    // MCP streams may open with an empty one.
                } else {
                    let data = if event.complete { &event.data[..] } else { event.data.trim_ascii_end() };
                    let name = std::str::from_utf8(event.name).unwrap_or_default();
                    read_event(api, name, data, event.end, &mut call, &mut progress);
                }
            }
        }
        Framing::Lines => {
            call.streamed = true;
            for line in json_stream::lines(exchange.response_body) {
                read_event(api, "", line.text, line.end, &mut call, &mut progress);
            }
        }
        Framing::List => {
            call.streamed = true;
            for element in json_stream::elements(exchange.response_body) {
                read_event(api, "", element.text, element.end, &mut call, &mut progress);
            }
        }
        Framing::Messages => {
            call.streamed = true;
            for message in event_stream::messages(exchange.response_body) {
                match message {
                    Ok(message) => {
                        let kind = std::str::from_utf8(message.kind).unwrap_or_default();
                        if message.is_error {
                            let data = json::parse(message.payload).unwrap_or(Json::Null);
                            let text = data.any(&["message", "Message"]).text().unwrap_or_default().to_owned();
                            call.error = Some((kind.to_owned(), text));
                        } else {
                            match inner_event(message.payload) {
                                Some(inner) => read_event(api, "", &inner, message.end, &mut call, &mut progress),
                                None => read_event(api, kind, message.payload, message.end, &mut call, &mut progress),
                            }
                        }
                    }
                    Err(_) => call.mark_unread(UnreadPart::ResponseEvent),
                }
            }
        }
    }
    call.choices.iter_mut().for_each(Choice::close);
    call.provider = provider::of(
        &Service { host: exchange.host, port: exchange.port, path, api },
        exchange.response_headers,
        call.shown_provider,
    );
    let Progress { event_ends, token_counts } = progress;
    call.chunks = event_ends.len() as u64;
    Some(ReadCall { call, event_ends, token_counts })
}

/// The lists of a [`ReadCall`].
#[derive(Default)]
struct Progress {
    event_ends: Vec<usize>,
    token_counts: Vec<usize>,
}

/// How a response is divided. Its bytes decide, since content types are not reliable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Whole,
    Events,
    Lines,
    List,
    Messages,
}

fn framing_of(body: &[u8]) -> Framing {
    let start = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    match start.first() {
        None => Framing::None,
        // A whole response is one object; several objects are one a line.
        Some(b'{') => match json_stream::lines(start).nth(1) {
            Some(second) if second.text.starts_with(b"{") => Framing::Lines,
            _ => Framing::Whole,
        },
        Some(b'[') => Framing::List,
        Some(0) => Framing::Messages,
        Some(b':') => Framing::Events,
        Some(_) if EVENT_FIELDS.iter().any(|field| start.starts_with(field)) => Framing::Events,
        Some(_) => Framing::Whole,
    }
}

const EVENT_FIELDS: [&[u8]; 4] = [b"data:", b"event:", b"id:", b"retry:"];

fn read_response(format: &dyn ApiFormat, body: &Json<'_>, status: Option<u16>, call: &mut LlmCall) {
    if let Some(error) = error_of(body) {
        call.error = Some(error);
        call.ended = true;
        return;
    }
    if status >= Some(400) {
        let message = body.get("message").text().unwrap_or_default().to_owned();
        call.error = Some((String::new(), message));
        call.ended = true;
        return;
    }
    if !body.is_null() {
        call.ended = true;
        note_server(body, call);
        format.response(body, call);
        if call.operation.samples() && call.choices.is_empty() && !body.get("choices").is_empty_list() {
            call.mark_unread(UnreadPart::ResponseShape);
        }
    }
}

fn read_event(api: &ApiSpec, name: &str, data: &[u8], end: usize, call: &mut LlmCall, progress: &mut Progress) {
    let data = any_json(data, UnreadPart::ResponseEvent, call);
    if data.is_null() {
        return;
    }
    if let Some(error) = error_of(&data).filter(|_| call.error.is_none()) {
        call.error = Some(error);
        return;
    }
    note_server(&data, call);
    let kind = data.get("type").text().unwrap_or(name);
    call.ended |= api.stream_end.is_end_event(kind);
    if api.format.is_some_and(|format| format.event(name, &data, call)) {
        progress.event_ends.push(end);
        progress.token_counts.push(call.choices.first().map_or(0, |choice| choice.tokens.count()));
    }
}

/// Notes what a response, or an event, shows of the server: its provider, and the version of its weights. An event may
/// have the response, or its message, in a field.
fn note_server(data: &Json<'_>, call: &mut LlmCall) {
    for body in [data, data.get("response"), data.get("message")].into_iter().filter(|body| !body.is_null()) {
        call.shown_provider = call.shown_provider.or_else(|| provider::of_response(body));
        Engine::for_each_weight_version(body, |version| call.add_weight_version(version));
    }
}

/// The type and message of an error, in whatever API's shape. `None`: it is no error.
fn error_of(json: &Json<'_>) -> Option<(String, String)> {
    let object = if json.get("object").text() == Some("error")
        || json.get("type").text() == Some("error") && json.has("message")
    {
        json
    } else {
        let error = json.get("error");
        match error {
            Json::Text(message) => return Some((String::new(), message.clone().into_owned())),
            Json::Object(_) => error,
            _ => return None,
        }
    };
    let kind = object.any(&["type", "status", "code"]);
    let kind = kind.text().map(str::to_owned).or_else(|| kind.int().map(|code| code.to_string()));
    Some((kind.unwrap_or_default(), object.get("message").text().unwrap_or_default().to_owned()))
}

/// Reads JSON, repaired where that is possible. Null if it can't be read, which is noted on the call.
fn any_json<'a>(text: &'a [u8], part: UnreadPart, call: &mut LlmCall) -> Json<'a> {
    if text.trim_ascii().is_empty() {
        return Json::Null;
    }
    let read = if part == UnreadPart::Request { json::parse(text) } else { json::parse_response(text) };
    if let Ok(json) = read {
        return json;
    }
    match json::parse_repaired(text) {
        Ok((json, mended)) => {
            if mended.utf8 {
                call.mark_unread(UnreadPart::InvalidUtf8);
            }
            json
        }
        Err(_) => {
            call.mark_unread(part);
            Json::Null
        }
    }
}

/// The times between consecutive events.
pub(crate) fn gaps(times: &[Duration]) -> Vec<Duration> {
    times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect()
}
