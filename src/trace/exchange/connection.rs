//! The connections that an exchange used.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The connections that an exchange used, on both sides.
#[derive(Clone, Debug, Default)]
pub struct ConnectionFacts {
    /// The agent's address.
    pub client: Option<SocketAddr>,
    /// Number of the agent's connection in this process.
    pub downstream_id: u64,
    /// TLS with the agent. None for plaintext.
    pub downstream_tls: Option<TlsFacts>,
    /// The endpoint's address as dialled. None before there was a connection.
    pub upstream_peer: Option<SocketAddr>,
    /// TLS with the endpoint. None for plaintext.
    pub upstream_tls: Option<TlsFacts>,
    /// True when the upstream connection had served an earlier exchange.
    pub upstream_reused: bool,
    /// True once the endpoint has ended a response by the end of TLS, without close_notify: it may have been cut off.
    pub upstream_cut: Arc<AtomicBool>,
    /// Why the bytes of a tunnel were relayed unread. `None` unless they were.
    pub unread_because: Option<String>,
    /// The client that rejected our certificate, if this is such an exchange.
    pub refusal: Option<Refusal>,
}

/// A client that broke off its TLS handshake with us, as far as it can be identified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// `User-Agent` of its CONNECT.
    pub user_agent: Option<String>,
    /// The name of its program, if it runs on this machine.
    pub program: Option<String>,
    /// What it offered by ALPN, comma-separated.
    pub alpn: String,
    /// Its TLS fingerprint (JA4).
    pub fingerprint: Option<String>,
    /// What to set so that it trusts our CA, if that was the cause.
    pub advice: Option<String>,
}

/// The result of a TLS handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// `1.2` or `1.3`.
    pub version: Option<&'static str>,
    /// The cipher suite's IANA name.
    pub cipher: Option<String>,
    /// The protocol agreed by ALPN.
    pub alpn: Option<String>,
    /// The server name that the client asked for (SNI).
    pub server_name: Option<String>,
    /// True when the peer's certificate was not verified because a setting says so.
    pub unverified: bool,
}
