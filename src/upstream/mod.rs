//! Connections to endpoints: name resolution, upstream proxies, dialling, TLS, HTTP, and a connection pool per rollout.
//!
//! It must not know about capture or about who sent a request. A request ends as a response or as a `ProxyError`.

mod adapt;
pub(crate) mod body;
mod connect_to;
mod connection;
mod dial;
mod extended;
mod failure;
mod handshake;
mod idle_limit;
mod origin;
mod pool;
mod proxies;
mod proxy_url;
mod race;
mod resend;
mod send;
mod settings;

pub(crate) use body::{Body, BodyError};
pub(crate) use connect_to::ConnectTo;
pub(crate) use connection::{EndpointStream, Lease};
pub(crate) use dial::{DialPurpose, Dialled};
pub(crate) use failure::tls_error;
pub(crate) use idle_limit::IdleLimited;
pub(crate) use origin::{Origin, PoolKey, Scheme, authority};
pub(crate) use proxies::UpstreamProxy;
pub(crate) use send::{Sent, Upstream};
pub(crate) use settings::UpstreamSettings;
