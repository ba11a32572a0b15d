//! TLS inside a tunnel: opened with a leaf certificate of ours, after the endpoint has shown what it speaks.
//!
//! What can't be opened is relayed unread, with the reason on its span: a host that a setting passes through, a client that
//! speaks no HTTP, and a client or an endpoint with an older TLS version than ours. The client then gets what it would get without a proxy.

use super::certificate_rejections::{ClientIdentity, PendingAcceptance};
use super::relay::{CLIENT_BEYOND_US, NOT_HTTP, PASSTHROUGH};
use super::state::Proxy;
use super::tls_alert_observer::TlsAlertObserver;
use crate::error::{ErrorKind, ProxyError};
use crate::forward::{ActiveExchange, ConnectionContext, Tunnel};
use crate::net::http_server::HttpVersion;
use crate::net::prefixed::Prefixed;
use crate::net::sniff::{OnSilence, Protocol, read_client_hello, sniff};
use crate::net::{BoxedIo, within};
use crate::tls::{LeafKey, Offer, facts};
use crate::trace::exchange::ConnectPolicy;
use crate::upstream::{Dialled, EndpointStream, Origin, authority, tls_error};
use crate::wire::client_hello::ClientHello;
use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio_rustls::LazyConfigAcceptor;

/// The endpoint of a tunnel, once the client's ClientHello is known.
enum Reached {
    /// HTTP of this version, over pooled connections.
    Http(HttpVersion),
    /// A stream that carries nothing yet: the client did not say that it speaks HTTP.
    Stream(Box<EndpointStream>),
}

/// HTTP inside a tunnel, ready to be served.
pub(super) struct TunnelledHttp {
    pub(super) io: BoxedIo,
    pub(super) connection: Arc<ConnectionContext>,
    pub(super) version: HttpVersion,
}

/// A tunnel of a client that speaks TLS.
pub(super) struct TlsTunnel {
    pub(super) origin: Origin,
    /// The new connection to the endpoint; `None` if a pooled one exists, or if nothing is dialled.
    pub(super) dialled: Option<Dialled>,
    pub(super) connection: ConnectionContext,
    pub(super) exchange: ActiveExchange,
}

impl Proxy {
    /// Opens TLS. The ClientHello is read first and its ALPN offered to the endpoint; the client then gets the protocol
    /// that the endpoint chose. If the endpoint fails here, requests inside the tunnel are answered with a 502.
    pub(super) async fn open_tls(&self, mut io: BoxedIo, seen: Bytes, tunnel: TlsTunnel) -> Option<TunnelledHttp> {
        let TlsTunnel { origin, dialled, mut connection, exchange } = tunnel;
        let limit = self.inner.settings.header_timeout;
        let host = authority(&origin.host, origin.port);
        let mut client = ClientIdentity { user_agent: connection.user_agent.clone(), ..ClientIdentity::default() };
        let pending = |client, exchange| {
            let (rejections, connection) = (Arc::clone(&self.inner.rejections), connection.clone());
            PendingAcceptance { rejections, connection, host: host.clone(), client, exchange }
        };
        let records = match in_time(limit, read_client_hello(&mut io, seen)).await {
            Ok(records) => records,
            Err(error) => {
                pending(client, exchange).handshake_failed(&error);
                return None;
            }
        };
        client.hello = records.clone();
        // What can't be read here is refused by the TLS library below, which names the cause.
        let hello = ClientHello::of_records(&records);
        let leaf_key = hello.as_ref().map_or(Some(LeafKey::P256), |hello| LeafKey::for_client(&hello.into()));
        let hello = hello.unwrap_or_default();
        client.alpn = hello.alpn.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join(",");
        let io: BoxedIo = Box::new(Prefixed::new(records.clone(), io));
        // Host settings also apply to the name in TLS: a SOCKS client may have resolved the name itself.
        let named = hello.server_name.as_deref();
        if named.is_some_and(|name| self.policy(name, origin.port) == ConnectPolicy::Tunnel) {
            self.relay(io, &origin, dialled, &exchange, PASSTHROUGH).await;
            return None;
        }
        let origin = named_origin(origin, named);
        if let Some(other) = other_protocol(&hello)
            && self.blocked(&origin.host, origin.port).is_none()
        {
            self.relay(io, &origin, dialled, &exchange, &format!("the client offers the protocol {other} only")).await;
            return None;
        }
        if leaf_key.is_none()
            && self.blocked(&origin.host, origin.port).is_none()
            && !self.inner.forwarder.may_intercept(&origin)
        {
            self.relay(io, &origin, dialled, &exchange, CLIENT_BEYOND_US).await;
            return None;
        }
        let (reached, program) = tokio::join!(
            self.reach_tls(&origin, dialled, offer(&hello), &exchange),
            self.inner.rejections.program_of(&client, connection.client, &host)
        );
        client.program = program;
        if let Err(error) = &reached
            && is_beyond_us(error.kind)
        {
            tracing::warn!(rollout_id = %exchange.identity.rollout_id, %error, "relayed unread");
            let reason = format!("TLS with the endpoint can't be opened: {} ({})", error.cause, error.kind.fix());
            self.relay(io, &origin, None, &exchange, &reason).await;
            return None;
        }
        let version = match &reached {
            _ if offers(&hello, b"h2") && !offers(&hello, b"http/1.1") => HttpVersion::Http2,
            Ok(Reached::Http(version)) => *version,
            Ok(Reached::Stream(_)) | Err(_) => HttpVersion::Http1,
        };
        // A protocol that was not offered is never selected: an unknown name such as "http 1.1" is ignored, not fatal.
        let alpn: &[&[u8]] = match version {
            HttpVersion::Http2 => &[b"h2"],
            HttpVersion::Http1 if offers(&hello, b"http/1.1") => &[b"http/1.1"],
            HttpVersion::Http1 => &[],
        };
        let certificate_host = hello.server_name.as_deref().unwrap_or(&origin.host);
        let leaf_key = leaf_key.unwrap_or(LeafKey::P256);
        let config = match self.inner.leaves.server_config(certificate_host, alpn, leaf_key) {
            Ok(config) => config,
            Err(error) => {
                let error = ProxyError::from_source(ErrorKind::ProxyInternalError, host, &error);
                tracing::error!(%error, "no certificate could be issued");
                exchange.recording.fail(&error);
                return None;
            }
        };
        let began = Instant::now();
        let handshake = async { LazyConfigAcceptor::new(Acceptor::default(), io).await?.into_stream(config).await };
        let stream = match in_time(limit, handshake).await {
            Ok(stream) => stream,
            Err(error) => {
                pending(client, exchange).handshake_failed(&error);
                return None;
            }
        };
        let tls = facts(stream.get_ref().1, hello.server_name.as_deref());
        let observed = pending(client, exchange.clone());
        let io: BoxedIo = Box::new(TlsAlertObserver::new(Box::new(stream), observed, began.elapsed()));
        let (io, reached) = match reached {
            Ok(Reached::Stream(stream)) => {
                let (io, adopted) = Box::pin(self.adopt_http(io, *stream, &origin, &exchange)).await?;
                (io, adopted.map(Reached::Http))
            }
            reached => (io, reached),
        };
        connection.tunnel = Some(Tunnel { origin, tls: Some(tls), unreachable: reached.err() });
        Some(TunnelledHttp { io, connection: Arc::new(connection), version })
    }

    /// Waits for what both sides speak inside TLS. HTTP/1 goes on over the pool; anything else is relayed to its end, and
    /// the result is `None`.
    async fn adopt_http(
        &self,
        mut io: BoxedIo,
        mut endpoint: EndpointStream,
        origin: &Origin,
        exchange: &ActiveExchange,
    ) -> Option<(BoxedIo, Result<HttpVersion, ProxyError>)> {
        let mut server_bytes = BytesMut::new();
        let mut refused = None;
        let server_speaks = async {
            if let Err(error) = endpoint.io.read_buf(&mut server_bytes).await {
                // Under TLS 1.3 an endpoint judges our client certificate after the handshake. The request gets that as its
                // answer.
                refused = Some(error);
                std::future::pending::<()>().await;
            }
        };
        let sniffed = sniff(&mut io, server_speaks, OnSilence::Opaque);
        let (protocol, seen) = within(self.inner.settings.header_timeout, sniffed).await?.ok()?;
        let io: BoxedIo = Box::new(Prefixed::new(seen, io));
        if protocol == Protocol::Http1 {
            let adopted = match refused {
                Some(error) => Err(tls_error(&authority(&origin.host, origin.port), &error)),
                None => self.inner.forwarder.upstream().adopt(endpoint, &exchange.pool_key(), origin).await,
            };
            return Some((io, adopted));
        }
        let endpoint: BoxedIo = Box::new(Prefixed::new(server_bytes.freeze(), endpoint.io));
        self.relay_to(io, Ok(endpoint), exchange, NOT_HTTP).await;
        None
    }

    /// Connects to the endpoint over TLS.
    async fn reach_tls(
        &self,
        origin: &Origin,
        dialled: Option<Dialled>,
        offer: Offer,
        exchange: &ActiveExchange,
    ) -> Result<Reached, ProxyError> {
        if let Some(error) = self.blocked(&origin.host, origin.port) {
            return Err(error);
        }
        if self.inner.forwarder.may_intercept(origin) {
            let http2 = offer == Offer::Http2OrHttp1;
            return Ok(Reached::Http(if http2 { HttpVersion::Http2 } else { HttpVersion::Http1 }));
        }
        let upstream = self.inner.forwarder.upstream();
        let pool_key = exchange.pool_key();
        let dialled = match dialled {
            Some(dialled) => dialled,
            None if offer != Offer::Http2OrHttp1 => return Ok(Reached::Http(HttpVersion::Http1)),
            None if upstream.has_http2_connection(&pool_key, origin) => return Ok(Reached::Http(HttpVersion::Http2)),
            // A pooled HTTP/1.1 connection doesn't show whether the endpoint would speak HTTP/2 with this client.
            None => self.dial(origin).await?,
        };
        let stream = upstream.secure(dialled, origin, offer).await?;
        if offer == Offer::Nothing {
            return Ok(Reached::Stream(Box::new(stream)));
        }
        upstream.adopt(stream, &pool_key, origin).await.map(Reached::Http)
    }
}

fn offers(hello: &ClientHello, protocol: &[u8]) -> bool {
    hello.alpn.iter().any(|offered| offered == protocol)
}

/// The protocols to offer the endpoint: those that the client offers, as far as the proxy speaks them.
fn offer(hello: &ClientHello) -> Offer {
    match hello {
        hello if offers(hello, b"h2") => Offer::Http2OrHttp1,
        hello if hello.alpn.is_empty() => Offer::Nothing,
        _ => Offer::Http1,
    }
}

/// The first protocol that a client offers by ALPN (RFC 7301), if none of them is HTTP.
fn other_protocol(hello: &ClientHello) -> Option<String> {
    let is_http = |name: &Vec<u8>| name.starts_with(b"h2") || name.starts_with(b"http") || is_grease(name);
    let first = hello.alpn.first()?;
    (!hello.alpn.iter().any(is_http)).then(|| String::from_utf8_lossy(first).into_owned())
}

/// True for a GREASE value (RFC 8701): a name without meaning, which clients add at random.
fn is_grease(name: &[u8]) -> bool {
    matches!(name, [first, second] if first == second && first & 0x0f == 0x0a)
}

/// True for an endpoint with TLS that can't be intercepted, unless a setting weakens or skips TLS.
fn is_beyond_us(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::TlsCertificateForm | ErrorKind::TlsNothingInCommon)
}

async fn in_time<T>(limit: Duration, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || {
        let text = format!("the client did not finish the TLS handshake within {} ms", limit.as_millis());
        io::Error::new(io::ErrorKind::TimedOut, text)
    };
    within(limit, future).await.unwrap_or_else(|| Err(late()))
}

/// The endpoint under the name that the client asks for in TLS, dialled under the name in its CONNECT. A dot at the end of
/// either names the same host.
fn named_origin(origin: Origin, server_name: Option<&str>) -> Origin {
    match server_name {
        Some(name) if !name.eq_ignore_ascii_case(origin.host.trim_end_matches('.')) => {
            Origin { host: name.to_ascii_lowercase(), dial_host: Some(origin.host), ..origin }
        }
        _ => origin,
    }
}
