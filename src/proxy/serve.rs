//! HTTP toward the agent: on a plain connection to the door, and inside its tunnels.

use super::{Proxy, refuse};
use crate::error::{ErrorKind, ProxyError};
use crate::forward::Conversation;
use crate::net::BoxedIo;
use crate::net::drain::DrainGuard;
use crate::net::interim::{InterimIo, InterimSender};
use crate::upstream::{Body, Origin};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Serves one connection to the door until it ends or the drain starts.
pub async fn serve_connection(proxy: Proxy, stream: TcpStream, peer: SocketAddr, guard: DrainGuard) {
    let conversation = Conversation::new(peer, proxy.inner.binding.clone(), guard.clone());
    let (io, interim) = InterimIo::new(Box::new(stream));
    let header_timeout = proxy.inner.settings.header_timeout;
    let service = service_fn(move |request: Request<Incoming>| {
        let (proxy, conversation, interim) = (proxy.clone(), conversation.clone(), interim.clone());
        async move { infallible(Box::pin(proxy.answer(&conversation, request, &interim)).await) }
    });
    let connection = http1(header_timeout).serve_connection(TokioIo::new(io), service).with_upgrades();
    until_drained(connection, |connection| connection.graceful_shutdown(), peer, guard).await;
}

impl Proxy {
    /// Serves HTTP/1.1 inside a tunnel.
    pub(super) async fn serve_http1(&self, io: BoxedIo, conversation: Conversation) {
        let (io, interim) = InterimIo::new(io);
        let (peer, guard) = (conversation.client, conversation.guard.clone());
        let (proxy, conversation) = (self.clone(), Arc::new(conversation));
        let service = service_fn(move |request| {
            let (proxy, conversation, interim) = (proxy.clone(), Arc::clone(&conversation), interim.clone());
            async move { infallible(Box::pin(proxy.answer_inside(&conversation, request, Some(&interim))).await) }
        });
        let builder = http1(self.inner.settings.header_timeout);
        let connection = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
        until_drained(connection, |connection| connection.graceful_shutdown(), peer, guard).await;
    }

    /// Serves HTTP/2 inside a tunnel.
    pub(super) async fn serve_http2(&self, io: BoxedIo, conversation: Conversation) {
        let (peer, guard) = (conversation.client, conversation.guard.clone());
        let (proxy, conversation) = (self.clone(), Arc::new(conversation));
        let service = service_fn(move |request| {
            let (proxy, conversation) = (proxy.clone(), Arc::clone(&conversation));
            async move { infallible(Box::pin(proxy.answer_inside(&conversation, request, None)).await) }
        });
        let connection = http2_builder().serve_connection(TokioIo::new(io), service);
        until_drained(connection, |connection| connection.graceful_shutdown(), peer, guard).await;
    }

    /// Answers one request inside a tunnel.
    async fn answer_inside(
        &self,
        conversation: &Conversation,
        request: Request<Incoming>,
        interim: Option<&InterimSender>,
    ) -> Response<Body> {
        let tunnel = conversation.tunnel.as_ref().map(|tunnel| tunnel.origin.clone());
        // Over HTTP/2 every target is absolute and the tunnel's origin knows where to dial.
        let named = if request.version() == Version::HTTP_2 { None } else { inner_origin(&request) };
        match named.or(tunnel) {
            Some(origin) => self.inner.forwarder.handle(conversation, origin, request, None, interim).await,
            None => refuse(&ProxyError::new(ErrorKind::ProxyInternalError, "", "a request inside no tunnel")),
        }
    }
}

/// Runs a connection to its end; once the drain starts it finishes what it is at and takes nothing new.
async fn until_drained<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    finish: fn(Pin<&mut C>),
    peer: SocketAddr,
    mut guard: DrainGuard,
) {
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = guard.started() => {
            finish(connection.as_mut());
            connection.await
        }
    };
    note_end(peer, ended);
}

/// An absolute-form target inside a tunnel names its own origin, which `forward` compares with the tunnel's.
fn inner_origin(request: &Request<Incoming>) -> Option<Origin> {
    let uri = request.uri();
    let tls = uri.scheme_str()? == "https";
    Some(Origin::new(tls, uri.host()?, uri.port_u16().unwrap_or(if tls { 443 } else { 80 })))
}

fn infallible(response: Response<Body>) -> Result<Response<Body>, Infallible> {
    Ok(response)
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_header_list_size(MOST_HEADER_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MOST_STREAMS)
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
        .max_headers(MOST_HEADERS);
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

const MOST_HEADERS: usize = 512;
const MOST_HEADER_BYTES: u32 = 64 * 1024;
const MOST_STREAMS: u32 = 1000;
const WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(60);
