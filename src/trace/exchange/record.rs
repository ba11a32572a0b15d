//! The record of one exchange: heads, bodies, times and how it ended.

use super::body::Body;
use super::connection::ConnectionFacts;
use super::gateway::GatewayFacts;
use super::identity::{Identity, TraceContext};
use super::websocket::Messages;
use crate::error::{ProxyError, Side};
use crate::trace::sampler_arrays::SamplerArrays;
use crate::trace::units::Timestamp;
use http::{HeaderMap, Method, StatusCode, Version};
use std::time::Duration;

/// Everything that was seen of a request and its response.
#[derive(Debug)]
pub struct Exchange {
    /// The rollout it belongs to.
    pub identity: Identity,
    /// Its place in its trace.
    pub trace: TraceContext,
    /// What sort of exchange it was.
    pub kind: ExchangeKind,
    /// The request's head, its target made absolute.
    pub request: RequestHead,
    /// The head of the final response. None until it has come.
    pub response: Option<ResponseHead>,
    /// Statuses of interim (1xx) responses before the final one.
    pub informational: Vec<u16>,
    /// The request's body.
    pub request_body: Body,
    /// The response's body.
    pub response_body: Body,
    /// The messages, if it became a WebSocket.
    pub messages: Messages,
    /// When things happened.
    pub timing: Timing,
    /// The connections it used.
    pub connection: ConnectionFacts,
    /// What was added to the request on the agent's behalf.
    pub injection: Injection,
    /// True when bodies are recorded whatever `capture.include_bodies` says.
    pub records_bodies: bool,
    /// What the gateway did, if this is one of its calls.
    pub gateway: Option<Box<GatewayFacts>>,
    /// How it ended.
    pub outcome: Outcome,
}

/// What sort of exchange it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeKind {
    /// A request and its response.
    Http,
    /// A protocol upgrade (WebSocket). Body sizes count the bytes after the 101.
    Upgrade,
    /// A CONNECT, and what was done with it. Body sizes count tunnelled bytes.
    Connect(ConnectPolicy),
}

/// What is done with a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectPolicy {
    /// TLS is terminated, and the exchanges inside are recorded.
    Intercept,
    /// Bytes are relayed unchanged and unread.
    Tunnel,
    /// It is refused.
    Reject,
}

impl ConnectPolicy {
    /// The word used in attributes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intercept => "intercept",
            Self::Tunnel => "tunnel",
            Self::Reject => "reject",
        }
    }
}

/// The request's head.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method as sent.
    pub method: Method,
    /// `http` or `https`; empty for CONNECT.
    pub scheme: &'static str,
    /// The host that the agent meant, without brackets.
    pub host: String,
    /// The port that the agent meant.
    pub port: u16,
    /// Path and query as sent; empty for CONNECT.
    pub target: String,
    /// The HTTP version between agent and proxy.
    pub version: Version,
    /// The fields as the agent sent them.
    pub headers: HeaderMap,
}

/// The response's head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The final status.
    pub status: StatusCode,
    /// The HTTP version between proxy and endpoint.
    pub version: Version,
    /// The fields as the endpoint sent them.
    pub headers: HeaderMap,
}

/// What was added to a request on the agent's behalf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Injection {
    /// Names of the added JSON and header fields.
    pub fields: Vec<&'static str>,
    /// The arrays that a setting wants, if the engine can return them.
    pub arrays: SamplerArrays,
    /// True when the fields that they caused are removed from the response again.
    pub strips: bool,
    /// Why token ids were not requested of an engine that gives some. `None`: they were, or the agent requested them itself.
    pub withheld: Option<Withheld>,
}

/// Why token ids were not requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// The engine would fail, or return other text, if this request asked for them.
    Combination,
    /// The endpoint rejected a request that asked for them.
    Rejected,
}

impl Injection {
    /// Nothing was added, for this reason.
    pub fn withheld(reason: Option<Withheld>) -> Self {
        Self { withheld: reason, ..Self::default() }
    }
}

/// When things happened. Durations count from `started_at` on the monotonic clock, unless they say how long something
/// took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Wall clock when the request head had been read.
    pub started_at: Timestamp,
    /// How long the upstream TCP connection took, DNS included. None if a pooled connection was used.
    pub connect: Option<Duration>,
    /// How long the upstream TLS handshake took. None if a pooled connection was used.
    pub tls: Option<Duration>,
    /// When the head of the final response had come.
    pub response_headers: Option<Duration>,
    /// When the first byte of the response body had come.
    pub first_body_byte: Option<Duration>,
    /// When it was over.
    pub ended: Duration,
}

/// How an exchange ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Both bodies passed whole.
    Complete,
    /// One side went away before the end.
    Aborted {
        /// The side that went away.
        by: Side,
    },
    /// It failed. The error knows the side.
    Failed {
        /// What went wrong.
        error: ProxyError,
    },
}

impl Outcome {
    /// The word used in attributes.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Aborted { .. } => "aborted",
            Self::Failed { .. } => "failed",
        }
    }
}
