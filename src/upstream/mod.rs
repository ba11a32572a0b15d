//! Connections to endpoints: name resolution, upstream proxies, dialling, TLS, HTTP, and a connection pool per rollout.
//!
//! It must not know about capture or about who sent a request. A request ends as a response or as a `ProxyError`.

pub mod body;
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
mod send;
mod settings;

pub use body::{Body, BodyError};
pub use connect_to::ConnectTo;
pub use connection::{Lease, UpstreamFacts};
pub use dial::{DialPurpose, Dialled, Dialler, UpstreamError};
pub use idle_limit::IdleLimited;
pub use origin::{Origin, PoolKey, Scheme, authority};
pub use proxies::UpstreamProxy;
pub use send::{Sent, Upstream};
pub use settings::UpstreamSettings;
