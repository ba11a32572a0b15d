//! Relays the bytes of a tunnel without decrypting them, and records the reason on its span.

use super::state::Proxy;
use crate::error::ProxyError;
use crate::forward::ActiveExchange;
use crate::forward::upgrade::relay_bytes;
use crate::net::BoxedIo;
use crate::trace::exchange::{ConnectPolicy, ExchangeKind};
use crate::upstream::{DialPurpose, Dialled, Origin};

impl Proxy {
    /// Relays the bytes of a tunnel without decrypting them. `reason` goes on its span.
    pub(super) async fn relay(
        &self,
        io: BoxedIo,
        origin: &Origin,
        dialled: Option<Dialled>,
        exchange: &ActiveExchange,
        reason: &str,
    ) {
        let dialled = match dialled {
            Some(dialled) => Ok(dialled),
            None => self.dial(origin).await,
        };
        self.relay_to(io, dialled.map(|dialled| dialled.stream), exchange, reason).await;
    }

    /// As [`Self::relay`], to an endpoint that is connected already, or to none.
    pub(super) async fn relay_to(
        &self,
        io: BoxedIo,
        endpoint: Result<BoxedIo, ProxyError>,
        exchange: &ActiveExchange,
        reason: &str,
    ) {
        exchange.recording.kind(ExchangeKind::Connect(ConnectPolicy::Tunnel));
        exchange.recording.connection(|connection| connection.unread_because = Some(reason.to_owned()));
        match endpoint {
            Ok(endpoint) => relay_bytes(io, endpoint, &exchange.recording).await,
            Err(error) => exchange.recording.fail(&error),
        }
    }

    /// Connects to a tunnel's endpoint.
    pub(super) async fn dial(&self, origin: &Origin) -> Result<Dialled, ProxyError> {
        let host = origin.dial_host.as_ref().unwrap_or(&origin.host);
        self.inner.forwarder.upstream().dialler().dial(host, origin.port, DialPurpose::Stream).await
    }
}

/// The reason on a span if a setting passes the host through.
pub(super) const PASSTHROUGH: &str = "proxy.passthrough names the host";
pub(super) const NOT_HTTP: &str = "the protocol inside is not HTTP";
pub(super) const CLIENT_BEYOND_US: &str = "TLS with the client can't be opened: it offers neither TLS 1.3 nor TLS 1.2 with \
     ECDHE and AES-GCM or ChaCha20, or no curve or signature scheme that Tracewire has";
