//! Calls of a model over a WebSocket (OpenAI's responses): each `response.create` with the events that answer it becomes
//! the exchange that it would have been over HTTP, for the same readers.
//!
//! One response is made at a time; what an endpoint says between two belongs to none.

use super::messages::Contents;
use crate::error::Side;
use crate::llm::api::websocket_calls;
use crate::trace::SpanId;
use crate::trace::exchange::{
    Arrival, Body, Exchange, ExchangeKind, Messages, Outcome, Timing, TraceContext, Truncation,
};
use crate::wire::json;
use std::time::Duration;

/// The calls that passed, oldest first, below the connection's span.
pub(super) fn calls(exchange: &Exchange, contents: &Contents<'_>) -> Vec<Exchange> {
    let Some(protocol) = websocket_calls(&exchange.request.target) else { return Vec::new() };
    let mut calls = Vec::new();
    let mut open: Option<Call> = None;
    for (message, content) in contents.iter().filter(|(message, _)| message.opcode == "text") {
        // One before it is missing that it refers to: what it said is not known, and that is told of the call.
        let bytes = content.bytes.as_deref().unwrap_or_default();
        let parsed = json::parse(bytes).unwrap_or_default();
        let kind = parsed.get("type").text().unwrap_or_default();
        if message.by_agent {
            if kind == protocol.begin {
                calls.extend(open.replace(Call::begin(exchange, bytes.to_vec(), message.at)));
            }
        } else if let Some(call) = &mut open {
            call.add(bytes, message.at, content.whole && content.bytes.is_some());
            if protocol.ends.contains(&kind) {
                call.exchange.outcome = Outcome::Complete;
                calls.extend(open.take());
            }
        }
    }
    calls.extend(open);
    calls.into_iter().map(|call| call.exchange).collect()
}

/// A call, and when it began, from the start of its connection.
struct Call {
    exchange: Exchange,
    began: Duration,
}

impl Call {
    fn begin(socket: &Exchange, asked: Vec<u8>, began: Duration) -> Self {
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
                size_bytes: asked.len() as u64,
                kept: asked.into(),
                complete: true,
                ..Body::default()
            },
            response_body: Body::default(),
            messages: Messages::default(),
            timing: Timing {
                started_at: socket.timing.started_at.after(began),
                ended: socket.timing.ended.saturating_sub(began),
                ..Timing::default()
            },
            connection: socket.connection.clone(),
            injection: socket.injection.clone(),
            keeps_bodies: socket.keeps_bodies,
            gateway: None,
            // Until its end is seen. An agent that closes without waiting for it has left.
            outcome: match &socket.outcome {
                Outcome::Complete => Outcome::Aborted { by: Side::Downstream },
                broken => broken.clone(),
            },
        };
        Self { exchange, began }
    }

    /// One more event of the answer, in the framing that a stream over HTTP has.
    fn add(&mut self, event: &[u8], at: Duration, whole: bool) {
        let Exchange { response_body: body, timing, .. } = &mut self.exchange;
        timing.ended = at.saturating_sub(self.began);
        timing.first_body_byte.get_or_insert(timing.ended);
        body.kept.push(b"data: ");
        // Between the parts of a JSON text a line's end is white space, and within a string there is none.
        let line: Vec<u8> = event.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect();
        body.kept.push(&line);
        body.kept.push(b"\n\n");
        body.size_bytes += event.len() as u64;
        body.frames += 1;
        body.arrivals.push(Arrival { end: body.kept.len(), at: timing.ended });
        if !whole {
            body.truncated = Some(Truncation::BodyLimit);
        }
    }
}
