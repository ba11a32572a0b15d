//! Inside a CONNECT: recognise what is spoken, open TLS with a leaf of ours, serve HTTP, or relay the rest unopened.

use super::Proxy;
use super::certificate_rejections::{CertificateRejection, ClientIdentity, Watched};
use super::connect::Established;
use crate::error::{ErrorKind, ProxyError};
use crate::forward::ActiveExchange;
use crate::forward::connection::{ConnectionContext, Tunnel};
use crate::forward::upgrade::relay_bytes;
use crate::net::BoxedIo;
use crate::net::prefixed::Prefixed;
use crate::net::sniff::{Protocol, read_record, sniff};
use crate::tls::{Offer, facts};
use crate::trace::exchange::{ConnectPolicy, ExchangeKind, Outcome};
use crate::upstream::dial::authority;
use crate::upstream::{Dialled, Origin, Purpose, within};
use crate::wire::client_hello::server_name;
use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::AsyncReadExt;
use tokio_rustls::LazyConfigAcceptor;

/// HTTP inside a tunnel, ready to be served.
struct Inside {
    io: BoxedIo,
    conversation: Arc<ConnectionContext>,
    http2: bool,
}

impl Proxy {
    /// Runs a tunnel until it ends. Boxed by name: what is served inside leads back here.
    pub(super) fn tunnel(
        self,
        io: BoxedIo,
        conversation: ConnectionContext,
        established: Established,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            // Boxed, as is all that is rare or short: a tunnel keeps the room of the largest thing in it.
            let inside = Box::pin(self.look_inside(io, conversation, established)).await;
            match inside {
                Some(Inside { io, conversation, http2: true }) => {
                    Box::pin(self.serve_http2(io, conversation)).await;
                }
                Some(Inside { io, conversation, http2: false }) => self.serve_http1(io, conversation).await,
                None => {}
            }
        })
    }

    /// Finds out what is spoken, opens TLS, and relays to its end what is no HTTP.
    async fn look_inside(
        &self,
        mut io: BoxedIo,
        mut conversation: ConnectionContext,
        established: Established,
    ) -> Option<Inside> {
        let Established { origin, mut dialled, policy, begun } = established;
        if policy == ConnectPolicy::Tunnel {
            self.relay(io, &origin, dialled, &begun).await;
            return None;
        }
        let mut first = BytesMut::new();
        let server_speaks = async {
            match &mut dialled {
                Some(dialled) => drop(dialled.stream.read_buf(&mut first).await),
                None => std::future::pending().await,
            }
        };
        let sniffed = within(self.inner.settings.header_timeout, sniff(&mut io, server_speaks)).await;
        let (protocol, seen) = sniffed?.ok()?;
        if let Some(dialled) = &mut dialled
            && !first.is_empty()
        {
            let stream = std::mem::replace(&mut dialled.stream, Box::new(tokio::io::empty()));
            dialled.stream = Box::new(Prefixed::new(first.freeze(), stream));
        }
        if protocol == Protocol::Tls {
            return self.open(io, seen, origin, dialled, conversation, begun).await;
        }
        let io: BoxedIo = Box::new(Prefixed::new(seen, io));
        if protocol == Protocol::Opaque {
            self.relay(io, &origin, dialled, &begun).await;
            return None;
        }
        let http2 = protocol == Protocol::Http2;
        let origin = Origin { tls: false, ..origin };
        let offer = if http2 { Offer::Http2 } else { Offer::Http1 };
        conversation.tunnel = Some(self.open_plain(origin, dialled, offer, &begun).await);
        begun.recording.outcome(Outcome::Complete);
        Some(Inside { io, conversation: Arc::new(conversation), http2 })
    }

    async fn relay(&self, io: BoxedIo, origin: &Origin, dialled: Option<Dialled>, begun: &ActiveExchange) {
        begun.recording.kind(ExchangeKind::Connect(ConnectPolicy::Tunnel));
        let dialler = self.inner.forwarder.upstream().dialler();
        let dialled = match dialled {
            Some(dialled) => dialled,
            None => match dialler.dial(&origin.host, origin.port, Purpose::Stream).await {
                Ok(dialled) => dialled,
                Err(error) => return begun.recording.fail(&error),
            },
        };
        relay_bytes(io, dialled.stream, &begun.recording).await;
    }

    /// Plain HTTP inside the tunnel: the dialled connection becomes the first one of the origin.
    async fn open_plain(
        &self,
        origin: Origin,
        dialled: Option<Dialled>,
        offer: Offer,
        begun: &ActiveExchange,
    ) -> Tunnel {
        let upstream = self.inner.forwarder.upstream();
        let isolation = begun.isolation();
        let unreachable = match dialled {
            Some(dialled) => upstream.adopt(dialled, &isolation, &origin, offer).await.err(),
            None => None,
        };
        Tunnel { origin, tls: None, unreachable }
    }

    /// TLS: the ClientHello is read first, then the endpoint is asked for what the agent offers, and the agent gets
    /// what the endpoint chose. An endpoint that fails here is answered for inside, with a 502.
    async fn open(
        &self,
        mut io: BoxedIo,
        seen: Bytes,
        origin: Origin,
        dialled: Option<Dialled>,
        mut conversation: ConnectionContext,
        begun: ActiveExchange,
    ) -> Option<Inside> {
        let limit = self.inner.settings.header_timeout;
        let shown = authority(&origin.host, origin.port);
        let mut client = ClientIdentity { user_agent: conversation.user_agent.clone(), ..ClientIdentity::default() };
        let late =
            || std::io::Error::new(std::io::ErrorKind::TimedOut, format!("none within {} ms", limit.as_millis()));
        let record = within(limit, read_record(&mut io, seen)).await.unwrap_or_else(|| Err(late()));
        let suspicion = |client, begun| {
            let (distrust, conversation) = (Arc::clone(&self.inner.distrust), conversation.clone());
            CertificateRejection { distrust, conversation, host: shown.clone(), client, begun }
        };
        let hello = match record {
            Ok(record) => {
                client.hello = record.clone();
                let io: BoxedIo = Box::new(Prefixed::new(record, io));
                // Settings by name hold for the name in TLS too: a SOCKS client may have resolved it itself.
                let named = server_name(&client.hello).unwrap_or_default();
                if !named.is_empty() && self.policy(named, origin.port) == ConnectPolicy::Tunnel {
                    self.relay(io, &origin, dialled, &begun).await;
                    return None;
                }
                within(limit, LazyConfigAcceptor::new(Acceptor::default(), io)).await.unwrap_or_else(|| Err(late()))
            }
            Err(error) => Err(error),
        };
        let hello = match hello {
            Ok(hello) => hello,
            Err(error) => {
                suspicion(client, begun).handshake_failed(&error);
                return None;
            }
        };
        let (named_host, offered) = {
            let hello = hello.client_hello();
            let offered: Vec<Vec<u8>> = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
            (hello.server_name().map(str::to_owned), offered)
        };
        client.alpn = offered.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join(",");
        let offers = |name: &[u8]| offered.iter().any(|offered| offered == name);
        let offer = if offers(b"h2") { Offer::Http2OrHttp1 } else { Offer::Http1 };
        let origin = named(origin, named_host.as_deref());
        let (reached, program) = tokio::join!(
            self.reach_tls(&origin, dialled, offer, &begun),
            self.inner.distrust.program_of(&client, conversation.client, &shown)
        );
        client.program = program;
        let only_http2 = offers(b"h2") && !offers(b"http/1.1");
        let http2 = only_http2 || *reached.as_ref().unwrap_or(&false);
        // What isn't offered isn't chosen: an unknown name such as "http 1.1" is ignored, not fatal.
        let alpn: &[&[u8]] = match (http2, offers(b"http/1.1")) {
            (true, _) => &[b"h2"],
            (false, true) => &[b"http/1.1"],
            (false, false) => &[],
        };
        let config = match self.inner.leaves.server_config(named_host.as_deref().unwrap_or(&origin.host), alpn) {
            Ok(config) => config,
            Err(error) => {
                let error = ProxyError::from_source(ErrorKind::ProxyInternalError, shown, &error);
                tracing::error!(%error, "no certificate");
                begun.recording.fail(&error);
                return None;
            }
        };
        let began = Instant::now();
        let stream = match within(limit, hello.into_stream(config)).await.unwrap_or_else(|| Err(late())) {
            Ok(stream) => stream,
            Err(error) => {
                suspicion(client, begun).handshake_failed(&error);
                return None;
            }
        };
        let tls = facts(stream.get_ref().1, named_host.as_deref());
        let io = Watched::new(Box::new(stream), suspicion(client, begun), began.elapsed());
        conversation.tunnel = Some(Tunnel { origin, tls: Some(tls), unreachable: reached.err() });
        Some(Inside { io: Box::new(io), conversation: Arc::new(conversation), http2 })
    }

    /// True when the endpoint speaks HTTP/2 with us.
    async fn reach_tls(
        &self,
        origin: &Origin,
        dialled: Option<Dialled>,
        offer: Offer,
        begun: &ActiveExchange,
    ) -> Result<bool, ProxyError> {
        if let Some(error) = self.blocked(&origin.host, origin.port) {
            return Err(error);
        }
        if self.inner.forwarder.may_detour(origin) {
            return Ok(offer == Offer::Http2OrHttp1);
        }
        let upstream = self.inner.forwarder.upstream();
        let isolation = begun.isolation();
        match dialled {
            Some(dialled) => upstream.adopt(dialled, &isolation, origin, offer).await,
            None if offer == Offer::Http1 => Ok(false),
            None if upstream.speaks_http2(&isolation, origin) => Ok(true),
            None => {
                // Pooled connections of an agent that offered less say nothing about what this one may have.
                let host = origin.dial_host.as_ref().unwrap_or(&origin.host);
                let dialled = upstream.dialler().dial(host, origin.port, Purpose::Stream).await?;
                upstream.adopt(dialled, &isolation, origin, offer).await
            }
        }
    }
}

/// The endpoint by the name the agent asks for in TLS, dialled where its CONNECT said.
fn named(origin: Origin, server_name: Option<&str>) -> Origin {
    match server_name {
        Some(name) if !name.eq_ignore_ascii_case(&origin.host) => {
            Origin { host: name.to_ascii_lowercase(), dial_host: Some(origin.host), ..origin }
        }
        _ => origin,
    }
}
