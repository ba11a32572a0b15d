//! Leaf certificates and their TLS server configurations, cached by host and ALPN.
//!
//! All leaves share keys of this process, which are not the CA's: the one that nearly all clients can use is generated at the
//! start, before a request waits. A cached certificate is replaced after a week of the wall clock, which clients compare it
//! with, long before it expires, and when the clock was set back. At [`MAX_CACHED`] entries the least recently used one is
//! evicted.

use super::cert_authority::{CertAuthority, random_serial};
use super::error::TlsError;
use super::leaf_key::{LeafKey, LeafKeys};
use crate::util::lru::{LruCache, lru};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use time::{Duration, OffsetDateTime};

/// Issues leaf certificates for hosts and caches their TLS configurations.
pub struct LeafCache {
    authority: CertAuthority,
    keys: LeafKeys,
    configs: Mutex<LruCache<CacheKey, CachedConfig>>,
}

// Host, ALPN protocols and the kind of the key.
type CacheKey = (String, Vec<Vec<u8>>, LeafKey);

struct CachedConfig {
    config: Arc<ServerConfig>,
    made: OffsetDateTime,
}

impl LeafCache {
    /// A cache that signs with `authority`.
    pub fn new(authority: CertAuthority) -> Result<Self, TlsError> {
        let keys = LeafKeys::default();
        keys.get(LeafKey::P256)?;
        Ok(Self { authority, keys, configs: Mutex::new(lru(MAX_CACHED)) })
    }

    /// The CA that signs the leaf certificates.
    pub fn authority(&self) -> &CertAuthority {
        &self.authority
    }

    /// Returns a TLS configuration for `host` (a DNS name or an IP address) that accepts the ALPN protocols `alpn`, in this
    /// order of preference, with a key of this kind.
    pub fn server_config(&self, host: &str, alpn: &[&[u8]], kind: LeafKey) -> Result<Arc<ServerConfig>, TlsError> {
        self.server_config_at(OffsetDateTime::now_utc(), host, alpn, kind)
    }

    fn server_config_at(
        &self,
        now: OffsetDateTime,
        host: &str,
        alpn: &[&[u8]],
        kind: LeafKey,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let key = (host.to_ascii_lowercase(), alpn.iter().map(|name| name.to_vec()).collect::<Vec<_>>(), kind);
        if let Some(config) = self.cached(&key, now) {
            return Ok(config);
        }
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(
            vec![self.issue(&key.0, kind, now)?, self.authority.ca_der().clone()],
            self.private_key(kind)?,
        )?;
        config.alpn_protocols.clone_from(&key.1);
        config.key_log = Arc::new(rustls::KeyLogFile::new());
        let config = Arc::new(config);
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        configs.put(key, CachedConfig { config: Arc::clone(&config), made: now });
        Ok(config)
    }

    fn cached(&self, key: &CacheKey, now: OffsetDateTime) -> Option<Arc<ServerConfig>> {
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = configs.get(key)?;
        (Duration::ZERO..CACHED_FOR).contains(&(now - cached.made)).then(|| Arc::clone(&cached.config))
    }

    fn private_key(&self, kind: LeafKey) -> Result<PrivateKeyDer<'static>, TlsError> {
        let der = self.keys.get(kind)?.serialize_der();
        Ok(PrivateKeyDer::try_from(der).map_err(|cause| rustls::Error::General(cause.to_owned()))?)
    }

    fn issue(&self, host: &str, kind: LeafKey, now: OffsetDateTime) -> Result<CertificateDer<'static>, TlsError> {
        let failed = |error: rcgen::Error| TlsError::Issue { host: host.to_owned(), cause: error.to_string() };
        let mut params = CertificateParams::default();
        params.subject_alt_names = alternative_names(host).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        if host.len() <= MAX_COMMON_NAME_BYTES {
            params.distinguished_name.push(DnType::CommonName, host);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial()?);
        params.not_before = now - Duration::days(1);
        params.not_after = now + Duration::days(LEAF_DAYS - 1);
        let certificate = params.signed_by(self.keys.get(kind)?, &self.authority.issuer).map_err(failed)?;
        Ok(certificate.der().clone())
    }
}

/// The subject alternative names for a host. A name with an underscore also gets a wildcard, because verifiers differ in
/// which of the two they accept.
fn alternative_names(host: &str) -> Result<Vec<SanType>, rcgen::Error> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SanType::IpAddress(address)]);
    }
    let mut names = vec![SanType::DnsName(host.try_into()?)];
    if let Some((label, parent)) = host.split_once('.')
        && label.contains('_')
        && !parent.contains('_')
        && parent.contains('.')
    {
        names.push(SanType::DnsName(format!("*.{parent}").as_str().try_into()?));
    }
    Ok(names)
}

const MAX_CACHED: usize = 4096;
/// Clients limit the validity of certificates; the strictest known limit is 47 days.
const LEAF_DAYS: i64 = 45;
const CACHED_FOR: Duration = Duration::days(7);
/// The upper bound of X.520.
const MAX_COMMON_NAME_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::*;

    fn leaf(host: &str) -> (Vec<u8>, Vec<u8>) {
        let cache = LeafCache::new(CertAuthority::ephemeral("test").unwrap()).unwrap();
        (
            cache.issue(host, LeafKey::P256, OffsetDateTime::now_utc()).unwrap().to_vec(),
            cache.authority().ca_der().to_vec(),
        )
    }

    #[test]
    fn the_ca_meets_strict_x509() {
        let (_, ca) = leaf("example.com");
        let (_, ca) = X509Certificate::from_der(&ca).unwrap();
        let constraints = ca.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = ca.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert!(
            ca.iter_extensions()
                .any(|e| matches!(e.parsed_extension(), ParsedExtension::SubjectKeyIdentifier(_)) && !e.critical)
        );
    }

    #[test]
    fn a_leaf_meets_strict_x509() {
        let (leaf, ca) = leaf("example.com");
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        let (_, ca) = X509Certificate::from_der(&ca).unwrap();
        let subject_key = ca.iter_extensions().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let authority_key = leaf.iter_extensions().find_map(|e| match e.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => None,
        });
        assert!(authority_key.is_some());
        assert_eq!(authority_key, subject_key);
        let constraints = leaf.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && !constraints.value.ca);
        assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());
        assert!(leaf.extended_key_usage().unwrap().unwrap().value.server_auth);
        let days = (leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp()) / 86_400;
        assert!(days <= 45, "{days}");
        assert_ne!(leaf.public_key().raw, ca.public_key().raw, "the leaf has its own key");
    }

    #[test]
    fn addresses_get_address_names_and_serials_differ() {
        let cache = LeafCache::new(CertAuthority::ephemeral("test").unwrap()).unwrap();
        let mut serials = std::collections::HashSet::new();
        for host in ["127.0.0.1", "::1", "a_b.example.com", &"x".repeat(60), "example.com"] {
            let der = cache.issue(host, LeafKey::P256, OffsetDateTime::now_utc()).unwrap();
            let (_, leaf) = X509Certificate::from_der(&der).unwrap();
            assert!(serials.insert(leaf.raw_serial().to_vec()));
            let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
            match host.parse::<IpAddr>() {
                Ok(_) => assert!(matches!(names[..], [GeneralName::IPAddress(_)])),
                Err(_) => assert!(names.contains(&GeneralName::DNSName(host))),
            }
        }
    }

    #[test]
    fn a_cached_certificate_follows_the_wall_clock() {
        crate::tls::install_provider();
        let cache = LeafCache::new(CertAuthority::ephemeral("test").unwrap()).unwrap();
        let now = OffsetDateTime::now_utc();
        let config = |after| cache.server_config_at(now + after, "a.test", &[b"h2"], LeafKey::P256).unwrap();
        let first = config(Duration::ZERO);
        assert!(Arc::ptr_eq(&first, &config(Duration::days(6))));
        let later = config(Duration::days(50));
        assert!(!Arc::ptr_eq(&first, &later), "the machine was suspended, and the first has expired");
        assert!(
            !Arc::ptr_eq(&later, &config(Duration::ZERO)),
            "the clock was set back, and the later one does not hold yet"
        );
    }

    #[test]
    fn a_configuration_is_cached_by_host_and_alpn() {
        crate::tls::install_provider();
        let cache = LeafCache::new(CertAuthority::ephemeral("test").unwrap()).unwrap();
        let first = cache.server_config("Example.com", &[b"h2"], LeafKey::P256).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.server_config("example.com", &[b"h2"], LeafKey::P256).unwrap()));
        assert!(!Arc::ptr_eq(&first, &cache.server_config("example.com", &[b"http/1.1"], LeafKey::P256).unwrap()));
    }
}
