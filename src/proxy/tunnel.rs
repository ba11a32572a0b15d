//! Inside a CONNECT: recognise what is spoken, open TLS with a leaf of ours, serve HTTP, or relay the rest unopened.

use super::Proxy;
use crate::error::{ErrorKind, ProxyError};
use crate::forward::Begun;
use crate::forward::conversation::{Conversation, Tunnel};
use crate::forward::upgrade::pump;
use crate::net::BoxedIo;
use crate::net::prefixed::Prefixed;
use crate::net::sniff::{Protocol, sniff};
use crate::tls::{Offer, facts};
use crate::trace::exchange::{ConnectPolicy, ExchangeKind, Outcome};
use crate::upstream::dial::authority;
use crate::upstream::{Dialled, Origin, within};
use rustls::server::Acceptor;
use tokio_rustls::LazyConfigAcceptor;

/// A TLS connection to the agent, and what it leads to.
struct Opened {
    io: BoxedIo,
    tunnel: Tunnel,
    http2: bool,
}

impl Proxy {
    /// Runs a tunnel until it ends. `dialled` is `None` when a pooled connection to `origin` exists.
    #[allow(clippy::too_many_arguments, reason = "what a CONNECT has gathered, handed over once")]
    pub(super) async fn tunnel(
        &self,
        mut io: BoxedIo,
        mut conversation: Conversation,
        origin: Origin,
        dialled: Option<Dialled>,
        policy: ConnectPolicy,
        begun: Begun,
    ) {
        if policy == ConnectPolicy::Tunnel {
            return self.relay(io, &origin, dialled, &begun).await;
        }
        let server_speaks = async {
            match &dialled {
                Some(dialled) => drop(dialled.stream.readable().await),
                None => std::future::pending().await,
            }
        };
        let Ok((protocol, seen)) = sniff(&mut io, server_speaks).await else { return };
        let io: BoxedIo = Box::new(Prefixed::new(seen, io));
        match protocol {
            Protocol::Tls => match self.open(io, origin, dialled, &begun).await {
                Ok(Opened { io, tunnel, http2 }) => {
                    begun.recording.outcome(Outcome::Complete);
                    drop(begun);
                    conversation.tunnel = Some(tunnel);
                    if http2 {
                        self.serve_http2(io, conversation).await;
                    } else {
                        self.serve_http1(io, conversation).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(peer = %conversation.client, %error, "{}", error.hint());
                    begun.recording.fail(&error);
                }
            },
            Protocol::Http1 => {
                let origin = Origin { tls: false, ..origin };
                let tunnel = self.open_plain(origin, dialled, &begun).await;
                begun.recording.outcome(Outcome::Complete);
                drop(begun);
                conversation.tunnel = Some(tunnel);
                self.serve_http1(io, conversation).await;
            }
            Protocol::Http2 | Protocol::Opaque => self.relay(io, &origin, dialled, &begun).await,
        }
    }

    async fn relay(&self, io: BoxedIo, origin: &Origin, dialled: Option<Dialled>, begun: &Begun) {
        begun.recording.kind(ExchangeKind::Connect(ConnectPolicy::Tunnel));
        let dialled = match dialled {
            Some(dialled) => dialled,
            None => match self.inner.forwarder.upstream().dialler().dial(&origin.host, origin.port).await {
                Ok(dialled) => dialled,
                Err(error) => return begun.recording.fail(&error),
            },
        };
        pump(io, dialled.stream, &begun.recording).await;
    }

    /// Plain HTTP inside the tunnel: the dialled connection becomes the first one of the origin.
    async fn open_plain(&self, origin: Origin, dialled: Option<Dialled>, begun: &Begun) -> Tunnel {
        let upstream = self.inner.forwarder.upstream();
        let isolation = begun.identity.rollout_id.shared();
        let unreachable = match dialled {
            Some(dialled) => upstream.adopt(dialled, &isolation, &origin, Offer::Http1).await.err(),
            None => None,
        };
        Tunnel { origin, tls: None, unreachable }
    }

    /// TLS: the ClientHello is read first, then the endpoint is asked for what the agent offers, and the agent gets
    /// what the endpoint chose. An endpoint that fails here is answered for inside, with a 502.
    async fn open(
        &self,
        io: BoxedIo,
        origin: Origin,
        dialled: Option<Dialled>,
        begun: &Begun,
    ) -> Result<Opened, ProxyError> {
        let limit = self.inner.settings.header_timeout;
        let shown = authority(&origin.host, origin.port);
        let client_error = |cause: String| ProxyError::new(ErrorKind::ClientTlsError, shown.clone(), cause);
        let late = || client_error(format!("no TLS handshake within {} ms", limit.as_millis()));
        let hello = within(limit, LazyConfigAcceptor::new(Acceptor::default(), io)).await.ok_or_else(late)?;
        let hello = hello.map_err(|error| client_error(error.to_string()))?;
        let (server_name, offered) = {
            let hello = hello.client_hello();
            let offered: Vec<Vec<u8>> = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
            (hello.server_name().map(str::to_owned), offered)
        };
        let offers = |name: &[u8]| offered.iter().any(|offered| offered == name);
        let offer = if offers(b"h2") { Offer::Http2OrHttp1 } else { Offer::Http1 };
        let origin = named(origin, server_name.as_deref());
        let reached = self.reach_tls(&origin, dialled, offer, begun).await;
        let http2 = match &reached {
            Ok(http2) => *http2 || (offers(b"h2") && !offers(b"http/1.1")),
            Err(_) => offers(b"h2") && !offers(b"http/1.1"),
        };
        // What isn't offered isn't chosen: an unknown name such as "http 1.1" is ignored, not fatal.
        let alpn: &[&[u8]] = match (http2, offers(b"http/1.1")) {
            (true, _) => &[b"h2"],
            (false, true) => &[b"http/1.1"],
            (false, false) => &[],
        };
        let config = self.inner.leaves.server_config(server_name.as_deref().unwrap_or(&origin.host), alpn);
        let config =
            config.map_err(|error| ProxyError::from_source(ErrorKind::ProxyInternalError, shown.clone(), &error))?;
        let stream = within(limit, hello.into_stream(config)).await.ok_or_else(late)?;
        let stream = stream.map_err(|error| client_error(error.to_string()))?;
        let tls = facts(stream.get_ref().1, server_name.as_deref());
        let tunnel = Tunnel { origin, tls: Some(tls), unreachable: reached.err() };
        Ok(Opened { io: Box::new(stream), tunnel, http2 })
    }

    /// True when the endpoint speaks HTTP/2 with us.
    async fn reach_tls(
        &self,
        origin: &Origin,
        dialled: Option<Dialled>,
        offer: Offer,
        begun: &Begun,
    ) -> Result<bool, ProxyError> {
        let upstream = self.inner.forwarder.upstream();
        let isolation = begun.identity.rollout_id.shared();
        match dialled {
            Some(dialled) => upstream.adopt(dialled, &isolation, origin, offer).await,
            None if offer == Offer::Http1 => Ok(false),
            None if upstream.speaks_http2(&isolation, origin) => Ok(true),
            None => {
                // Pooled connections of an agent that offered less say nothing about what this one may have.
                let host = origin.dial_host.as_ref().unwrap_or(&origin.host);
                let dialled = upstream.dialler().dial(host, origin.port).await?;
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
