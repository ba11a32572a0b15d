//! `[upstream]` of the settings.

use super::proxies::UpstreamProxy;
use crate::trace::units::millis;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[upstream]` of the settings. A time of 0 means no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpstreamSettings {
    /// The longest time for name resolution and TCP together, over all addresses of a host.
    #[serde(rename = "connect_timeout_ms", with = "millis")]
    pub connect_timeout: Duration,
    /// The longest time for the TLS handshake.
    #[serde(rename = "tls_timeout_ms", with = "millis")]
    pub tls_timeout: Duration,
    /// The longest time between sending a request and the head of its response.
    #[serde(rename = "header_timeout_ms", with = "millis")]
    pub header_timeout: Duration,
    /// The longest silence within a response body.
    #[serde(rename = "body_idle_timeout_ms", with = "millis")]
    pub body_idle_timeout: Duration,
    /// How long an unused connection stays in the pool.
    #[serde(rename = "pool_idle_timeout_ms", with = "millis")]
    pub pool_idle_timeout: Duration,
    /// Dial another address for a host and port, as curl's `--connect-to`: `HOST:PORT:HOST:PORT`.
    pub connect_to: Vec<String>,
    /// The proxy between Tracewire and endpoints: `env` (from Tracewire's own environment), `none`, or
    /// `http(s)://[USER:PASSWORD@]HOST:PORT`.
    pub proxy: UpstreamProxy,
    /// Hosts to reach without that proxy, in addition to NO_PROXY and in its notation.
    pub no_proxy: Vec<String>,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            tls_timeout: Duration::from_secs(10),
            // A long response that is not streamed starts when it is complete.
            header_timeout: Duration::from_secs(1800),
            body_idle_timeout: Duration::ZERO,
            pool_idle_timeout: Duration::from_secs(60),
            connect_to: Vec::new(),
            proxy: UpstreamProxy::default(),
            no_proxy: Vec::new(),
        }
    }
}
