//! The settings of the API listener.

use super::token::Token;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// `[server]` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServerSettings {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Host names that requests may use, besides IP addresses and `localhost`. Others are rejected: a page of another
    /// site could make its own name resolve to this machine (DNS rebinding).
    pub allowed_hosts: Vec<String>,
    /// The address that accepts OTLP over gRPC; `None`: no listener.
    pub otlp_grpc_listen: Option<SocketAddr>,
    /// The callers' tokens. If empty, all callers have full access.
    pub tokens: Vec<Token>,
    /// Origins whose web pages may call the API.
    pub cors_origins: Vec<String>,
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

/// The longest request body.
pub(super) const MAX_BODY_BYTES: usize = 64 << 20;
