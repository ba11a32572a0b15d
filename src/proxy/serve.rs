//! Serves a client connection: detects its protocol, opens TLS, and hands HTTP requests to `answer`.

use super::state::Proxy;
use crate::forward::{ConnectionContext, reply};
use crate::net::drain::DrainGuard;
use crate::net::http_server::{self, HttpConnection, HttpVersion, ResponseOrigin, first_bytes};
use crate::net::prefixed::Prefixed;
use crate::net::sniff::Protocol;
use crate::net::{BoxedIo, within};
use crate::tls::LeafKey;
use crate::upstream::{PoolKey, Upstream};
use crate::util::panics::caught;
use http::Version;
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
                let answered = match request {
                    Ok(request) => caught(Box::pin(proxy.answer(&connection, request, Some(&interim)))).await,
                    Err(fault) => caught(Box::pin(proxy.reject_malformed(&connection, Version::HTTP_11, fault))).await,
                };
                answered.unwrap_or_else(|panicked| reply::error(&panicked.into()))
            }
        })
        .await;
    }

    async fn serve_http2(&self, io: BoxedIo, connection: Arc<ConnectionContext>) {
        let proxy = self.clone();
        let served = self.http_connection(io, &connection);
        http_server::serve_http2(served, move |request| {
            let (proxy, connection) = (proxy.clone(), Arc::clone(&connection));
            async move {
                let answered = match request {
                    Ok(request) => caught(Box::pin(proxy.answer(&connection, request, None))).await,
                    Err(fault) => caught(Box::pin(proxy.reject_malformed(&connection, Version::HTTP_2, fault))).await,
                };
                answered.unwrap_or_else(|panicked| reply::error(&panicked.into()))
            }
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
        // Without a key that the client can use, the handshake fails with the cause.
        let key = LeafKey::for_client(&(&hello.client_hello()).into()).unwrap_or(LeafKey::P256);
        let config = self.inner.leaves.server_config(&name, alpn, key).map_err(io::Error::other)?;
        let stream = hello.into_stream(config).await?;
        let version = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => HttpVersion::Http2,
            _ => HttpVersion::Http1,
        };
        Ok((Box::new(stream), version))
    }
}

const SOCKS5: u8 = 5;

#[cfg(test)]
mod tests {
    use super::super::certificate_rejections::CertificateRejections;
    use super::*;
    use crate::capture::{CaptureQueue, CaptureSettings, Recorder};
    use crate::error::ErrorKind;
    use crate::forward::{Forwarder, RequestInterceptor, request_head};
    use crate::net::drain::Drain;
    use crate::net::listener::{ConnectionLimits, accept};
    use crate::shared_state::SequenceAllocator;
    use crate::tls::{CertAuthority, LeafCache, UpstreamTls};
    use crate::trace::exchange::{ExchangeKind, Outcome};
    use crate::upstream::{Body, Origin, body};
    use crate::util::block_list::BlockList;
    use http::{Request, Response, StatusCode};
    use http_body_util::BodyExt;
    use hyper::body::Incoming;
    use hyper::client::conn::{http1, http2};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use std::pin::Pin;
    use std::time::Instant;
    use tokio::net::TcpListener;

    /// Panics within an exchange: before its response, or in the response's body.
    struct Panics(Forwarder);

    impl RequestInterceptor for Panics {
        fn may_intercept(&self, _: &Origin) -> bool {
            true
        }

        fn intercepts(&self, _: &Origin, _: &Request<Incoming>) -> bool {
            true
        }

        fn handle<'a>(
            &'a self,
            connection: &'a ConnectionContext,
            origin: Origin,
            request: Request<Incoming>,
        ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send + 'a>> {
            Box::pin(async move {
                let head = request_head(&origin, &request);
                let exchange = self.0.start_exchange(connection, ExchangeKind::Http, head, Instant::now()).await;
                assert_eq!(request.uri().path(), "/body", "on purpose");
                let body = http_body_util::StreamBody::new(futures_util::stream::poll_fn(move |_| {
                    let _held = &exchange;
                    assert!(std::hint::black_box(false), "on purpose");
                    std::task::Poll::Ready(None)
                }));
                Response::new(body.boxed_unsync())
            })
        }
    }

    /// A proxy that panics on requests, and the queue of its exchanges.
    async fn proxy() -> (SocketAddr, Drain, CaptureQueue) {
        crate::tls::install_provider();
        let (recorder, queue) = Recorder::with_one_queue(CaptureSettings::default(), std::env::temp_dir());
        let tls = UpstreamTls::new(&crate::tls::TlsSettings::default()).unwrap();
        let upstream =
            Upstream::new(crate::upstream::UpstreamSettings::default(), tls, BlockList::default(), &|_| None).unwrap();
        let sequences = SequenceAllocator::without_store();
        let (trace, tokens, engines) = Default::default();
        let forwarder = Forwarder::new(upstream, recorder, sequences, trace, tokens, engines);
        let forwarder = forwarder.clone().with_interceptor(Arc::new(Panics(forwarder)));
        let leaves = Arc::new(LeafCache::new(CertAuthority::ephemeral("Tests").unwrap()).unwrap());
        let rejections = Arc::new(CertificateRejections::new(|_, _| String::new()));
        let proxy =
            Proxy::new(super::super::settings::ProxySettings::default(), forwarder, leaves, None, rejections, None);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, drain) = (listener.local_addr().unwrap(), Drain::new());
        tokio::spawn(accept(listener, ConnectionLimits::new(10), drain.guard(), move |stream, peer, guard| {
            serve_connection(proxy.clone(), stream, peer, guard)
        }));
        (address, drain, queue)
    }

    #[tokio::test]
    async fn a_panic_costs_its_exchange_and_not_its_connection() {
        let (address, _drain, mut queue) = proxy().await;
        let connect = || async { TokioIo::new(TcpStream::connect(address).await.unwrap()) };
        let (mut first, connection) = http1::handshake::<_, Body>(connect().await).await.unwrap();
        tokio::spawn(connection);
        let (mut second, connection) = http2::handshake(TokioExecutor::new(), connect().await).await.unwrap();
        tokio::spawn(connection);
        for path in ["head", "body"] {
            for version in [Version::HTTP_11, Version::HTTP_2] {
                let request = Request::get(format!("http://h/{path}")).version(version).header("host", "h");
                let request = request.body(body::empty()).unwrap();
                let response = match version {
                    Version::HTTP_2 => second.send_request(request).await,
                    _ => first.send_request(request).await,
                };
                let response = response.unwrap();
                let expected = if path == "head" { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
                assert_eq!(response.status(), expected, "{path} {version:?}");
                let body = response.into_body().collect().await;
                assert_eq!(body.is_ok(), path == "head", "{path} {version:?}: an error, or a response that breaks off");
                let outcome = queue.recv().await.unwrap().exchange.outcome;
                let Outcome::Failed { error } = outcome else { panic!("{path} {version:?}: {outcome:?}") };
                assert_eq!(error.kind, ErrorKind::ProxyInternalError);
            }
        }
    }
}
