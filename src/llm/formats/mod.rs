//! API formats of models and tools: bytes in, an [`LlmCall`] out.
//!
//! One file a format; [`ALL`] is the registry. No I/O, no clock. A wrong guess may only leave a plain HTTP span, and
//! nothing in an answer may make this panic or run on without end.

mod anthropic;
mod bedrock;
mod cohere;
mod gemini;
mod llama_cpp;
mod mcp;
mod ollama;
mod openai_chat;
mod openai_completions;
mod openai_embeddings;
mod openai_responses;
mod parts;
mod sglang;
mod vllm;

use crate::llm::call::{self, LlmCall, Operation};
use crate::llm::provider;
use crate::wire::json::{self, Json};
use crate::wire::{event_stream, json_stream, sse};
use http::HeaderMap;
use std::time::Duration;

/// What was asked, and where.
pub struct CallRequest<'a> {
    /// The endpoint's host, lower case.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The path, as it was sent, without query.
    pub path: &'a str,
    /// The query, without `?`.
    pub query: &'a str,
    /// Header fields.
    pub headers: &'a HeaderMap,
    /// The body; null if it is no JSON.
    pub body: &'a Json<'a>,
}

impl CallRequest<'_> {
    /// True when the path ends so.
    fn ends(&self, end: &str) -> bool {
        self.path.trim_end_matches('/').ends_with(end)
    }

    /// The last part of the path between `before` and `after`, percent-decoded.
    fn between(&self, before: &str, after: &str) -> Option<String> {
        let path = self.path.trim_end_matches('/').strip_suffix(after)?;
        let (_, name) = path.rsplit_once(before)?;
        Some(percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned())
    }
}

/// A format. Everything it finds goes into the call; what is missing or odd is passed over.
pub trait ApiFormat: Sync {
    /// As spans name it: `openai.chat`.
    fn name(&self) -> &'static str;

    /// True when a request is of this format.
    fn claims(&self, asked: &CallRequest<'_>) -> bool;

    /// Reads the request.
    fn request(&self, asked: &CallRequest<'_>, call: &mut LlmCall);

    /// Reads a whole answer.
    fn answer(&self, body: &Json<'_>, call: &mut LlmCall);

    /// Reads one event of a streamed answer. True when it moved the answer on.
    fn event(&self, name: &str, data: &Json<'_>, call: &mut LlmCall) -> bool;
}

/// The formats; the first that claims a request has it.
pub const ALL: &[&dyn ApiFormat] = &[
    &mcp::Mcp,
    &openai_chat::Chat,
    &vllm::Generate,
    &ollama::Ollama,
    &gemini::Gemini,
    &anthropic::Messages,
    &bedrock::Converse,
    &cohere::Chat,
    &openai_responses::Responses,
    &openai_embeddings::Embeddings,
    &sglang::Generate,
    &llama_cpp::Completion,
    &openai_completions::Completions,
];

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

/// Reads an exchange. `None`: it is of no format we know.
pub fn read(seen: &HttpExchangeView<'_>) -> Option<Read> {
    let (path, query) = seen.target.split_once('?').unwrap_or((seen.target, ""));
    let mut call = LlmCall::default();
    let body = any_json(seen.request_body, REQUEST, &mut call);
    let asked =
        CallRequest { host: seen.host, port: seen.port, path, query, headers: seen.request_headers, body: &body };
    let dialect = ALL.iter().find(|dialect| dialect.claims(&asked))?;
    call.dialect = dialect.name();
    dialect.request(&asked, &mut call);
    let mut seen_events = Progress::default();
    let progress = &mut seen_events;
    match framing_of(seen.response_body) {
        Framing::None => {}
        Framing::Whole => {
            let answer = any_json(seen.response_body, "response", &mut call);
            answered(*dialect, &answer, seen.status, &mut call);
        }
        Framing::Events => {
            call.streamed = true;
            for event in sse::Events::new(seen.response_body) {
                if event.data.as_ref() == b"[DONE]" {
                    call.ended = true;
                } else if event.data.iter().all(u8::is_ascii_whitespace) {
                    // MCP streams may open with an empty one.
                } else {
                    let data = if event.complete { &event.data[..] } else { event.data.trim_ascii_end() };
                    let name = std::str::from_utf8(event.name).unwrap_or_default();
                    one_event(*dialect, name, data, event.end, &mut call, progress);
                }
            }
        }
        Framing::Lines => {
            call.streamed = true;
            for line in json_stream::lines(seen.response_body) {
                one_event(*dialect, "", line.text, line.end, &mut call, progress);
            }
        }
        Framing::List => {
            call.streamed = true;
            for element in json_stream::elements(seen.response_body) {
                one_event(*dialect, "", element.text, element.end, &mut call, progress);
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
                            one_event(*dialect, kind, message.payload, message.end, &mut call, progress);
                        }
                    }
                    Err(_) => call.could_not_read("response_event"),
                }
            }
        }
    }
    call.choices.iter_mut().for_each(call::Choice::close);
    call.provider = provider::of(&asked, seen.response_headers, &call);
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

fn answered(dialect: &dyn ApiFormat, answer: &Json<'_>, status: Option<u16>, call: &mut LlmCall) {
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
        dialect.answer(answer, call);
        let speaks = matches!(call.operation, Operation::Chat | Operation::GenerateContent | Operation::TextCompletion);
        if speaks && call.choices.is_empty() && !answer.get("choices").is_empty_list() {
            call.could_not_read("response_shape");
        }
    }
}

fn one_event(
    dialect: &dyn ApiFormat,
    name: &str,
    data: &[u8],
    end: usize,
    call: &mut LlmCall,
    progress: &mut Progress,
) {
    let data = any_json(data, "response_event", call);
    if data.is_null() {
        return;
    }
    if let Some(error) = error_of(&data).filter(|_| call.error.is_none()) {
        call.error = Some(error);
    } else if dialect.event(name, &data, call) {
        progress.ends.push(end);
        progress.counts.push(call.choices.first().map_or(0, |choice| choice.tokens.count()));
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
    let read = if what == REQUEST { json::parse(text) } else { json::parse_answer(text) };
    if let Ok(json) = read {
        return json;
    }
    match json::parse_mended(text) {
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
