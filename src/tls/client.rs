//! TLS to endpoints, verified with the system's roots and the user's own. Exceptions for single hosts are recorded.
//!
//! It must not decide what happens when verification fails.

use super::error::TlsError;
use super::negotiated::{facts, provider};
use super::verifier::{NoVerification, TrustedCertificates};
use crate::net::BoxedIo;
use crate::trace::exchange::TlsFacts;
use crate::util::glob::any_matches;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// `[tls]` of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TlsSettings {
    /// The folder of the CA that `serve` signs with. If absent, `ca` in the data folder.
    pub ca_dir: Option<PathBuf>,
    /// PEM files with root certificates to trust for endpoints, in addition to the system's.
    pub upstream_ca: Vec<PathBuf>,
    /// Patterns of hosts with certificates that are not verified. Spans of these hosts record that.
    #[serde(deserialize_with = "crate::util::host_patterns::deserialize")]
    pub insecure_hosts: Vec<String>,
    /// Client certificates, for endpoints that request one.
    pub client_certificates: Vec<ClientCertificate>,
}

/// One of `[[tls.client_certificates]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientCertificate {
    /// Patterns of the endpoints to present it to. The first entry that matches a host is used.
    #[serde(deserialize_with = "crate::util::host_patterns::deserialize_non_empty")]
    pub hosts: Vec<String>,
    /// A PEM file with the certificate and its chain.
    pub certificate: PathBuf,
    /// A PEM file with its private key.
    pub key: PathBuf,
}

/// The protocols to offer an endpoint by ALPN: those that the client offered, so that both connections speak the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Offer {
    /// `http/1.1` only.
    Http1,
    /// `h2` and `http/1.1`, in this order.
    Http2OrHttp1,
    /// `h2` only; without TLS, HTTP/2 by prior knowledge (RFC 9113 §3.3).
    Http2,
    /// Nothing, and the connection may carry another protocol than HTTP.
    Nothing,
}

/// The TLS configurations for endpoints.
pub(crate) struct UpstreamTls {
    verified: Configs,
    unverified: Configs,
    insecure_hosts: Vec<String>,
    // With a client certificate, by the patterns of its hosts.
    with_certificate: Vec<(Vec<String>, Configs)>,
}

/// One configuration for each [`Offer`].
type Configs = [Arc<ClientConfig>; 4];

impl UpstreamTls {
    /// Reads the root certificates. A system without any is not an error: `settings` may name some, and plain HTTP needs
    /// none.
    pub(crate) fn new(settings: &TlsSettings) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::warn!(%error, "a root certificate of the system could not be read");
        }
        let mut trusted = native.certs;
        for path in &settings.upstream_ca {
            trusted.extend(add_file(&mut roots, path)?);
        }
        roots.add_parsable_certificates(trusted.iter().cloned());
        let provider = Arc::new(provider());
        let verifier = TrustedCertificates::new(roots, &trusted, Arc::clone(&provider));
        let builder = |verifier: Arc<dyn ServerCertVerifier>| {
            ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier)
        };
        let verified = builder(verifier.clone()).with_no_client_auth();
        let unverified = builder(Arc::new(NoVerification { provider })).with_no_client_auth();
        let with_certificate = settings.client_certificates.iter().map(|entry| {
            let (chain, key) = entry.read()?;
            let config = builder(verifier.clone()).with_client_auth_cert(chain, key)?;
            Ok::<_, TlsError>((entry.hosts.clone(), offering(&config)))
        });
        Ok(Self {
            with_certificate: with_certificate.collect::<Result<_, _>>()?,
            verified: offering(&verified),
            unverified: offering(&unverified),
            insecure_hosts: settings.insecure_hosts.clone(),
        })
    }

    /// A configuration for other protocols than HTTP: the same roots, without ALPN.
    pub(crate) fn plain_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.verified[Offer::Nothing as usize])
    }

    /// Performs the TLS handshake with the endpoint `host:port` over `stream`.
    pub(crate) async fn connect(
        &self,
        stream: BoxedIo,
        host: &str,
        port: u16,
        offer: Offer,
    ) -> std::io::Result<(TlsStream<BoxedIo>, TlsFacts)> {
        let insecure = any_matches(&self.insecure_hosts, host, port);
        let with_certificate = self.with_certificate.iter().find(|(hosts, _)| any_matches(hosts, host, port));
        let configs = match with_certificate {
            _ if insecure => &self.unverified,
            Some((_, configs)) => configs,
            None => &self.verified,
        };
        let config = Arc::clone(&configs[offer as usize]);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))?;
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        let facts = TlsFacts { unverified: insecure, ..facts(stream.get_ref().1, Some(host)) };
        Ok((stream, facts))
    }
}

fn offering(config: &ClientConfig) -> Configs {
    [&[b"http/1.1".as_slice()] as &[&[u8]], &[b"h2", b"http/1.1"], &[b"h2"], &[]].map(|protocols| {
        let mut config = config.clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.key_log = Arc::new(rustls::KeyLogFile::new());
        Arc::new(config)
    })
}

impl ClientCertificate {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let damaged = |path: &Path, cause: rustls::pki_types::pem::Error| TlsError::Pem {
            path: path.to_owned(),
            cause: cause.to_string(),
        };
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|cause| damaged(&self.certificate, cause))?;
        Ok((chain, PrivateKeyDer::from_pem_file(&self.key).map_err(|cause| damaged(&self.key, cause))?))
    }
}

/// Adds the certificates of a PEM file, and returns them.
fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let damaged = |cause: String| TlsError::Pem { path: path.to_owned(), cause };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| damaged(error.to_string()))?;
    for certificate in &certificates {
        roots.add(certificate.clone())?;
    }
    if certificates.is_empty() { Err(damaged("the file has no certificate".to_owned())) } else { Ok(certificates) }
}
