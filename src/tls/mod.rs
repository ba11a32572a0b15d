//! Certificates and TLS: our CA, the leaves it signs, and how we verify endpoints.
//!
//! It must not know about HTTP, rollouts or spans. No key leaves this folder but into the CA's own file.

pub mod authority;
pub mod client;
pub mod leaf;

pub use authority::CertAuthority;
pub use client::{Offer, TlsSettings, UpstreamTls};
pub use leaf::LeafCache;

use crate::trace::exchange::TlsFacts;
use rustls::{CommonState, ProtocolVersion};
use std::path::PathBuf;

/// Why a certificate, a key or a TLS configuration can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or written.
    #[error("{path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A file is there but must not be used.
    #[error("{path} {problem}")]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: &'static str,
    },
    /// A PEM file holds no certificate, or a damaged one.
    #[error("{path} holds no usable PEM certificate: {cause}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A certificate can't be made.
    #[error("a certificate for {host:?} can't be made: {cause}")]
    Issue {
        /// The host.
        host: String,
        /// What the library said.
        cause: String,
    },
    /// A TLS configuration is refused.
    #[error(transparent)]
    Config(#[from] rustls::Error),
    /// The system's randomness is not available.
    #[error("the system gives no random numbers")]
    Random,
}

/// Makes aws-lc-rs the provider of every TLS configuration of this process. Idempotent.
pub fn install_provider() {
    // An error only says that it was installed before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// What was negotiated, for the span.
pub fn facts(connection: &CommonState, server_name: Option<&str>) -> TlsFacts {
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
