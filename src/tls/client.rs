//! TLS toward endpoints: verified always, with the system's roots and the user's own; exceptions by host are recorded.
//!
//! It must not decide what to do when verification fails.

use super::{TlsError, facts};
use crate::net::BoxedIo;
use crate::trace::exchange::TlsFacts;
use crate::util::glob::any_matches;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// `[tls]` of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// Folder of the CA that `serve` signs with; empty: `ca` under the data folder.
    pub ca_dir: Option<PathBuf>,
    /// PEM files with roots to trust toward endpoints, besides the system's.
    pub upstream_ca: Vec<PathBuf>,
    /// Host patterns whose certificates are not verified. Every span of such a host says so.
    pub insecure_hosts: Vec<String>,
    /// Certificates that we show to endpoints that ask for one.
    pub client_certificates: Vec<ClientCertificate>,
}

/// One of `[[tls.client_certificates]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// The endpoints (patterns) it is for; the first entry that names a host counts.
    pub hosts: Vec<String>,
    /// PEM file with the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM file with its key.
    pub key: PathBuf,
}

/// What we offer an endpoint by ALPN: what the agent offered us, so that both legs speak the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Offer {
    /// Only `http/1.1`.
    Http1,
    /// `h2`, else `http/1.1`.
    Http2OrHttp1,
    /// Only `h2`; without TLS by prior knowledge (RFC 9113 §3.3).
    Http2,
}

/// TLS configurations toward endpoints.
pub struct UpstreamTls {
    verified: Configs,
    unverified: Configs,
    insecure_hosts: Vec<String>,
    identified: Vec<(Vec<String>, Configs)>,
}

/// One configuration for each [`Offer`].
type Configs = [Arc<ClientConfig>; 3];

impl UpstreamTls {
    /// Reads the roots. A system without roots is no error as long as `settings` names some, or nothing is dialled.
    pub fn new(settings: &TlsSettings) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::warn!(%error, "a system root can't be read");
        }
        roots.add_parsable_certificates(native.certs);
        for path in &settings.upstream_ca {
            add_file(&mut roots, path)?;
        }
        let verified = ClientConfig::builder().with_root_certificates(roots.clone()).with_no_client_auth();
        let verifier = Arc::new(NoVerification(Arc::new(rustls::crypto::aws_lc_rs::default_provider())));
        let unverified =
            ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        let identified = settings.client_certificates.iter().map(|entry| {
            let (chain, key) = entry.read()?;
            let config =
                ClientConfig::builder().with_root_certificates(roots.clone()).with_client_auth_cert(chain, key)?;
            Ok::<_, TlsError>((entry.hosts.clone(), offering(&config)))
        });
        Ok(Self {
            identified: identified.collect::<Result<_, _>>()?,
            verified: offering(&verified),
            unverified: offering(&unverified),
            insecure_hosts: settings.insecure_hosts.clone(),
        })
    }

    /// What verifies servers of other protocols: the same roots, no ALPN.
    pub fn plain_config(&self) -> Arc<ClientConfig> {
        let mut config = (*self.verified[Offer::Http1 as usize]).clone();
        config.alpn_protocols.clear();
        Arc::new(config)
    }

    /// Shakes hands with the endpoint `host:port` over `stream`.
    pub async fn connect(
        &self,
        stream: BoxedIo,
        host: &str,
        port: u16,
        offer: Offer,
    ) -> std::io::Result<(TlsStream<BoxedIo>, TlsFacts)> {
        let insecure = any_matches(&self.insecure_hosts, host, port);
        let identified = self.identified.iter().find(|(hosts, _)| any_matches(hosts, host, port));
        let configs = match identified {
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

/// True when a handshake failed because of the endpoint's certificate.
pub fn is_certificate_error(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented))
}

/// True when the other side said by an alert that it will not go on.
pub fn is_alert(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
}

fn offering(config: &ClientConfig) -> Configs {
    [&[b"http/1.1".as_slice()] as &[&[u8]], &[b"h2", b"http/1.1"], &[b"h2"]].map(|protocols| {
        let mut config = config.clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.key_log = Arc::new(rustls::KeyLogFile::new());
        Arc::new(config)
    })
}

impl ClientCertificate {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let broken = |path: &Path, cause: rustls::pki_types::pem::Error| TlsError::Pem {
            path: path.to_owned(),
            cause: cause.to_string(),
        };
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|cause| broken(&self.certificate, cause))?;
        Ok((chain, PrivateKeyDer::from_pem_file(&self.key).map_err(|cause| broken(&self.key, cause))?))
    }
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let broken = |cause: String| TlsError::Pem { path: path.to_owned(), cause };
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| broken(error.to_string()))? {
        roots.add(certificate.map_err(|error| broken(error.to_string()))?)?;
    }
    if roots.len() == before { Err(broken("no certificate in it".to_owned())) } else { Ok(()) }
}

/// Takes every certificate; signatures are still checked. Only for hosts that a setting names.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
