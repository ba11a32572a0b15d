//! Calls of a model over a WebSocket (OpenAI's responses): each `response.create` and the events that answer it become
//! the exchange that they would have been over HTTP, for the same parsers.
//!
//! An endpoint makes one response at a time; events between two responses belong to none.

use super::websocket_messages::MessageContents;
use crate::error::Side;
use crate::llm::api::websocket_calls;
use crate::trace::SpanId;
use crate::trace::exchange::{
    Arrival, Body, Direction, Exchange, ExchangeKind, MessageOpcode, Messages, Outcome, Timing, TraceContext,
    Truncation,
};
use crate::wire::json;
use std::time::Duration;

/// The calls, oldest first, as exchanges below the span of the connection.
pub(super) fn exchanges(exchange: &Exchange, contents: &MessageContents<'_>) -> Vec<Exchange> {
    let Some(protocol) = websocket_calls(&exchange.request.target) else { return Vec::new() };
    let mut calls = Vec::new();
    let mut open: Option<WebSocketCall> = None;
    for (message, content) in contents.iter().filter(|(message, _)| message.opcode == MessageOpcode::Text) {
        // Without bytes an earlier message is missing that it refers to: the call is marked truncated.
        let bytes = content.bytes.as_deref().unwrap_or_default();
        let parsed = json::parse(bytes).unwrap_or_default();
        let kind = parsed.get("type").text().unwrap_or_default();
        if message.direction == Direction::Request {
            if kind == protocol.begin {
                calls.extend(open.replace(WebSocketCall::start(exchange, bytes.to_vec(), message.at)));
            }
        } else if let Some(call) = &mut open {
            call.add(bytes, message.at);
            if !content.whole || content.bytes.is_none() {
                call.exchange.response_body.truncated = Some(Truncation::BodyLimit);
            }
            if protocol.ends.contains(&kind) {
                call.exchange.outcome = Outcome::Complete;
                calls.extend(open.take());
            }
        }
    }
    calls.extend(open);
    calls.into_iter().map(WebSocketCall::into_exchange).collect()
}

struct WebSocketCall {
    exchange: Exchange,
    // The events of the response.
    events: Vec<u8>,
    // Since the start of the connection.
    started: Duration,
}

impl WebSocketCall {
    fn start(socket: &Exchange, request: Vec<u8>, started: Duration) -> Self {
        let trace = TraceContext {
            span_id: SpanId::from_random(fastrand::u64(1..)),
            parent_id: socket.trace.span_id,
            parent_is_remote: false,
            ..socket.trace.clone()
        };
        let exchange = Exchange {
            identity: socket.identity.clone(),
            trace,
            kind: ExchangeKind::Http,
            request: socket.request.clone(),
            response: socket.response.clone(),
            informational: Vec::new(),
            request_body: Body {
                size_bytes: request.len() as u64,
                content: Some(Box::new(request)),
                complete: true,
                ..Body::default()
            },
            response_body: Body::default(),
            messages: Messages::default(),
            timing: Timing {
                started_at: socket.timing.started_at.after(started),
                ended: socket.timing.ended.saturating_sub(started),
                ..Timing::default()
            },
            connection: socket.connection.clone(),
            injection: socket.injection.clone(),
            records_bodies: socket.records_bodies,
            gateway: None,
            // Until its end is seen: an agent that closes before that has gone away.
            outcome: match &socket.outcome {
                Outcome::Complete => Outcome::Aborted { by: Side::Downstream },
                broken => broken.clone(),
            },
        };
        Self { exchange, events: Vec::new(), started }
    }

    fn into_exchange(self) -> Exchange {
        let Self { mut exchange, events, .. } = self;
        exchange.response_body.content = Some(Box::new(events));
        exchange
    }

    /// Appends an event of the response, framed as server-sent events are.
    fn add(&mut self, event: &[u8], at: Duration) {
        let Exchange { response_body: body, timing, .. } = &mut self.exchange;
        timing.ended = at.saturating_sub(self.started);
        timing.first_body_byte.get_or_insert(timing.ended);
        self.events.extend_from_slice(b"data: ");
        // A line break in JSON text is white space between tokens, never part of a string.
        self.events.extend(event.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
        self.events.extend_from_slice(b"\n\n");
        body.size_bytes += event.len() as u64;
        body.frames += 1;
        body.arrivals.push(Arrival { end: self.events.len(), at: timing.ended });
    }
}
