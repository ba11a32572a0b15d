//! What an agent's connection speaks, and HTTP toward it: at the door, and inside its tunnels.

use super::Proxy;
use crate::error::ProxyError;
use crate::forward::{ConnectionContext, Tunnel};
use crate::net::BoxedIo;
use crate::net::drain::DrainGuard;
use crate::net::guard::GuardedIo;
use crate::net::interim::{InterimIo, InterimSender};
use crate::net::prefixed::Prefixed;
use crate::net::sniff::{Protocol, sniff};
use crate::trace::exchange::{ExchangeKind, RequestHead};
use crate::upstream::{Body, Isolation, Origin, Upstream, within};
use crate::wire::framing::head::MAX_FIELDS;
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::server::Acceptor;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

/// Serves one connection to the door until it ends or the drain starts: HTTP/1.1, HTTP/2 by prior knowledge, either of
/// them over TLS, or SOCKS5.
pub async fn serve_connection(proxy: Proxy, stream: TcpStream, peer: SocketAddr, guard: DrainGuard) {
    let mut conversation = ConnectionContext::new(peer, proxy.inner.binding.clone(), guard.clone());
    let own = Isolation::of_connection(conversation.own.0.shared());
    conversation.guard = guard.clone().holding(OwnPool::open(proxy.inner.forwarder.upstream().clone(), own));
    let local = stream.local_addr().map(|address| address.ip().to_string()).unwrap_or_default();
    let mut io: BoxedIo = Box::new(stream);
    let limit = proxy.inner.settings.header_timeout;
    let mut draining = guard.clone();
    let sniffed = tokio::select! {
        sniffed = within(limit, sniff(&mut io, std::future::pending())) => sniffed,
        // Nothing was said yet: nothing is cut off.
        () = draining.started() => return,
    };
    let Some(Ok((protocol, seen))) = sniffed else { return };
    let socks = seen.first() == Some(&SOCKS5);
    let io: BoxedIo = Box::new(Prefixed::new(seen, io));
    // The rare ones boxed: every connection has the room of the largest that is not.
    match protocol {
        Protocol::Opaque if socks => Box::pin(proxy.serve_socks(io, conversation, guard)).await,
        Protocol::Http2 => Box::pin(proxy.serve_http2(io, Arc::new(conversation))).await,
        Protocol::Tls => Box::pin(proxy.serve_tls(io, Arc::new(conversation), &local)).await,
        // What is no HTTP is answered as a request that can't be read.
        Protocol::Http1 | Protocol::Opaque => proxy.serve_http1(io, Arc::new(conversation)).await,
    }
}

/// The upstream connections of a rollout that is a connection's own: nobody else can use them.
struct OwnPool {
    upstream: Upstream,
    isolation: Isolation,
}

impl OwnPool {
    fn open(upstream: Upstream, isolation: Isolation) -> Self {
        upstream.open(&isolation);
        Self { upstream, isolation }
    }
}

impl Drop for OwnPool {
    fn drop(&mut self) {
        self.upstream.forget(&self.isolation);
    }
}

impl Proxy {
    /// TLS to the door itself, for clients whose proxy URL is `https://`.
    async fn serve_tls(&self, io: BoxedIo, conversation: Arc<ConnectionContext>, local: &str) {
        let peer = conversation.client;
        let opened = within(self.inner.settings.header_timeout, self.shake_hands(io, local)).await;
        match opened {
            Some(Ok((io, true))) => self.serve_http2(io, conversation).await,
            Some(Ok((io, false))) => self.serve_http1(io, conversation).await,
            Some(Err(error)) => {
                tracing::warn!(%peer, %error, "no TLS with a client of the proxy door; an https:// proxy URL needs our CA too");
            }
            None => tracing::debug!(%peer, "no TLS handshake in time"),
        }
    }

    /// The connection, and whether HTTP/2 was agreed on.
    async fn shake_hands(&self, io: BoxedIo, local: &str) -> io::Result<(BoxedIo, bool)> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
        let name = hello.client_hello().server_name().unwrap_or(local).to_owned();
        let offers = hello.client_hello().alpn().is_some();
        let alpn: &[&[u8]] = if offers { &[b"h2", b"http/1.1"] } else { &[] };
        let stream = hello.into_stream(self.inner.leaves.server_config(&name, alpn).map_err(io::Error::other)?).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Box::new(stream), http2))
    }

    /// Serves HTTP/1.1, at the door or inside a tunnel.
    pub(super) async fn serve_http1(&self, io: BoxedIo, conversation: Arc<ConnectionContext>) {
        let (io, framing) = GuardedIo::of_requests(io);
        let (io, interim) = InterimIo::new(Box::new(io));
        let (peer, guard) = (conversation.client, conversation.guard.clone());
        let proxy = self.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let fault = framing.next_request();
            let (proxy, conversation) = (proxy.clone(), Arc::clone(&conversation));
            let (interim, framing) = (interim.clone(), framing.clone());
            async move {
                let connects = request.method() == Method::CONNECT;
                let response = match fault {
                    Some(fault) => Box::pin(proxy.refuse_malformed(&conversation, fault.of_request())).await,
                    None => Box::pin(proxy.answer(&conversation, request, Some(&interim))).await,
                };
                let status = response.status();
                framing.switch(status == StatusCode::SWITCHING_PROTOCOLS || (connects && status.is_success()));
                infallible(response)
            }
        });
        let builder = http1(self.inner.settings.header_timeout);
        let connection = pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
        until_drained(connection, |connection| connection.graceful_shutdown(), peer, guard).await;
    }

    /// Serves HTTP/2, at the door or inside a tunnel.
    pub(super) async fn serve_http2(&self, io: BoxedIo, conversation: Arc<ConnectionContext>) {
        let (peer, guard) = (conversation.client, conversation.guard.clone());
        let proxy = self.clone();
        let service = service_fn(move |request| {
            let (proxy, conversation) = (proxy.clone(), Arc::clone(&conversation));
            async move { infallible(Box::pin(proxy.answer(&conversation, request, None)).await) }
        });
        let connection = pin!(http2_builder().serve_connection(TokioIo::new(io), service));
        until_drained(connection, |connection| connection.graceful_shutdown(), peer, guard).await;
    }

    /// Answers one request inside a tunnel.
    pub(super) async fn answer_inside(
        &self,
        conversation: &ConnectionContext,
        tunnel: &Tunnel,
        request: Request<Incoming>,
        interim: Option<&InterimSender>,
    ) -> Response<Body> {
        let origin = origin_inside(tunnel, &request);
        let refusal = if origin == tunnel.origin { None } else { self.blocked(&origin.host, origin.port) };
        self.inner.forwarder.handle(conversation, origin, request, refusal, interim).await
    }

    /// Answers a request whose head the HTTP library was not shown.
    async fn refuse_malformed(&self, conversation: &ConnectionContext, error: ProxyError) -> Response<Body> {
        let origin = conversation.tunnel.as_ref().map(|tunnel| &tunnel.origin);
        let head = RequestHead {
            method: Method::from_bytes(b"_OTHER").unwrap_or(Method::OPTIONS),
            scheme: "",
            host: origin.map_or_else(String::new, |origin| origin.host.clone()),
            port: origin.map_or(0, |origin| origin.port),
            target: String::new(),
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
        };
        self.inner.forwarder.refuse(conversation, ExchangeKind::Http, head, &error).await
    }
}

/// Runs a connection to its end; once the drain starts it finishes what it is at and takes nothing new.
async fn until_drained<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    finish: fn(Pin<&mut C>),
    peer: SocketAddr,
    mut guard: DrainGuard,
) {
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = guard.started() => {
            finish(connection.as_mut());
            connection.await
        }
    };
    note_end(peer, ended);
}

/// The endpoint of a request inside a tunnel, which `forward` compares with the tunnel's.
fn origin_inside(tunnel: &Tunnel, request: &Request<Incoming>) -> Origin {
    let (uri, leads) = (request.uri(), &tunnel.origin);
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let named = uri.authority().or(host.as_ref());
    // A client that resolves names itself asks for an address; without TLS only the request says whom it means.
    if let Some(named) = named
        && tunnel.tls.is_none()
        && leads.host.parse::<IpAddr>().is_ok()
        && named.port_u16().unwrap_or(leads.port) == leads.port
    {
        let origin = Origin::new(false, named.host(), leads.port);
        let dial_host = (origin.host != leads.host).then(|| leads.host.clone());
        return Origin { dial_host, ..origin };
    }
    // Over HTTP/2 every target is absolute, and the tunnel's origin knows where to dial.
    match (request.version(), uri.scheme_str(), uri.host()) {
        (Version::HTTP_11 | Version::HTTP_10, Some(scheme), Some(host)) => {
            let tls = scheme == "https";
            Origin::new(tls, host, uri.port_u16().unwrap_or(if tls { 443 } else { 80 }))
        }
        _ => leads.clone(),
    }
}

fn infallible(response: Response<Body>) -> Result<Response<Body>, Infallible> {
    Ok(response)
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_header_list_size(MAX_HEADER_BYTES)
        // WebSocket over HTTP/2 (RFC 8441).
        .enable_connect_protocol()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(Some(PING_EVERY))
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

fn http1(header_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The endpoint's answer is passed on as it is: no Date of ours, names in its spelling.
        .auto_date_header(false)
        .preserve_header_case(true)
        .max_headers(MAX_FIELDS);
    if !header_timeout.is_zero() {
        builder.header_read_timeout(header_timeout);
    }
    builder
}

/// A connection that ends in an error is said once, here. Bad input of an agent is no fault of the program.
fn note_end(peer: SocketAddr, ended: hyper::Result<()>) {
    match ended {
        Err(error) if error.is_parse() => {
            let cause = crate::error::source_chain(&error);
            tracing::warn!(%peer, cause, "not an HTTP request; the proxy door takes HTTP/1.1 and CONNECT");
        }
        Err(error) => tracing::debug!(%peer, cause = crate::error::source_chain(&error), "connection ended"),
        Ok(()) => {}
    }
}

const SOCKS5: u8 = 5;
const MAX_HEADER_BYTES: u32 = 64 * 1024;
const MAX_STREAMS: u32 = 1000;
const WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(60);
