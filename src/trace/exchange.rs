//! One request and its response as seen on the wire, before it is a span.
//!
//! Filled in by `capture`, read by `pipeline`. It holds the bytes as they passed, undecoded and unredacted, so it must
//! never be stored or logged.

use super::body_buffer::Kept;
use super::ids::{AttemptId, RolloutId, SpanId, TraceId};
use super::units::Timestamp;
use crate::error::{ProxyError, Side};
use http::{HeaderMap, Method, StatusCode, Version};
use std::net::SocketAddr;
use std::time::Duration;

/// Everything seen of one request and its answer.
#[derive(Debug)]
pub struct Exchange {
    /// Whose it is.
    pub identity: Identity,
    /// Where it stands in its trace.
    pub trace: TraceContext,
    /// What sort of exchange it was.
    pub kind: ExchangeKind,
    /// The request line, normalised to an absolute target.
    pub request: RequestHead,
    /// The final response's head, once there was one.
    pub response: Option<ResponseHead>,
    /// Interim (1xx) statuses that came before it.
    pub informational: Vec<u16>,
    /// What passed as request body.
    pub request_body: Body,
    /// What passed as response body.
    pub response_body: Body,
    /// What passed as WebSocket messages, if it was one.
    pub messages: Messages,
    /// When things happened.
    pub timing: Timing,
    /// The connections it used.
    pub connection: ConnectionFacts,
    /// What was added to the request on the agent's behalf.
    pub injection: Injection,
    /// True when bodies are recorded whatever the settings say.
    pub keeps_bodies: bool,
    /// What the gateway did, if it was its call.
    pub gateway: Option<Box<GatewayFacts>>,
    /// How it ended.
    pub outcome: Outcome,
}

/// What the gateway did with a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayFacts {
    /// The URL of the backend that answered, or was tried last.
    pub backend: Option<String>,
    /// The model that the agent named, where the backend was asked for another.
    pub requested_model: Option<String>,
    /// `train` or `val`, if the route says so.
    pub mode: Option<String>,
    /// The dialect of the agent, where it was translated.
    pub translated_from: Option<&'static str>,
    /// Where the agent meant to call, where it was rerouted or came by a base URL of ours.
    pub called: Option<String>,
    /// Which try this is: 0 for the first.
    pub resend_count: u32,
    /// How long it waited while the gateway was paused.
    pub held: Duration,
    /// The policy's versions in the order in which they answered, each with the bytes that were kept when it began.
    pub versions: Vec<(i64, usize)>,
    /// By how many versions the policy is ahead of the one that the rollout began with.
    pub staleness: Option<i64>,
    /// The span of the call whose answer was given for this one, its retry; and whether that was still in flight.
    pub joined: Option<(SpanId, bool)>,
    /// True for a try that was followed by another: no call of its own.
    pub is_failed_try: bool,
}

/// What sort of exchange it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeKind {
    /// A request and its response.
    Http,
    /// A protocol upgrade (WebSocket): sizes count the bytes after the 101.
    Upgrade,
    /// A CONNECT, and what was done with it: sizes count tunnelled bytes.
    Connect(ConnectPolicy),
}

/// What happens to a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectPolicy {
    /// Opened, so that its exchanges are seen.
    Intercept,
    /// Relayed byte for byte.
    Tunnel,
    /// Refused.
    Reject,
}

/// Whose exchange it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The rollout.
    pub rollout_id: RolloutId,
    /// The attempt.
    pub attempt_id: AttemptId,
    /// Order within the rollout, taken when the request started.
    pub sequence_id: u64,
    /// Which carrier named the rollout.
    pub source: IdentitySource,
    /// Another carrier that named a different rollout or attempt, as `carrier=rollout/attempt`.
    pub conflict: Option<String>,
}

/// The carrier that named a rollout, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IdentitySource {
    /// The gateway's URL prefix.
    Url,
    /// `x-rollout-id` and its companions.
    Headers,
    /// The API key, where it is one of ours.
    Key,
    /// The user name of the proxy credentials.
    NamedRollout,
    /// What the door is bound to (`tracewire run`).
    Binding,
    /// Nobody: a rollout of the connection's own.
    Connection,
}

impl IdentitySource {
    /// The word used in attributes and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Headers => "headers",
            Self::Key => "key",
            Self::NamedRollout => "credentials",
            Self::Binding => "binding",
            Self::Connection => "connection",
        }
    }
}

/// Where an exchange stands in its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The caller's trace, or the attempt's.
    pub trace_id: TraceId,
    /// This exchange's span.
    pub span_id: SpanId,
    /// The caller's span, or the attempt's root.
    pub parent_id: SpanId,
    /// True when the parent came in a `traceparent` header.
    pub parent_is_remote: bool,
}

/// The request's head.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method as sent.
    pub method: Method,
    /// `http` or `https`; empty for CONNECT.
    pub scheme: &'static str,
    /// The host it was meant for, without brackets.
    pub host: String,
    /// The port it was meant for.
    pub port: u16,
    /// Path and query as sent; empty for CONNECT.
    pub target: String,
    /// The version the agent spoke.
    pub version: Version,
    /// The fields as sent by the agent.
    pub headers: HeaderMap,
}

/// The response's head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The final status.
    pub status: StatusCode,
    /// The version the endpoint spoke.
    pub version: Version,
    /// The fields as they came.
    pub headers: HeaderMap,
}

/// One direction's body: what was kept of it, and how much there was.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// The kept bytes. Empty when bodies are not captured.
    pub kept: Kept,
    /// Bytes that passed, as transferred (compressed).
    pub size_bytes: u64,
    /// Data frames that passed.
    pub frames: u64,
    /// Why `kept` holds less than passed, if it should hold all.
    pub truncated: Option<Truncation>,
    /// True once the end was seen.
    pub complete: bool,
    /// Trailer fields.
    pub trailers: Option<HeaderMap>,
    /// When the first frames of a kept response came.
    pub arrivals: Vec<Arrival>,
}

/// What was added to a request on the agent's behalf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Injection {
    /// Fields of the body, and of the header.
    pub fields: Vec<&'static str>,
    /// True when the agent does not see what came of it.
    pub strips: bool,
}

/// A frame's end in the kept bytes, and when it came, from the start of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Bytes kept by then.
    pub end: usize,
    /// When.
    pub at: Duration,
}

/// The messages of a WebSocket, both directions, in the order in which they passed.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    /// Those that were kept.
    pub kept: Vec<Message>,
    /// How many passed.
    pub count: u64,
    /// What was not WebSocket, if something was not; the messages end there.
    pub fault: Option<&'static str>,
}

/// One WebSocket message, or control frame.
#[derive(Clone, Debug)]
pub struct Message {
    /// True when the agent sent it.
    pub by_agent: bool,
    /// When its last byte passed, from the start of the exchange.
    pub at: Duration,
    /// `text`, `binary`, `close`, `ping` or `pong`.
    pub opcode: &'static str,
    /// Bytes of payload on the wire.
    pub size_bytes: u64,
    /// The payload, unmasked, as far as it was kept.
    pub payload: Vec<u8>,
    /// True when the payload is compressed by permessage-deflate.
    pub compressed: bool,
    /// False when the connection ended within it.
    pub complete: bool,
}

/// Why a captured body is shorter than what passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// Longer than `capture.max_body_bytes`.
    BodyLimit,
    /// The capture memory budget was spent.
    MemoryBudget,
}

impl Truncation {
    /// The word used in attributes and counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BodyLimit => "max_body_bytes",
            Self::MemoryBudget => "memory_budget_bytes",
        }
    }
}

/// When things happened. Durations count from `started_at` on the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Wall clock when the request head had been read.
    pub started_at: Timestamp,
    /// The upstream TCP connection (incl. DNS) took this long, if one was made for this exchange.
    pub connect: Option<Duration>,
    /// The upstream TLS handshake took this long, if one was made for this exchange.
    pub tls: Option<Duration>,
    /// The final response head had come.
    pub response_headers: Option<Duration>,
    /// The first response body byte had come.
    pub first_body_byte: Option<Duration>,
    /// It was over.
    pub ended: Duration,
}

/// The connections an exchange used.
#[derive(Clone, Debug, Default)]
pub struct ConnectionFacts {
    /// The agent's address.
    pub client: Option<SocketAddr>,
    /// Number of the agent's connection in this process.
    pub downstream_id: u64,
    /// The version and TLS of the agent's side.
    pub downstream_tls: Option<TlsFacts>,
    /// The endpoint's address as dialled.
    pub upstream_peer: Option<SocketAddr>,
    /// The endpoint's TLS.
    pub upstream_tls: Option<TlsFacts>,
    /// True when an upstream connection was used again.
    pub upstream_reused: bool,
    /// The client that would not have our certificate, if it was so.
    pub refusal: Option<Refusal>,
}

/// A client that broke off its TLS handshake with us, as far as it can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// `User-Agent` of its CONNECT.
    pub user_agent: Option<String>,
    /// The name of its program, if it runs on this machine.
    pub program: Option<String>,
    /// What it offered by ALPN, comma-separated.
    pub alpn: String,
    /// Its TLS fingerprint (JA4).
    pub fingerprint: Option<String>,
    /// What it must set to trust us, if it was about trust.
    pub advice: Option<String>,
}

/// What was negotiated in a TLS handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// `1.2` or `1.3`.
    pub version: Option<&'static str>,
    /// The cipher suite's IANA name.
    pub cipher: Option<String>,
    /// The protocol agreed by ALPN.
    pub alpn: Option<String>,
    /// The server name the client asked for.
    pub server_name: Option<String>,
    /// True when the peer's certificate was not verified because a setting says so.
    pub unverified: bool,
}

/// How an exchange ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Both bodies passed whole.
    Complete,
    /// One side went away before the end.
    Aborted {
        /// Who.
        by: Side,
    },
    /// It failed; the error says on which side.
    Failed {
        /// What went wrong.
        error: ProxyError,
    },
}
