//! `[proxy]` of the settings.

use crate::trace::units::millis;
use crate::util::block_list::BlockList;
use crate::util::secret::Secret;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// `[proxy]` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ProxySettings {
    /// The address to listen on; port 0 takes a free one.
    #[serde(deserialize_with = "crate::util::listen_address::deserialize")]
    pub listen: SocketAddr,
    /// The password that agents must give in their proxy URL. If empty, no password is needed.
    pub token: Secret,
    /// Host patterns. Connections to these hosts are relayed without decryption.
    #[serde(deserialize_with = "crate::util::host_patterns::deserialize")]
    pub passthrough: Vec<String>,
    /// Requests to these hosts, and to names that resolve to them, are rejected.
    pub block: BlockList,
    /// The maximum number of connections. Beyond it, new connections wait until one is closed.
    pub max_connections: usize,
    /// The longest time a client may take for a request head, and for its TLS handshake. It also closes idle
    /// connections. 0 means no limit.
    #[serde(rename = "header_timeout_ms", with = "millis")]
    pub header_timeout: Duration,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            token: Secret::default(),
            passthrough: Vec::new(),
            block: BlockList::default(),
            max_connections: 16_384,
            header_timeout: Duration::from_secs(300),
        }
    }
}
