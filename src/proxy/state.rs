//! The state that all connections of a proxy listener share, and its host policies.

use super::auth::{KeyCheck, ProxyAccess};
use super::certificate_rejections::CertificateRejections;
use super::settings::ProxySettings;
use crate::error::{ErrorKind, ProxyError};
use crate::forward::Forwarder;
use crate::tls::LeafCache;
use crate::trace::exchange::ConnectPolicy;
use crate::trace::{AttemptId, RolloutId};
use crate::upstream::authority;
use crate::util::glob::any_matches;
use crate::util::host_name::canonical;
use std::net::SocketAddr;
use std::sync::Arc;

/// A proxy listener, shared by its connections.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(super) inner: Arc<ProxyState>,
    /// This process's API listeners: REST with the gateway, and OTLP over gRPC. Empty under `run`, which has none.
    pub(super) api: Arc<[SocketAddr]>,
}

pub(super) struct ProxyState {
    pub(super) settings: ProxySettings,
    pub(super) access: ProxyAccess,
    pub(super) forwarder: Forwarder,
    pub(super) leaves: Arc<LeafCache>,
    pub(super) binding: Option<(RolloutId, AttemptId)>,
    pub(super) rejections: Arc<CertificateRejections>,
}

impl Proxy {
    /// A listener that forwards with `forwarder` and presents certificates from `leaves`. Exchanges that name no rollout
    /// belong to `binding`, if there is one. Clients that reject the certificates are counted in `rejections`. `key_check`
    /// knows signed keys, if there are any.
    pub(crate) fn new(
        settings: ProxySettings,
        forwarder: Forwarder,
        leaves: Arc<LeafCache>,
        binding: Option<(RolloutId, AttemptId)>,
        rejections: Arc<CertificateRejections>,
        key_check: Option<KeyCheck>,
    ) -> Self {
        let access = ProxyAccess::new(settings.token.clone());
        let access = match key_check {
            Some(key_check) => access.with_keys(key_check),
            None => access,
        };
        Self {
            inner: Arc::new(ProxyState { settings, access, forwarder, leaves, binding, rejections }),
            api: Arc::default(),
        }
    }

    /// Returns the error for a host that the block list names. The dialler checks the addresses of all others.
    pub(super) fn blocked(&self, host: &str, port: u16) -> Option<ProxyError> {
        self.inner.settings.block.has_host(host, port).then(|| {
            ProxyError::new(ErrorKind::HttpRequestDenied, authority(host, port), "the host is on the block list")
        })
    }

    pub(super) fn policy(&self, host: &str, port: u16) -> ConnectPolicy {
        if any_matches(&self.inner.settings.passthrough, &canonical(host), port) {
            ConnectPolicy::Tunnel
        } else {
            ConnectPolicy::Intercept
        }
    }
}
