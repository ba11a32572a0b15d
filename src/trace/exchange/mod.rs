//! One request and its response on the wire, before it becomes a span: filled in by `capture`, read by `pipeline`.
//!
//! It holds the bytes as they passed, undecoded and unredacted, so it must never be stored or logged.

mod body;
mod connection;
mod gateway;
mod identity;
mod record;
mod websocket;

pub use body::{Arrival, Body, BodyContent, Direction, RawEnd, RecordedForm, Truncation};
pub use connection::{ConnectionFacts, Refusal, TlsFacts};
pub use gateway::{GatewayFacts, JoinedCall, PolicyVersionStart};
pub use identity::{ANONYMOUS_USER, Identity, IdentitySource, TraceContext};
pub use record::{
    ConnectPolicy, Exchange, ExchangeKind, Injection, Outcome, RequestHead, ResponseHead, Timing, Withheld,
};
pub use websocket::{Message, MessageOpcode, Messages};
