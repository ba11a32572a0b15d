//! Serves a client connection: detects its protocol, opens TLS, and hands HTTP requests to `answer`.

use super::state::Proxy;
use crate::forward::ConnectionContext;
use crate::net::drain::DrainGuard;
use crate::net::http_server::{self, HttpConnection, HttpVersion, ResponseOrigin, first_bytes};
use crate::net::prefixed::Prefixed;
use crate::net::sniff::Protocol;
use crate::net::{BoxedIo, within};
use crate::upstream::{PoolKey, Upstream};
use rustls::server::Acceptor;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

/// Serves one connection to the listener until it ends or the drain starts: HTTP/1.1 or HTTP/2 by prior knowledge, each
/// with or without TLS, or SOCKS5.
pub(crate) async fn serve_connection(proxy: Proxy, stream: TcpStream, peer: SocketAddr, guard: DrainGuard) {
    let mut connection = ConnectionContext::new(peer, proxy.inner.binding.clone(), guard.clone());
    let pool_key = PoolKey::PerConnection(connection.fallback_identity.0.shared());
    connection.guard = guard.clone().holding(ConnectionPool::open(proxy.inner.forwarder.upstream().clone(), pool_key));
    let local = stream.local_addr().map(|address| address.ip().to_string()).unwrap_or_default();
    let mut io: BoxedIo = Box::new(stream);
    let Some((protocol, seen)) = first_bytes(&mut io, proxy.inner.settings.header_timeout, &guard).await else {
        return;
    };
    let socks = seen.first() == Some(&SOCKS5);
    let io: BoxedIo = Box::new(Prefixed::new(seen, io));
    // The rare protocols are boxed: every connection's future is as large as its largest unboxed part.
    match protocol {
        Protocol::Opaque if socks => Box::pin(proxy.serve_socks(io, connection, guard)).await,
        Protocol::Http2 => Box::pin(proxy.serve_http2(io, Arc::new(connection))).await,
        Protocol::Tls => Box::pin(proxy.serve_tls(io, Arc::new(connection), &local)).await,
        // Anything that is not HTTP is answered as a malformed request.
        Protocol::Http1 | Protocol::Opaque => proxy.serve_http1(io, Arc::new(connection)).await,
    }
}

/// The upstream connections that only this client connection can use. They are closed with it.
struct ConnectionPool {
    upstream: Upstream,
    key: PoolKey,
}

impl ConnectionPool {
    fn open(upstream: Upstream, key: PoolKey) -> Self {
        upstream.open_pool(&key);
        Self { upstream, key }
    }
}

impl Drop for ConnectionPool {
    fn drop(&mut self) {
        self.upstream.close_pool(&self.key);
    }
}

impl Proxy {
    /// Serves HTTP of the given version, at the listener or inside a tunnel.
    pub(super) async fn serve_http(&self, io: BoxedIo, connection: Arc<ConnectionContext>, version: HttpVersion) {
        match version {
            HttpVersion::Http2 => Box::pin(self.serve_http2(io, connection)).await,
            HttpVersion::Http1 => self.serve_http1(io, connection).await,
        }
    }

    async fn serve_http1(&self, io: BoxedIo, connection: Arc<ConnectionContext>) {
        let proxy = self.clone();
        let served = self.http_connection(io, &connection);
        http_server::serve_http1(served, move |request, interim| {
            let (proxy, connection) = (proxy.clone(), Arc::clone(&connection));
            async move {
                match request {
                    Ok(request) => Box::pin(proxy.answer(&connection, request, Some(&interim))).await,
                    Err(fault) => Box::pin(proxy.reject_malformed(&connection, fault)).await,
                }
            }
        })
        .await;
    }

    async fn serve_http2(&self, io: BoxedIo, connection: Arc<ConnectionContext>) {
        let proxy = self.clone();
        let served = self.http_connection(io, &connection);
        http_server::serve_http2(served, move |request| {
            let (proxy, connection) = (proxy.clone(), Arc::clone(&connection));
            async move { Box::pin(proxy.answer(&connection, request, None)).await }
        })
        .await;
    }

    fn http_connection(&self, io: BoxedIo, connection: &ConnectionContext) -> HttpConnection {
        HttpConnection {
            io,
            peer: connection.client,
            drain: connection.guard.clone(),
            header_timeout: self.inner.settings.header_timeout,
            responses: ResponseOrigin::Endpoint,
        }
    }

    /// Serves TLS to the listener itself, for clients with an `https://` proxy URL.
    async fn serve_tls(&self, io: BoxedIo, connection: Arc<ConnectionContext>, local: &str) {
        let peer = connection.client;
        match within(self.inner.settings.header_timeout, self.tls_handshake(io, local)).await {
            Some(Ok((io, version))) => self.serve_http(io, connection, version).await,
            Some(Err(error)) => tracing::warn!(
                %peer, %error,
                "TLS with a client of the proxy failed; clients with an https:// proxy URL must trust Tracewire's CA"
            ),
            None => tracing::debug!(%peer, "a client did not complete its TLS handshake in time"),
        }
    }

    async fn tls_handshake(&self, io: BoxedIo, local: &str) -> io::Result<(BoxedIo, HttpVersion)> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
        let name = hello.client_hello().server_name().unwrap_or(local).to_owned();
        let offers_alpn = hello.client_hello().alpn().is_some();
        let alpn: &[&[u8]] = if offers_alpn { &[b"h2", b"http/1.1"] } else { &[] };
        let stream = hello.into_stream(self.inner.leaves.server_config(&name, alpn).map_err(io::Error::other)?).await?;
        let version = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => HttpVersion::Http2,
            _ => HttpVersion::Http1,
        };
        Ok((Box::new(stream), version))
    }
}

const SOCKS5: u8 = 5;
