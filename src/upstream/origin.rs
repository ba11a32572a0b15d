//! The names of endpoints, and the keys under which their connections are pooled.

use std::sync::Arc;

/// Scheme, host and port of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// True for https.
    pub tls: bool,
    /// The host in lower case, an IPv6 address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The host to dial instead of `host`: set when the client's CONNECT named this host and the TLS inside it another.
    pub dial_host: Option<String>,
}

impl Origin {
    /// An endpoint that is dialled under its own name. Brackets around an IPv6 address are removed.
    pub fn new(tls: bool, host: &str, port: u16) -> Self {
        Self { tls, host: host.trim_matches(['[', ']']).to_ascii_lowercase(), port, dial_host: None }
    }
}

/// Who may share pooled connections. Connections of different keys never serve each other's requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PoolKey {
    /// The exchanges of one rollout, by its id.
    Rollout(Arc<str>),
    /// The gateway's calls to its own backends, which carry no credentials of agents.
    Gateway,
    /// One client connection with exchanges that name no rollout, by the id of the rollout made for it. Such a pool exists
    /// from [`Upstream::open_pool`](super::Upstream::open_pool) to [`close_pool`](super::Upstream::close_pool).
    PerConnection(Arc<str>),
}

/// `host:port`, with brackets around an IPv6 address.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
