//! Verification of the certificates of endpoints: webpki's, and that of certificates that are trusted by themselves.
//!
//! It must not say what to do about a certificate that does not hold.

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// Accepts what webpki accepts, and a trusted certificate that an endpoint presents as its own.
///
/// `openssl req -x509` makes such a certificate: one that is a CA and names a host. webpki takes a CA for no endpoint;
/// other libraries do if the certificate itself is trusted.
#[derive(Debug)]
pub(super) struct TrustedCertificates {
    chains: Option<Arc<WebPkiServerVerifier>>,
    /// SHA-256 of each trusted certificate.
    trusted: HashSet<Vec<u8>>,
    provider: Arc<CryptoProvider>,
}

impl TrustedCertificates {
    /// Trusts `roots`, which were made of `certificates`.
    pub(super) fn new(
        roots: RootCertStore,
        certificates: &[CertificateDer<'_>],
        provider: Arc<CryptoProvider>,
    ) -> Arc<Self> {
        let trusted = certificates.iter().map(|certificate| fingerprint(certificate)).collect();
        // Without any root there is nothing to verify with; that is no error until an endpoint presents a certificate.
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().ok();
        Arc::new(Self { chains, trusted, provider })
    }
}

fn fingerprint(certificate: &[u8]) -> Vec<u8> {
    digest(&SHA256, certificate).as_ref().to_vec()
}

/// A certificate that is trusted by itself holds for its names, in its time.
fn verify_alone(certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let at = |time: ASN1Time| {
        UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default()))
    };
    let (not_before, not_after) = (at(parsed.validity().not_before), at(parsed.validity().not_after));
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
}

/// Implements the verification of handshake signatures, which no trust in a certificate replaces.
macro_rules! verifies_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for TrustedCertificates {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = match &self.chains {
            Some(chains) => chains.verify_server_cert(certificate, intermediates, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        match verified {
            Err(Error::InvalidCertificate(_)) if self.trusted.contains(&fingerprint(certificate)) => {
                verify_alone(certificate, name, now).map(|()| ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    verifies_signatures!();
}

/// Accepts every certificate. Only for hosts in `tls.insecure_hosts`.
#[derive(Debug)]
pub(super) struct NoVerification {
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    verifies_signatures!();
}
