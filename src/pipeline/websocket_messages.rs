//! The messages of a WebSocket as events of its span: direction, opcode, size, time, and the text if bodies are recorded.

use super::body::whole_characters;
use super::options::SpanOptions;
use crate::trace::exchange::{Direction, Exchange, Message, MessageOpcode};
use crate::trace::span::Event;
use crate::trace::{Span, semconv as names};
use crate::wire::websocket::{DeflateAgreement, Inflater};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header;
use std::collections::BTreeMap;

/// The contents of the recorded messages, in the order in which they passed.
pub(super) struct MessageContents<'a>(Vec<(&'a Message, Content)>);

/// The content of a message.
pub(super) struct Content {
    /// Its bytes, decompressed. None if an earlier message is missing that it refers to.
    pub(super) bytes: Option<Vec<u8>>,
    /// False when `bytes` is only the start of it.
    pub(super) whole: bool,
}

impl<'a> MessageContents<'a> {
    /// Decompresses the messages of `exchange`.
    pub(super) fn of(exchange: &'a Exchange, options: &SpanOptions) -> Self {
        let agreement = exchange.response.as_ref().and_then(|response| {
            Some(DeflateAgreement::parse(response.headers.get(header::SEC_WEBSOCKET_EXTENSIONS)?.to_str().ok()?))
        });
        let agreement = agreement.unwrap_or_default();
        let mut requests = agreement.inflater(Direction::Request);
        let mut responses = agreement.inflater(Direction::Response);
        let mut allowance = options.max_body_bytes.saturating_mul(INFLATED_BODIES);
        let read = |message: &'a Message| {
            let inflater = match message.direction {
                Direction::Request => &mut requests,
                Direction::Response => &mut responses,
            };
            (message, content(message, inflater, &mut allowance, options))
        };
        Self(exchange.messages.recorded.iter().map(read).collect())
    }

    /// What only shows in decompressed text.
    fn fault(&self) -> Option<&'static str> {
        let is_faulty = |message: &Message, content: &Content| {
            let is_text = message.opcode == MessageOpcode::Text && message.compressed && content.whole;
            is_text && content.bytes.as_ref().is_some_and(|bytes| std::str::from_utf8(bytes).is_err())
        };
        self.iter().any(|(message, content)| is_faulty(message, content)).then_some("a text that is not UTF-8")
    }

    /// Each message with its content.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a Message, &Content)> {
        self.0.iter().map(|(message, content)| (*message, content))
    }
}

/// The decompressed messages of one span may hold so many times `capture.max_body_bytes`.
const INFLATED_BODIES: usize = 4;

fn content(message: &Message, inflater: &mut Inflater, allowance: &mut usize, options: &SpanOptions) -> Content {
    let payload = &message.payload;
    let whole = payload.len() as u64 == message.size_bytes && message.complete;
    let bytes = match message.compressed {
        false => Some(payload.clone()),
        // A small message may decompress to any size.
        true if *allowance == 0 => Some(Vec::new()),
        true if whole => inflater.inflate(payload, options.max_body_bytes.min(*allowance)),
        true => inflater.inflate_truncated(payload, options.max_body_bytes.min(*allowance)),
    };
    if message.compressed {
        *allowance = allowance.saturating_sub(bytes.as_ref().map_or(0, Vec::len));
    }
    Content { bytes, whole: whole && *allowance > 0 }
}

/// Adds the events, and the attributes of all messages together.
pub(super) fn describe(span: &mut Span, exchange: &Exchange, contents: &MessageContents<'_>, options: &SpanOptions) {
    let messages = &exchange.messages;
    if messages.count == 0 && messages.fault.is_none() {
        return;
    }
    span.set(names::WEBSOCKET_MESSAGES, messages.count);
    span.set_some(names::WEBSOCKET_FAULT, messages.fault.or_else(|| contents.fault()));
    let unrecorded = messages.count - messages.recorded.len() as u64;
    span.set_some(names::WEBSOCKET_UNRECORDED, (unrecorded > 0).then_some(unrecorded));
    for (message, content) in contents.iter() {
        let timestamp = Some(exchange.timing.started_at.after(message.at));
        span.events.push(Event { timestamp, ..event(message, content, options) });
    }
}

fn event(message: &Message, content: &Content, options: &SpanOptions) -> Event {
    let mut attributes = BTreeMap::default();
    let mut set = |name: &str, value: crate::trace::Value| drop(attributes.insert(name.to_owned(), value));
    // It is a client span: what the agent sends is transmitted.
    let direction = match message.direction {
        Direction::Request => "transmit",
        Direction::Response => "receive",
    };
    set(names::NETWORK_IO_DIRECTION, direction.into());
    set(names::WEBSOCKET_OPCODE, message.opcode.as_str().into());
    set(names::WEBSOCKET_SIZE, i64::try_from(message.size_bytes).unwrap_or(i64::MAX).into());
    if !message.complete {
        set(names::WEBSOCKET_INCOMPLETE, true.into());
    }
    if message.opcode == MessageOpcode::Close {
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
            Some(bytes) => match std::str::from_utf8(if content.whole { bytes } else { whole_characters(bytes) }) {
                Ok(text) => set(names::WEBSOCKET_TEXT, options.redactor.body(None, "", text).into_owned().into()),
                Err(_) => set(names::WEBSOCKET_BASE64, STANDARD.encode(bytes).into()),
            },
        }
    }
    Event { name: names::WEBSOCKET_MESSAGE.to_owned(), attributes, timestamp: None }
}
