//! A WebSocket's messages as events of its span: direction, sort, size, time, and the text if bodies are recorded.

use super::span::{SpanOptions, whole_characters};
use crate::trace::exchange::{Exchange, Message};
use crate::trace::span::Event;
use crate::trace::{Span, semconv as names};
use crate::wire::websocket::deflate::{Agreed, Inflater};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header;
use std::collections::BTreeMap;

/// What the kept messages say, in their order.
pub(super) struct Contents<'a>(Vec<(&'a Message, Content)>);

/// What one message says.
pub(super) struct Content {
    /// Its bytes, inflated; none where one before it is missing that it refers to.
    pub(super) bytes: Option<Vec<u8>>,
    /// False when there was more of it.
    pub(super) whole: bool,
}

impl<'a> Contents<'a> {
    /// Reads the messages of `exchange`.
    pub(super) fn of(exchange: &'a Exchange, options: &SpanOptions) -> Self {
        let agreed = exchange.response.as_ref().and_then(|response| {
            Some(Agreed::parse(response.headers.get(header::SEC_WEBSOCKET_EXTENSIONS)?.to_str().ok()?))
        });
        let agreed = agreed.unwrap_or_default();
        let mut by_agent = Inflater::new(agreed.client_no_context_takeover);
        let mut by_endpoint = Inflater::new(agreed.server_no_context_takeover);
        let mut allowance = options.max_body_bytes.saturating_mul(INFLATED_BODIES);
        let read = |message: &'a Message| {
            let inflater = if message.by_agent { &mut by_agent } else { &mut by_endpoint };
            (message, content(message, inflater, &mut allowance, options))
        };
        Self(exchange.messages.kept.iter().map(read).collect())
    }

    /// Each message with what it says.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a Message, &Content)> {
        self.0.iter().map(|(message, content)| (*message, content))
    }
}

/// How many bodies' worth of inflated messages one span may hold.
const INFLATED_BODIES: usize = 4;

fn content(message: &Message, inflater: &mut Inflater, allowance: &mut usize, options: &SpanOptions) -> Content {
    let payload = &message.payload;
    let whole = payload.len() as u64 == message.size_bytes && message.complete;
    let bytes = match message.compressed {
        false => Some(payload.clone()),
        // What a little deflates to may be without end.
        true if *allowance == 0 => Some(Vec::new()),
        true => inflater.inflate(payload, whole, options.max_body_bytes.min(*allowance)),
    };
    if message.compressed {
        *allowance = allowance.saturating_sub(bytes.as_ref().map_or(0, Vec::len));
    }
    Content { bytes, whole: whole && *allowance > 0 }
}

/// Adds the events, and what is to be said about all of them.
pub(super) fn messages(span: &mut Span, exchange: &Exchange, contents: &Contents<'_>, options: &SpanOptions) {
    let seen = &exchange.messages;
    if seen.count == 0 && seen.fault.is_none() {
        return;
    }
    span.set(names::WEBSOCKET_MESSAGES, seen.count);
    span.set_some(names::WEBSOCKET_FAULT, seen.fault);
    let unrecorded = seen.count - seen.kept.len() as u64;
    span.set_some(names::WEBSOCKET_UNRECORDED, (unrecorded > 0).then_some(unrecorded));
    for (message, content) in contents.iter() {
        let timestamp = Some(exchange.timing.started_at.after(message.at));
        span.events.push(Event { timestamp, ..event(message, content, options) });
    }
}

fn event(message: &Message, content: &Content, options: &SpanOptions) -> Event {
    let mut attributes = BTreeMap::default();
    let mut set = |name: &str, value: crate::trace::Value| drop(attributes.insert(name.to_owned(), value));
    // A client span's view: what the agent sends is transmitted.
    set(names::NETWORK_IO_DIRECTION, if message.by_agent { "transmit" } else { "receive" }.into());
    set(names::WEBSOCKET_OPCODE, message.opcode.into());
    set(names::WEBSOCKET_SIZE, i64::try_from(message.size_bytes).unwrap_or(i64::MAX).into());
    if !message.complete {
        set(names::WEBSOCKET_INCOMPLETE, true.into());
    }
    if message.opcode == "close" {
        if let [high, low, ..] = message.payload.as_slice() {
            set(names::WEBSOCKET_CLOSE_CODE, i64::from(u16::from_be_bytes([*high, *low])).into());
        }
    } else if options.include_bodies {
        if !content.whole {
            set(names::WEBSOCKET_TRUNCATED, true.into());
        }
        match &content.bytes {
            None => set(names::CAPTURE_UNDECODED, "permessage-deflate: a message before it is missing".into()),
            Some(bytes) if bytes.is_empty() => {}
            Some(bytes) => match std::str::from_utf8(whole_characters(bytes)) {
                Ok(text) => set(names::WEBSOCKET_TEXT, options.redactor.body(None, "", text).into_owned().into()),
                Err(_) => set(names::WEBSOCKET_BASE64, STANDARD.encode(bytes).into()),
            },
        }
    }
    Event { name: names::WEBSOCKET_MESSAGE.to_owned(), attributes, timestamp: None }
}
