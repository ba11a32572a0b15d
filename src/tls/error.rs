//! Errors of certificates and TLS configurations.

use std::path::PathBuf;

/// Why a certificate, a key or a TLS configuration is not available.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("{path}: {cause}")]
    File {
        /// The file's path.
        path: PathBuf,
        /// The system's error.
        cause: std::io::Error,
    },
    /// A file must not be used, or is missing beside another.
    #[error("{path} {problem}")]
    Unusable {
        /// The file's path.
        path: PathBuf,
        /// What is wrong with the file, and what to do about it.
        problem: String,
    },
    /// A PEM file without a certificate, or with a damaged one.
    #[error("{path} contains no usable PEM certificate: {cause}")]
    Pem {
        /// The file's path.
        path: PathBuf,
        /// The parser's error.
        cause: String,
    },
    /// A certificate could not be issued.
    #[error("a certificate for {host:?} could not be issued: {cause}")]
    Issue {
        /// The host that the certificate is for, or the common name of a CA.
        host: String,
        /// The library's error.
        cause: String,
    },
    /// The TLS library rejected a configuration.
    #[error(transparent)]
    Config(#[from] rustls::Error),
    /// The system's random number generator failed.
    #[error("the system's random number generator failed")]
    Random,
}
