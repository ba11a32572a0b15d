//! Certificates and TLS: our CA, the leaf certificates it signs, and the verification of endpoints.
//!
//! It must not know about HTTP, rollouts or spans. Private keys leave this folder only for the CA's own key file.

mod cert_authority;
mod client;
mod error;
mod leaf;
mod negotiated;

pub use cert_authority::CertAuthority;
pub(crate) use cert_authority::certificate_path;
pub(crate) use client::{Offer, TlsSettings, UpstreamTls};
pub(crate) use error::TlsError;
pub use leaf::LeafCache;
pub use negotiated::install_provider;

pub(crate) use client::TlsFailure;
pub(crate) use negotiated::facts;
