//! Inside a CONNECT or SOCKS tunnel: detects the protocol, serves HTTP, and relays everything else unread.
//!
//! TLS is opened in `tls_tunnel`.

use super::connect::Established;
use super::relay::{NOT_HTTP, PASSTHROUGH};
use super::state::Proxy;
use super::tls_tunnel::{TlsTunnel, TunnelledHttp};
use crate::forward::{ActiveExchange, ConnectionContext, Tunnel};
use crate::net::http_server::HttpVersion;
use crate::net::prefixed::Prefixed;
use crate::net::sniff::{OnSilence, Protocol, sniff};
use crate::net::{BoxedIo, within};
use crate::tls::Offer;
use crate::trace::exchange::{ConnectPolicy, Outcome};
use crate::upstream::{Dialled, Origin};
use bytes::BytesMut;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::AsyncReadExt;

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
            self.relay(io, &origin, dialled, &exchange, PASSTHROUGH).await;
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
        let sniffed = sniff(&mut io, server_speaks, OnSilence::Opaque);
        let sniffed = within(self.inner.settings.header_timeout, sniffed).await;
        let (protocol, seen) = sniffed?.ok()?;
        if let Some(dialled) = &mut dialled
            && !server_bytes.is_empty()
        {
            let stream = std::mem::replace(&mut dialled.stream, Box::new(tokio::io::empty()));
            dialled.stream = Box::new(Prefixed::new(server_bytes.freeze(), stream));
        }
        if protocol == Protocol::Tls {
            return self.open_tls(io, seen, TlsTunnel { origin, dialled, connection, exchange }).await;
        }
        let io: BoxedIo = Box::new(Prefixed::new(seen, io));
        let (version, offer) = match protocol {
            Protocol::Http1 => (HttpVersion::Http1, Offer::Http1),
            Protocol::Http2 => (HttpVersion::Http2, Offer::Http2),
            Protocol::Opaque | Protocol::Tls => {
                self.relay(io, &origin, dialled, &exchange, NOT_HTTP).await;
                return None;
            }
        };
        let origin = Origin { tls: false, ..origin };
        connection.tunnel = Some(self.open_plain(origin, dialled, offer, &exchange).await);
        exchange.recording.outcome(Outcome::Complete);
        Some(TunnelledHttp { io, connection: Arc::new(connection), version })
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
        let adopt = async |dialled| {
            let stream = upstream.secure(dialled, &origin, offer).await?;
            upstream.adopt(stream, &pool_key, &origin).await
        };
        let unreachable = match dialled {
            Some(dialled) => adopt(dialled).await.err(),
            None => None,
        };
        Tunnel { origin, tls: None, unreachable }
    }
}
