//! Certificates and TLS: our CA, the leaf certificates it signs, and the verification of endpoints.
//!
//! It must not know about HTTP, rollouts or spans. Private keys leave this folder only for the CA's own key file.

mod cert_authority;
mod client;
mod error;
mod failure;
mod leaf;
mod leaf_key;
mod negotiated;
mod p521;
mod verifier;

pub use cert_authority::CertAuthority;
pub(crate) use cert_authority::certificate_path;
pub(crate) use client::{Offer, TlsSettings, UpstreamTls};
pub(crate) use error::TlsError;
pub(crate) use failure::TlsFailure;
pub use leaf::LeafCache;
pub use leaf_key::LeafKey;
pub(crate) use negotiated::facts;
pub use negotiated::install_provider;
