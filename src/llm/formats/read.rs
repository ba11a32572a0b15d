//! Reading an exchange: its API, the framing of its response, and every event in its format.

use super::bedrock::inner_event;
use super::format::{ApiFormat, CallRequest};
use crate::llm::api::detect::{ApiCall, detect};
use crate::llm::api::stream_end::DONE;
use crate::llm::api::table::ApiSpec;
use crate::llm::call::{Choice, LlmCall};
use crate::llm::engine::table::Engine;
use crate::llm::provider::{self, Service};
use crate::wire::json::{self, Json};
use crate::wire::{event_stream, json_stream, sse};
use http::HeaderMap;
use std::time::Duration;

/// An exchange, as much of it as a dialect may see. Bodies are decoded.
pub struct HttpExchangeView<'a> {
    /// The endpoint's host, lower case.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// Path and query, as sent.
    pub target: &'a str,
    /// The request's fields.
    pub request_headers: &'a HeaderMap,
    /// The request's body.
    pub request_body: &'a [u8],
    /// The response's status, if there was one.
    pub status: Option<u16>,
    /// The response's fields.
    pub response_headers: &'a HeaderMap,
    /// The response's body.
    pub response_body: &'a [u8],
}

/// A call, and where in the body each event ended that moved its answer on.
#[derive(Debug)]
pub struct Read {
    /// The call.
    pub call: LlmCall,
    /// Indexes into the decoded body, rising.
    pub progress: Vec<usize>,
    /// How many tokens of the first choice were known by then.
    pub counts: Vec<usize>,
}

/// Reads an exchange. `None`: it calls no API that is known.
pub fn read(seen: &HttpExchangeView<'_>) -> Option<Read> {
    let path = seen.target.split('?').next().unwrap_or_default();
    let mut call = LlmCall::default();
    let body = any_json(seen.request_body, REQUEST, &mut call);
    let ApiCall { api, endpoint, model } = detect(path, &body)?;
    let format = api.format?;
    (call.api, call.operation) = (api.name, endpoint.operation);
    let (operation, streaming, model) = (endpoint.operation, endpoint.streaming, model.as_deref());
    let request = CallRequest { operation, streaming, model, headers: seen.request_headers, body: &body };
    format.request(&request, &mut call);
    let mut seen_events = Progress::default();
    let progress = &mut seen_events;
    match framing_of(seen.response_body) {
        Framing::None => {}
        Framing::Whole => {
            let answer = any_json(seen.response_body, "response", &mut call);
            read_response(format, &answer, seen.status, &mut call);
        }
        Framing::Events => {
            call.streamed = true;
            for event in sse::Events::new(seen.response_body) {
                if event.data.as_ref() == DONE {
                    call.ended = true;
                } else if event.data.iter().all(u8::is_ascii_whitespace) {
                    // MCP streams may open with an empty one.
                } else {
                    let data = if event.complete { &event.data[..] } else { event.data.trim_ascii_end() };
                    let name = std::str::from_utf8(event.name).unwrap_or_default();
                    read_event(api, name, data, event.end, &mut call, progress);
                }
            }
        }
        Framing::Lines => {
            call.streamed = true;
            for line in json_stream::lines(seen.response_body) {
                read_event(api, "", line.text, line.end, &mut call, progress);
            }
        }
        Framing::List => {
            call.streamed = true;
            for element in json_stream::elements(seen.response_body) {
                read_event(api, "", element.text, element.end, &mut call, progress);
            }
        }
        Framing::Messages => {
            call.streamed = true;
            for message in event_stream::messages(seen.response_body) {
                match message {
                    Ok(message) => {
                        let kind = std::str::from_utf8(message.kind).unwrap_or_default();
                        if message.is_error {
                            let data = json::parse(message.payload).unwrap_or(Json::Null);
                            let text = data.any(&["message", "Message"]).text().unwrap_or_default().to_owned();
                            call.error = Some((kind.to_owned(), text));
                        } else {
                            match inner_event(message.payload) {
                                Some(inner) => read_event(api, "", &inner, message.end, &mut call, progress),
                                None => read_event(api, kind, message.payload, message.end, &mut call, progress),
                            }
                        }
                    }
                    Err(_) => call.could_not_read("response_event"),
                }
            }
        }
    }
    call.choices.iter_mut().for_each(Choice::close);
    call.provider = provider::of(
        &Service { host: seen.host, port: seen.port, path, api },
        seen.response_headers,
        call.shown_provider,
    );
    let Progress { ends: progress, counts } = seen_events;
    call.chunks = progress.len() as u64;
    Some(Read { call, progress, counts })
}

/// As `Read` has it, being made.
#[derive(Default)]
struct Progress {
    ends: Vec<usize>,
    counts: Vec<usize>,
}

/// How an answer is divided. Told by its bytes, since types lie.
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
        // A whole JSON text is one object; several are one a line.
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

fn read_response(format: &dyn ApiFormat, answer: &Json<'_>, status: Option<u16>, call: &mut LlmCall) {
    if let Some(error) = error_of(answer) {
        call.error = Some(error);
        call.ended = true;
        return;
    }
    if status >= Some(400) {
        let message = answer.get("message").text().unwrap_or_default().to_owned();
        call.error = Some((String::new(), message));
        call.ended = true;
        return;
    }
    if !answer.is_null() {
        call.ended = true;
        note_server(answer, call);
        format.response(answer, call);
        if call.operation.samples() && call.choices.is_empty() && !answer.get("choices").is_empty_list() {
            call.could_not_read("response_shape");
        }
    }
}

fn read_event(api: &ApiSpec, name: &str, data: &[u8], end: usize, call: &mut LlmCall, progress: &mut Progress) {
    let data = any_json(data, "response_event", call);
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
        progress.ends.push(end);
        progress.counts.push(call.choices.first().map_or(0, |choice| choice.tokens.count()));
    }
}

/// Takes note of what a response, or an event, shows of the server: its provider and the version of its weights. Events
/// may bring the response, or its message, in a field.
fn note_server(data: &Json<'_>, call: &mut LlmCall) {
    for body in [data, data.get("response"), data.get("message")] {
        call.shown_provider = call.shown_provider.or_else(|| provider::of_response(body));
        Engine::weight_versions(body).for_each(|version| call.saw_version(version));
    }
}

/// An error object, in the shapes that APIs have for it: type and message.
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
    let kind = if object.get("object").text() == Some("error") && kind.is_none() { None } else { kind };
    Some((kind.unwrap_or_default(), object.get("message").text().unwrap_or_default().to_owned()))
}

const REQUEST: &str = "request";

/// JSON, mended if need be; null when it can't be read, which the call remembers.
fn any_json<'a>(text: &'a [u8], what: &'static str, call: &mut LlmCall) -> Json<'a> {
    if text.trim_ascii().is_empty() {
        return Json::Null;
    }
    let read = if what == REQUEST { json::parse(text) } else { json::parse_response(text) };
    if let Ok(json) = read {
        return json;
    }
    match json::parse_repaired(text) {
        Ok((json, mended)) => {
            if mended.utf8 {
                call.could_not_read("invalid_utf8");
            }
            json
        }
        Err(_) => {
            call.could_not_read(what);
            Json::Null
        }
    }
}

/// A span from the first piece of an answer to the next, and so on.
pub fn gaps(times: &[Duration]) -> Vec<Duration> {
    times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect()
}
