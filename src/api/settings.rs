//! `[server]` of the settings: where the API listens, and who may call it.

use super::access::Token;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// `[server]` of the settings. The limits of connections and of request heads are those of `[proxy]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServerSettings {
    /// The address of the API listener. Port 0 takes a free port.
    pub(crate) listen: SocketAddr,
    /// Host names that requests may name, besides IP addresses and `localhost`. Requests for other names get a 403: a web
    /// page of another site can make its own name resolve to this machine (DNS rebinding).
    pub(crate) allowed_hosts: Vec<String>,
    /// The address of the OTLP gRPC listener. `None`: OTLP is available over HTTP only.
    pub(crate) otlp_grpc_listen: Option<SocketAddr>,
    /// The tokens that callers may present. If empty, all callers have full access.
    pub(crate) tokens: Vec<Token>,
    /// Origins of web pages that may call the API (CORS); `*` allows any.
    pub(crate) cors_origins: Vec<String>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4747)),
            allowed_hosts: Vec::new(),
            otlp_grpc_listen: None,
            tokens: Vec::new(),
            cors_origins: Vec::new(),
        }
    }
}

/// The largest request body in bytes, before and after decoding. A larger body gets a 413.
pub(super) const MAX_BODY_BYTES: usize = 64 << 20;
