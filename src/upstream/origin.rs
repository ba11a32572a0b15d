//! The names of endpoints, and the keys under which their connections are pooled.

use std::sync::Arc;

/// Scheme, host and port of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
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
    /// An endpoint that is dialled under its own name. Without `port` it is the scheme's default. Brackets around an IPv6
    /// address are removed.
    pub(crate) fn new(scheme: Scheme, host: &str, port: Option<u16>) -> Self {
        let (tls, default_port) = match scheme {
            Scheme::Http => (false, 80),
            Scheme::Https => (true, 443),
        };
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        Self { tls, host, port: port.unwrap_or(default_port), dial_host: None }
    }

    /// The authority of a URL: the host, with the port unless it is the scheme's default.
    pub(crate) fn url_authority(&self) -> String {
        match (self.tls, self.port) {
            (true, 443) | (false, 80) if !self.host.contains(':') => self.host.clone(),
            _ => authority(&self.host, self.port),
        }
    }
}

/// The scheme of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// Reads the scheme of a URL; `None` for any other scheme than these two.
    pub(crate) fn parse(scheme: &str) -> Option<Self> {
        match scheme {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }
}

/// Who may share pooled connections. Connections of different keys never serve each other's requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PoolKey {
    /// The exchanges of one rollout, by its id.
    Rollout(Arc<str>),
    /// The gateway's calls to its own backends, which carry no credentials of agents.
    Gateway,
    /// One client connection with exchanges that name no rollout, by the id of the rollout made for it. Such a pool exists
    /// from [`Upstream::open_pool`](super::Upstream::open_pool) to [`close_pool`](super::Upstream::close_pool).
    PerConnection(Arc<str>),
}

impl PoolKey {
    /// The key of a request that has a connection of its own.
    pub(crate) fn unpooled() -> Self {
        Self::PerConnection(Arc::from(""))
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
