//! Inside a CONNECT or SOCKS tunnel: detects the protocol, opens TLS with a leaf certificate of ours, serves HTTP, and
//! relays everything else unopened.

use super::certificate_rejections::{ClientIdentity, PendingAcceptance};
use super::connect::Established;
use super::state::Proxy;
use super::tls_alert_observer::TlsAlertObserver;
use crate::error::{ErrorKind, ProxyError};
use crate::forward::upgrade::relay_bytes;
use crate::forward::{ActiveExchange, ConnectionContext, Tunnel};
use crate::net::http_server::HttpVersion;
use crate::net::prefixed::Prefixed;
use crate::net::sniff::{Protocol, read_record, sniff};
use crate::net::{BoxedIo, within};
use crate::tls::{Offer, facts};
use crate::trace::exchange::{ConnectPolicy, ExchangeKind, Outcome};
use crate::upstream::{DialPurpose, Dialled, Origin, authority};
use crate::wire::client_hello::server_name;
use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

/// HTTP inside a tunnel, ready to be served.
struct TunnelledHttp {
    io: BoxedIo,
    connection: Arc<ConnectionContext>,
    version: HttpVersion,
}

impl Proxy {
    /// Runs a tunnel until it ends. Its future has a named type because serving the inside can open a tunnel again.
    pub(super) fn tunnel(
        self,
        io: BoxedIo,
        connection: ConnectionContext,
        established: Established,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            // Boxed, as are all rare or short parts: a tunnel's future is as large as its largest unboxed part.
            if let Some(inside) = Box::pin(self.open(io, connection, established)).await {
                self.serve_http(inside.io, inside.connection, inside.version).await;
            }
        })
    }

    /// Detects the protocol and opens TLS. Relays anything that is not HTTP to its end.
    async fn open(
        &self,
        mut io: BoxedIo,
        mut connection: ConnectionContext,
        established: Established,
    ) -> Option<TunnelledHttp> {
        let Established { origin, mut dialled, policy, exchange } = established;
        if policy == ConnectPolicy::Tunnel {
            self.relay(io, &origin, dialled, &exchange).await;
            return None;
        }
        // What the server sends before the client does.
        let mut server_bytes = BytesMut::new();
        let server_speaks = async {
            match &mut dialled {
                Some(dialled) => drop(dialled.stream.read_buf(&mut server_bytes).await),
                None => std::future::pending().await,
            }
        };
        let sniffed = within(self.inner.settings.header_timeout, sniff(&mut io, server_speaks)).await;
        let (protocol, seen) = sniffed?.ok()?;
        if let Some(dialled) = &mut dialled
            && !server_bytes.is_empty()
        {
            let stream = std::mem::replace(&mut dialled.stream, Box::new(tokio::io::empty()));
            dialled.stream = Box::new(Prefixed::new(server_bytes.freeze(), stream));
        }
        if protocol == Protocol::Tls {
            return self.open_tls(io, seen, origin, dialled, connection, exchange).await;
        }
        let io: BoxedIo = Box::new(Prefixed::new(seen, io));
        let (version, offer) = match protocol {
            Protocol::Http1 => (HttpVersion::Http1, Offer::Http1),
            Protocol::Http2 => (HttpVersion::Http2, Offer::Http2),
            Protocol::Opaque | Protocol::Tls => {
                self.relay(io, &origin, dialled, &exchange).await;
                return None;
            }
        };
        let origin = Origin { tls: false, ..origin };
        connection.tunnel = Some(self.open_plain(origin, dialled, offer, &exchange).await);
        exchange.recording.outcome(Outcome::Complete);
        Some(TunnelledHttp { io, connection: Arc::new(connection), version })
    }

    async fn relay(&self, io: BoxedIo, origin: &Origin, dialled: Option<Dialled>, exchange: &ActiveExchange) {
        exchange.recording.kind(ExchangeKind::Connect(ConnectPolicy::Tunnel));
        let dialler = self.inner.forwarder.upstream().dialler();
        let dialled = match dialled {
            Some(dialled) => dialled,
            None => match dialler.dial(&origin.host, origin.port, DialPurpose::Stream).await {
                Ok(dialled) => dialled,
                Err(error) => return exchange.recording.fail(&error),
            },
        };
        relay_bytes(io, dialled.stream, &exchange.recording).await;
    }

    /// Plain HTTP inside the tunnel: the dialled connection becomes the origin's first pooled one.
    async fn open_plain(
        &self,
        origin: Origin,
        dialled: Option<Dialled>,
        offer: Offer,
        exchange: &ActiveExchange,
    ) -> Tunnel {
        let upstream = self.inner.forwarder.upstream();
        let pool_key = exchange.pool_key();
        let unreachable = match dialled {
            Some(dialled) => upstream.adopt(dialled, &pool_key, &origin, offer).await.err(),
            None => None,
        };
        Tunnel { origin, tls: None, unreachable }
    }

    /// Opens TLS. The ClientHello is read first and its ALPN offered to the endpoint; the client then gets the protocol
    /// that the endpoint chose. If the endpoint fails here, requests inside the tunnel are answered with a 502.
    async fn open_tls(
        &self,
        mut io: BoxedIo,
        seen: Bytes,
        origin: Origin,
        dialled: Option<Dialled>,
        mut connection: ConnectionContext,
        exchange: ActiveExchange,
    ) -> Option<TunnelledHttp> {
        let limit = self.inner.settings.header_timeout;
        let host = authority(&origin.host, origin.port);
        let mut client = ClientIdentity { user_agent: connection.user_agent.clone(), ..ClientIdentity::default() };
        let pending = |client, exchange| {
            let (rejections, connection) = (Arc::clone(&self.inner.rejections), connection.clone());
            PendingAcceptance { rejections, connection, host: host.clone(), client, exchange }
        };
        let record = match in_time(limit, read_record(&mut io, seen)).await {
            Ok(record) => record,
            Err(error) => {
                pending(client, exchange).handshake_failed(&error);
                return None;
            }
        };
        client.hello = record.clone();
        let io: BoxedIo = Box::new(Prefixed::new(record, io));
        // Host settings also apply to the name in TLS: a SOCKS client may have resolved the name itself.
        let named = server_name(&client.hello).unwrap_or_default();
        if !named.is_empty() && self.policy(named, origin.port) == ConnectPolicy::Tunnel {
            self.relay(io, &origin, dialled, &exchange).await;
            return None;
        }
        let handshake = match in_time(limit, LazyConfigAcceptor::new(Acceptor::default(), io)).await {
            Ok(handshake) => handshake,
            Err(error) => {
                pending(client, exchange).handshake_failed(&error);
                return None;
            }
        };
        let client_hello = ClientHello::of(&handshake);
        client.alpn = client_hello.alpn.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join(",");
        let offer = if client_hello.offers(b"h2") { Offer::Http2OrHttp1 } else { Offer::Http1 };
        let origin = named_origin(origin, client_hello.server_name.as_deref());
        let (reached, program) = tokio::join!(
            self.reach_tls(&origin, dialled, offer, &exchange),
            self.inner.rejections.program_of(&client, connection.client, &host)
        );
        client.program = program;
        let version = match reached {
            _ if client_hello.offers(b"h2") && !client_hello.offers(b"http/1.1") => HttpVersion::Http2,
            Ok(version) => version,
            Err(_) => HttpVersion::Http1,
        };
        // A protocol that was not offered is never selected: an unknown name such as "http 1.1" is ignored, not fatal.
        let alpn: &[&[u8]] = match version {
            HttpVersion::Http2 => &[b"h2"],
            HttpVersion::Http1 if client_hello.offers(b"http/1.1") => &[b"http/1.1"],
            HttpVersion::Http1 => &[],
        };
        let certificate_host = client_hello.server_name.as_deref().unwrap_or(&origin.host);
        let config = match self.inner.leaves.server_config(certificate_host, alpn) {
            Ok(config) => config,
            Err(error) => {
                let error = ProxyError::from_source(ErrorKind::ProxyInternalError, host, &error);
                tracing::error!(%error, "no certificate could be issued");
                exchange.recording.fail(&error);
                return None;
            }
        };
        let began = Instant::now();
        let stream = match in_time(limit, handshake.into_stream(config)).await {
            Ok(stream) => stream,
            Err(error) => {
                pending(client, exchange).handshake_failed(&error);
                return None;
            }
        };
        let tls = facts(stream.get_ref().1, client_hello.server_name.as_deref());
        let io = TlsAlertObserver::new(Box::new(stream), pending(client, exchange), began.elapsed());
        connection.tunnel = Some(Tunnel { origin, tls: Some(tls), unreachable: reached.err() });
        Some(TunnelledHttp { io: Box::new(io), connection: Arc::new(connection), version })
    }

    /// Connects to the endpoint over TLS and returns the HTTP version that it speaks with us.
    async fn reach_tls(
        &self,
        origin: &Origin,
        dialled: Option<Dialled>,
        offer: Offer,
        exchange: &ActiveExchange,
    ) -> Result<HttpVersion, ProxyError> {
        if let Some(error) = self.blocked(&origin.host, origin.port) {
            return Err(error);
        }
        if self.inner.forwarder.may_intercept(origin) {
            return Ok(if offer == Offer::Http2OrHttp1 { HttpVersion::Http2 } else { HttpVersion::Http1 });
        }
        let upstream = self.inner.forwarder.upstream();
        let pool_key = exchange.pool_key();
        match dialled {
            Some(dialled) => upstream.adopt(dialled, &pool_key, origin, offer).await,
            None if offer == Offer::Http1 => Ok(HttpVersion::Http1),
            None if upstream.has_http2_connection(&pool_key, origin) => Ok(HttpVersion::Http2),
            None => {
                // A pooled HTTP/1.1 connection doesn't show whether the endpoint would speak HTTP/2 with this client.
                let host = origin.dial_host.as_ref().unwrap_or(&origin.host);
                let dialled = upstream.dialler().dial(host, origin.port, DialPurpose::Stream).await?;
                upstream.adopt(dialled, &pool_key, origin, offer).await
            }
        }
    }
}

/// The parts of a ClientHello that matter here.
struct ClientHello {
    server_name: Option<String>,
    alpn: Vec<Vec<u8>>,
}

impl ClientHello {
    fn of(handshake: &StartHandshake<BoxedIo>) -> Self {
        let hello = handshake.client_hello();
        let alpn = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
        Self { server_name: hello.server_name().map(str::to_owned), alpn }
    }

    fn offers(&self, protocol: &[u8]) -> bool {
        self.alpn.iter().any(|offered| offered == protocol)
    }
}

async fn in_time<T>(limit: Duration, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || {
        let text = format!("the client did not finish the TLS handshake within {} ms", limit.as_millis());
        io::Error::new(io::ErrorKind::TimedOut, text)
    };
    within(limit, future).await.unwrap_or_else(|| Err(late()))
}

/// The endpoint under the name that the client asks for in TLS, dialled under the name in its CONNECT.
fn named_origin(origin: Origin, server_name: Option<&str>) -> Origin {
    match server_name {
        Some(name) if !name.eq_ignore_ascii_case(&origin.host) => {
            Origin { host: name.to_ascii_lowercase(), dial_host: Some(origin.host), ..origin }
        }
        _ => origin,
    }
}
