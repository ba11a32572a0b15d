//! `[server]` of the settings: where the API listens, and who may call it.

use super::token::Token;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// `[server]` of the settings. The limits of connections and of request heads are those of `[proxy]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServerSettings {
    /// The address of the API listener. Port 0 takes a free port.
    #[serde(deserialize_with = "crate::util::listen_address::deserialize")]
    pub(crate) listen: SocketAddr,
    /// Host names that requests may name, besides IP addresses and `localhost`. Requests for other names get a 403: a web
    /// page of another site can make its own name resolve to this machine (DNS rebinding).
    #[serde(deserialize_with = "crate::util::host_patterns::deserialize")]
    pub(crate) allowed_hosts: Vec<String>,
    /// The address of the OTLP gRPC listener. `None`: OTLP is available over HTTP only.
    #[serde(deserialize_with = "crate::util::listen_address::deserialize_some")]
    pub(crate) otlp_grpc_listen: Option<SocketAddr>,
    /// The tokens that callers may present. If empty, all callers have full access.
    pub(crate) tokens: Vec<Token>,
    /// Both listeners want tokens, which are made in the data folder unless the settings have some; the proxy blocks metadata
    /// services.
    pub(crate) secure: bool,
    /// Origins of web pages that may call the API (CORS); `*` allows any.
    pub(crate) cors_origins: Vec<String>,
    /// The LLM calls in the triplet view of Agent Lightning 1.0. The parameter `dedup` of a request replaces it.
    pub(crate) triplets: TripletCalls,
}

/// Which of the LLM calls with one prompt the triplet view of Agent Lightning 1.0 has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TripletCalls {
    /// The last, as Agent Lightning's own server. Failed calls have no prompt, so that one of them stays.
    #[default]
    Last,
    /// All: several samples of one prompt are all training samples.
    All,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4747)),
            allowed_hosts: Vec::new(),
            otlp_grpc_listen: None,
            tokens: Vec::new(),
            secure: false,
            cors_origins: Vec::new(),
            triplets: TripletCalls::default(),
        }
    }
}

/// The largest request body in bytes, before and after decoding. A larger body gets a 413.
pub(super) const MAX_BODY_BYTES: usize = 64 << 20;
