//! The messages of a WebSocket.

use super::body::Direction;
use std::time::Duration;

/// The messages of both directions, in the order in which they passed.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    /// The recorded messages, at most `capture.max_messages`.
    pub recorded: Vec<Message>,
    /// How many messages passed, recorded or not.
    pub count: u64,
    /// The first violation of RFC 6455. After one in the frames themselves no messages follow; after one in the content of a
    /// message they do.
    pub fault: Option<&'static str>,
}

/// A message, or a control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it: `Request` for the agent, `Response` for the endpoint.
    pub direction: Direction,
    /// When its last byte passed, since the start of the exchange.
    pub at: Duration,
    /// What it carries.
    pub opcode: MessageOpcode,
    /// Bytes of payload on the wire, compressed if it was.
    pub size_bytes: u64,
    /// The recorded part of the payload, unmasked.
    pub payload: Vec<u8>,
    /// True when the payload is compressed by permessage-deflate.
    pub compressed: bool,
    /// False when the connection ended within the message.
    pub complete: bool,
}

/// What a message carries (RFC 6455 §11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageOpcode {
    /// UTF-8 text.
    Text,
    /// Bytes that are no text.
    Binary,
    /// A close frame: a status code and a reason.
    Close,
    /// A ping frame.
    Ping,
    /// A pong frame.
    Pong,
}

impl MessageOpcode {
    /// The word used in attributes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Close => "close",
            Self::Ping => "ping",
            Self::Pong => "pong",
        }
    }
}
