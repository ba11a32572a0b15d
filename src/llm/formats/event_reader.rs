//! The events of a response, and whole responses, read into a call by the API's format.

use super::any_json::{any_json, built_json};
use super::bedrock::inner_event;
use super::response_framing::{Framing, framing_of};
use crate::llm::api::spec::ApiSpec;
use crate::llm::api::stream_end::DONE;
use crate::llm::call::{LlmCall, UnreadPart};
use crate::llm::engine::table::Engine;
use crate::llm::provider;
use crate::wire::json::{self, Json};
use crate::wire::sse_reader::{EventData, ReadEvent};
use crate::wire::{event_stream, json_stream, sse};

/// What the events of a response become.
#[derive(Debug)]
pub(super) struct EventReader {
    pub(super) api: &'static ApiSpec,
    pub(super) call: LlmCall,
    pub(super) event_ends: Vec<usize>,
    pub(super) token_counts: Vec<usize>,
    /// Bytes of the response that were read.
    pub(super) position: usize,
}

/// Whether an event ended with its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IsCut {
    Yes,
    No,
}

impl EventReader {
    /// Reads the events of the response to a call.
    pub(super) fn new(api: &'static ApiSpec, call: LlmCall) -> Self {
        Self { api, call, event_ends: Vec::new(), token_counts: Vec::new(), position: 0 }
    }

    /// Reads a response of which all text is there.
    pub(super) fn read_whole(&mut self, body: &[u8], status: Option<u16>) {
        let framing = framing_of(body);
        self.call.streamed = !matches!(framing, Framing::None | Framing::Whole);
        match framing {
            Framing::None => {}
            Framing::Whole => {
                let json = any_json(body, UnreadPart::Response, &mut self.call);
                self.read_response(&json, status);
            }
            Framing::Events => {
                for event in sse::Events::new(body) {
                    self.position = event.end;
                    let name = std::str::from_utf8(event.name).unwrap_or_default();
                    let is_cut = if event.complete { IsCut::No } else { IsCut::Yes };
                    self.read_sse_text(name, &event.data, is_cut);
                }
            }
            Framing::Lines => {
                for line in json_stream::lines(body) {
                    self.position = line.end;
                    self.read_text("", line.text);
                }
            }
            Framing::List => {
                for element in json_stream::elements(body) {
                    self.position = element.end;
                    self.read_text("", element.text);
                }
            }
            Framing::Messages => {
                for message in event_stream::messages(body) {
                    match message {
                        Ok(message) => {
                            self.position = message.end;
                            self.read_message(&message);
                        }
                        Err(_) => self.call.mark_unread(UnreadPart::ResponseEvent),
                    }
                }
            }
        }
    }

    pub(super) fn read_response(&mut self, body: &Json<'_>, status: Option<u16>) {
        let call = &mut self.call;
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
            if let Some(format) = self.api.format {
                format.response(body, call);
            }
            if call.operation.samples() && call.choices.is_empty() && !body.get("choices").is_empty_list() {
                call.mark_unread(UnreadPart::ResponseShape);
            }
        }
    }

    pub(super) fn read_sse(&mut self, event: ReadEvent<'_>, is_cut: IsCut) {
        self.position = event.end;
        let name = std::str::from_utf8(event.name).unwrap_or_default();
        match event.data {
            EventData::Text(text) => self.read_sse_text(name, &text, is_cut),
            data @ EventData::Value(_) => self.read_data(name, data),
        }
    }

    fn read_sse_text(&mut self, name: &str, data: &[u8], is_cut: IsCut) {
        // Streams of MCP may open with an event without data.
        let is_empty = data.iter().all(u8::is_ascii_whitespace);
        if data == DONE {
            self.call.ended = true;
        } else if !is_empty {
            self.read_text(name, if is_cut == IsCut::Yes { data.trim_ascii_end() } else { data });
        }
    }

    pub(super) fn read_message(&mut self, message: &event_stream::EventStreamMessage<'_>) {
        let kind = std::str::from_utf8(message.kind).unwrap_or_default();
        if message.is_error {
            let data = json::parse(message.payload).unwrap_or(Json::Null);
            let text = data.any(&["message", "Message"]).text().unwrap_or_default().to_owned();
            self.call.error = Some((kind.to_owned(), text));
            return;
        }
        match inner_event(message.payload) {
            Some(inner) => self.read_text("", &inner),
            None => self.read_text(kind, message.payload),
        }
    }

    pub(super) fn read_data(&mut self, name: &str, data: EventData) {
        match data {
            EventData::Text(text) => self.read_text(name, &text),
            EventData::Value(builder) => {
                let data = built_json(builder, UnreadPart::ResponseEvent, &mut self.call);
                self.read_event(name, &data);
            }
        }
    }

    fn read_text(&mut self, name: &str, text: &[u8]) {
        let data = any_json(text, UnreadPart::ResponseEvent, &mut self.call);
        self.read_event(name, &data);
    }

    fn read_event(&mut self, name: &str, data: &Json<'_>) {
        if data.is_null() {
            return;
        }
        let call = &mut self.call;
        if let Some(error) = error_of(data).filter(|_| call.error.is_none()) {
            call.error = Some(error);
            return;
        }
        note_server(data, call);
        let kind = data.get("type").text().unwrap_or(name);
        call.ended |= self.api.stream_end.is_end_event(kind);
        if self.api.format.is_some_and(|format| format.event(name, data, call)) {
            self.event_ends.push(self.position);
            self.token_counts.push(call.choices.first().map_or(0, |choice| choice.tokens.count()));
        }
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
