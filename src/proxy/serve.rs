//! HTTP toward the agent: on a plain connection to the door, and inside its tunnels.

use super::Proxy;
use crate::forward::Conversation;
use crate::net::BoxedIo;
use crate::net::drain::DrainGuard;
use crate::net::interim::InterimIo;
use crate::upstream::{Body, Origin};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Serves one connection to the door until it ends or the drain starts.
pub async fn serve_connection(proxy: Proxy, stream: TcpStream, peer: SocketAddr, guard: DrainGuard) {
    let conversation = Conversation::new(peer, proxy.inner.binding.clone());
    let (io, interim) = InterimIo::new(Box::new(stream));
    let header_timeout = proxy.inner.settings.header_timeout;
    let inner_guard = guard.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (proxy, conversation) = (proxy.clone(), conversation.clone());
        let (interim, guard) = (interim.clone(), inner_guard.clone());
        async move { infallible(Box::pin(proxy.answer(&conversation, request, &interim, &guard)).await) }
    });
    let connection = http1(header_timeout).serve_connection(TokioIo::new(io), service).with_upgrades();
    tokio::pin!(connection);
    let mut started = guard;
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = started.started() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    note_end(peer, ended);
}

impl Proxy {
    /// Serves HTTP/1.1 inside a tunnel.
    pub(super) async fn serve_http1(&self, io: BoxedIo, conversation: Conversation, guard: DrainGuard) {
        let (proxy, peer) = (self.clone(), conversation.client);
        let (io, interim) = InterimIo::new(io);
        let conversation = Arc::new(conversation);
        let service = service_fn(move |request: Request<Incoming>| {
            let (proxy, conversation, interim) = (proxy.clone(), Arc::clone(&conversation), interim.clone());
            async move {
                let Some(origin) = conversation.tunnel.as_ref().map(|tunnel| tunnel.origin.clone()) else {
                    return infallible(Response::new(crate::upstream::body::empty()));
                };
                let origin = inner_origin(&request).unwrap_or(origin);
                let forwarder = &proxy.inner.forwarder;
                infallible(Box::pin(forwarder.handle(&conversation, origin, request, None, Some(&interim))).await)
            }
        });
        let timeout = self.inner.settings.header_timeout;
        let connection = http1(timeout).serve_connection(TokioIo::new(io), service).with_upgrades();
        tokio::pin!(connection);
        let mut started = guard;
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = started.started() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        note_end(peer, ended);
    }

    /// Serves HTTP/2 inside a tunnel.
    pub(super) async fn serve_http2(&self, io: BoxedIo, conversation: Conversation, guard: DrainGuard) {
        let (proxy, peer) = (self.clone(), conversation.client);
        let conversation = Arc::new(conversation);
        let service = service_fn(move |request: Request<Incoming>| {
            let (proxy, conversation) = (proxy.clone(), Arc::clone(&conversation));
            async move {
                let Some(origin) = conversation.tunnel.as_ref().map(|tunnel| tunnel.origin.clone()) else {
                    return infallible(Response::new(crate::upstream::body::empty()));
                };
                let forwarder = &proxy.inner.forwarder;
                infallible(Box::pin(forwarder.handle(&conversation, origin, request, None, None)).await)
            }
        });
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
        let connection = builder.serve_connection(TokioIo::new(io), service);
        tokio::pin!(connection);
        let mut started = guard;
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = started.started() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        note_end(peer, ended);
    }
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
