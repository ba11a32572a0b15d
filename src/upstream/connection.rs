//! HTTP connections to endpoints: their sending halves, and what is known about them.

use super::body::Body;
use super::proxy_url::ProxyUrl;
use super::resend::RequestProgress;
use crate::net::BoxedIo;
use crate::net::guard::FramingGuard;
use crate::net::raw_target::RawTargets;
use crate::net::trailers::TrailerSender;
use crate::trace::exchange::TlsFacts;
use hyper::client::conn::{http1, http2};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// What is known about an upstream connection, for the span.
#[derive(Clone, Debug, Default)]
pub(crate) struct UpstreamFacts {
    /// The address dialled: the endpoint's, or the upstream proxy's.
    pub peer: Option<SocketAddr>,
    /// `None` for plain HTTP.
    pub tls: Option<TlsFacts>,
    /// The duration of name resolution, TCP and the upstream proxy's tunnel.
    pub connect: Option<Duration>,
    /// The duration of the TLS handshake.
    pub handshake: Option<Duration>,
    /// True once the response has ended with TLS, without close_notify.
    pub cut: Arc<AtomicBool>,
    /// True when the connection served a request before.
    pub reused: bool,
}

/// A stream to an endpoint, TLS included, that carries nothing yet.
pub(crate) struct EndpointStream {
    /// What the endpoint's application reads and writes.
    pub io: BoxedIo,
    /// What is known about it.
    pub facts: UpstreamFacts,
    /// True when HTTP on it is HTTP/2.
    pub(super) http2: bool,
    pub(super) forward_proxy: Option<ProxyUrl>,
}

/// A connection ready for a request.
pub(super) struct Connection {
    pub(super) sender: Sender,
    pub(super) facts: UpstreamFacts,
}

/// The sending half of an HTTP connection.
pub(super) enum Sender {
    Http1(Http1Sender),
    Http2(Http2Sender),
}

pub(super) struct Http1Sender {
    pub(super) requests: http1::SendRequest<Body>,
    /// Judges the framing of the responses.
    pub(super) guard: FramingGuard,
    /// Restores the targets of requests.
    pub(super) targets: RawTargets,
    /// Writes the trailers of requests.
    pub(super) trailers: TrailerSender,
    /// The upstream proxy that gets the requests, in absolute form. `None` for a direct or tunnelled connection.
    pub(super) forward_proxy: Option<ProxyUrl>,
}

#[derive(Clone)]
pub(super) struct Http2Sender {
    pub(super) requests: http2::SendRequest<Body>,
    /// The number of concurrent streams that the endpoint allows, from its last SETTINGS.
    pub(super) max_streams: Arc<AtomicUsize>,
    /// True once the endpoint has announced support of extended CONNECT (RFC 8441).
    pub(super) extended_connect: watch::Receiver<bool>,
    /// Makes the connection's task read both values above again. The channel holds one signal.
    pub(super) refresh: mpsc::Sender<()>,
    /// When the connection was made.
    pub(super) made: Instant,
}

/// Counts a request in progress on a shared connection. It must be held until the response has ended.
#[derive(Default)]
pub(crate) struct Lease {
    _counted: Option<Arc<()>>,
    /// How far the request was sent. `None` over HTTP/1.1.
    pub(super) request: Option<RequestProgress>,
}

impl Lease {
    /// A lease on the connection that `requests` counts for.
    pub(super) fn on(requests: &Arc<()>) -> Self {
        Self { _counted: Some(Arc::clone(requests)), request: None }
    }

    /// True while the agent's request goes on although its response has begun. Only HTTP/2 tells.
    pub(crate) fn is_early(&self) -> bool {
        self.request.as_ref().is_some_and(|request| !request.is_whole())
    }
}
