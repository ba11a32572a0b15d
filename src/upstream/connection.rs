//! HTTP connections to endpoints: their sending halves, and what is known about them.

use super::body::Body;
use super::proxy_url::ProxyUrl;
use crate::net::BoxedIo;
use crate::net::guard::FramingGuard;
use crate::net::raw_target::RawTargets;
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
#[derive(Debug, Default)]
pub(crate) struct Lease(#[expect(dead_code, reason = "held, not read")] Option<Arc<()>>);

impl Lease {
    /// A lease on the connection that `requests` counts for.
    pub(super) fn on(requests: &Arc<()>) -> Self {
        Self(Some(Arc::clone(requests)))
    }
}
