//! The provider of all TLS in this process, and what a handshake negotiated.

use super::p521::SECP521R1;
use crate::trace::exchange::TlsFacts;
use rustls::crypto::CryptoProvider;
use rustls::{CommonState, ProtocolVersion};

/// Makes aws-lc-rs the provider of every TLS configuration of this process. Further calls have no effect.
pub fn install_provider() {
    // An error means that a provider is already installed.
    let _ = provider().install_default();
}

/// aws-lc-rs with all curves that it has.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups.push(SECP521R1);
    provider
}

/// Returns what a handshake negotiated, for the span.
pub(crate) fn facts(connection: &CommonState, server_name: Option<&str>) -> TlsFacts {
    TlsFacts {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => Some("1.2"),
            Some(ProtocolVersion::TLSv1_3) => Some("1.3"),
            _ => None,
        },
        cipher: connection
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .map(|name| name.trim_start_matches("TLS13_").to_owned()),
        alpn: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        server_name: server_name.map(str::to_owned),
        unverified: false,
    }
}
