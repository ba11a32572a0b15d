//! The proxy door: absolute-form requests and CONNECT, and nothing else but a help page and the public certificate.
//!
//! It decides what happens to a connection; forwarding is `forward`'s. It must never name a store or a dialect.

mod api_relay;
mod auth;
mod certificate_rejections;
mod connect;
mod help;
mod serve;
mod socks;
mod tunnel;

pub use certificate_rejections::{Advise, CertificateRejections};
pub use serve::serve_connection;

use crate::error::{ErrorKind, ProxyError};
use crate::forward::{ConnectionContext, Forwarder, reply};
use crate::net::interim::InterimSender;
use crate::tls::LeafCache;
use crate::trace::exchange::ConnectPolicy;
use crate::trace::units::millis;
use crate::trace::{AttemptId, RolloutId};
use crate::upstream::dial::authority;
use crate::upstream::{Body, Origin};
use crate::util::glob::any_matches;
pub use crate::util::secret::Secret;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// `[proxy]` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxySettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The password agents must give in their proxy URL; empty: none is needed.
    pub token: Secret,
    /// Hosts (patterns) whose CONNECTs are relayed unopened.
    pub passthrough: Vec<String>,
    /// Hosts (patterns) that are refused.
    pub block: Vec<String>,
    /// Connections served at once; more wait.
    pub max_connections: usize,
    /// How long an agent may take for a request head, and for its TLS handshake; an idle connection is closed after it.
    #[serde(rename = "header_timeout_ms", with = "millis")]
    pub header_timeout: Duration,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            token: Secret::default(),
            passthrough: Vec::new(),
            block: Vec::new(),
            max_connections: 16_384,
            header_timeout: Duration::from_secs(300),
        }
    }
}

/// A proxy door, shared by its connections.
#[derive(Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
    /// This process's API listeners: REST with the gateway, and OTLP over gRPC. Empty under `run`, which has none.
    api: Arc<[SocketAddr]>,
}

struct Inner {
    settings: ProxySettings,
    forwarder: Forwarder,
    leaves: Arc<LeafCache>,
    binding: Option<(RolloutId, AttemptId)>,
    distrust: Arc<CertificateRejections>,
}

impl Proxy {
    /// A door that forwards with `forwarder` and shows agents certificates from `leaves`. With a `binding`, exchanges
    /// that name no rollout belong to it. Agents that refuse those certificates are noted in `distrust`.
    pub fn new(
        settings: ProxySettings,
        forwarder: Forwarder,
        leaves: Arc<LeafCache>,
        binding: Option<(RolloutId, AttemptId)>,
        distrust: Arc<CertificateRejections>,
    ) -> Self {
        Self { inner: Arc::new(Inner { settings, forwarder, leaves, binding, distrust }), api: Arc::default() }
    }

    /// Answers one request, at the door or inside a tunnel.
    async fn answer(
        &self,
        conversation: &ConnectionContext,
        mut request: Request<Incoming>,
        interim: Option<&InterimSender>,
    ) -> Response<Body> {
        if let Some(tunnel) = &conversation.tunnel {
            return self.answer_inside(conversation, tunnel, request, interim).await;
        }
        let mut conversation = conversation.clone();
        let refusal = auth::check(&self.inner.settings.token, request.headers(), &mut conversation.credentials).err();
        if request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_none() {
            return self.connect(&conversation, request, refusal).await;
        }
        let Some(origin) = origin_of(&mut request) else {
            return help::answer(&request, self.inner.leaves.authority().ca_pem());
        };
        if refusal.is_none()
            && !origin.tls
            && let Some(api) = self.api_behind(conversation.client, &origin.host, origin.port).await
        {
            return api_relay::relay(api, request).await.unwrap_or_else(|error| refuse(&error));
        }
        let refusal = refusal.or_else(|| self.blocked(&origin.host, origin.port));
        self.inner.forwarder.handle(&conversation, origin, request, refusal, interim).await
    }

    fn blocked(&self, host: &str, port: u16) -> Option<ProxyError> {
        any_matches(&self.inner.settings.block, host, port).then(|| {
            ProxyError::new(ErrorKind::HttpRequestDenied, authority(host, port), "the host is on the block list")
        })
    }

    fn policy(&self, host: &str, port: u16) -> ConnectPolicy {
        if any_matches(&self.inner.settings.passthrough, host, port) {
            ConnectPolicy::Tunnel
        } else {
            ConnectPolicy::Intercept
        }
    }
}

/// The endpoint of an absolute-form request. `ws` and `wss` count as what they run over.
fn origin_of(request: &mut Request<Incoming>) -> Option<Origin> {
    let uri = request.uri();
    let tls = match uri.scheme_str()? {
        "http" | "ws" => false,
        "https" | "wss" => true,
        _ => return None,
    };
    let origin = Origin::new(tls, uri.host()?, uri.port_u16().unwrap_or(if tls { 443 } else { 80 }));
    // RFC 9112 §3.2.2: the target decides, and a Host that differs is replaced.
    let host = uri.authority().and_then(|written| written.as_str().rsplit('@').next()?.parse().ok());
    if let Some(host) = host {
        request.headers_mut().insert(http::header::HOST, host);
    }
    Some(origin)
}

fn refuse(error: &ProxyError) -> Response<Body> {
    reply::error(error)
}
