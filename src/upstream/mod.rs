//! The way to endpoints: resolve, refuse ourselves, dial, TLS, HTTP connections pooled per rollout.
//!
//! It must not know about capture or about who asked; it answers with a response or with a `ProxyError`.

pub mod body;
pub mod dial;
mod extended;
mod failure;
mod handshake;
pub mod pool;
pub mod send;
pub mod via;

pub use body::{Body, BodyError};
pub use dial::{ConnectTo, Dialled, Dialler, Purpose};
pub use pool::{Isolation, Lease, Origin};
pub use send::{Sent, Upstream, UpstreamFacts};
pub use via::UpstreamProxy;

use crate::trace::units::millis;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[upstream]` of the settings. A time of 0 means no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamSettings {
    /// DNS and TCP together.
    #[serde(rename = "connect_timeout_ms", with = "millis")]
    pub connect_timeout: Duration,
    /// The TLS handshake.
    #[serde(rename = "tls_timeout_ms", with = "millis")]
    pub tls_timeout: Duration,
    /// From the request being sent to the response head.
    #[serde(rename = "header_timeout_ms", with = "millis")]
    pub header_timeout: Duration,
    /// Silence within a response body.
    #[serde(rename = "body_idle_timeout_ms", with = "millis")]
    pub body_idle_timeout: Duration,
    /// How long an unused connection is kept.
    #[serde(rename = "pool_idle_timeout_ms", with = "millis")]
    pub pool_idle_timeout: Duration,
    /// Dial another address for a host and port, as curl's `--connect-to`: `HOST:PORT:HOST:PORT`.
    pub connect_to: Vec<String>,
    /// The proxy before endpoints: `env` (as our own environment says), `none`, or `http(s)://[USER:PASSWORD@]HOST:PORT`.
    pub proxy: UpstreamProxy,
    /// Hosts reached without that proxy, in NO_PROXY's notation and besides it.
    pub no_proxy: Vec<String>,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            tls_timeout: Duration::from_secs(10),
            // A long answer that isn't streamed has its head at the end.
            header_timeout: Duration::from_secs(1800),
            body_idle_timeout: Duration::ZERO,
            pool_idle_timeout: Duration::from_secs(60),
            connect_to: Vec::new(),
            proxy: UpstreamProxy::default(),
            no_proxy: Vec::new(),
        }
    }
}

/// Runs `future` for at most `limit`; zero means no limit. `None` when time ran out.
pub async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    if limit.is_zero() { Some(future.await) } else { tokio::time::timeout(limit, future).await.ok() }
}
