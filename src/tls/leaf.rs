//! Leaf certificates and the TLS server configurations made of them, cached by host and ALPN.
//!
//! All leaves share one key of this process, which is not the CA's: no key is made on the path of a request. An entry
//! is dropped long before its certificate expires, and the cache is bounded.

use super::authority::random_serial;
use super::{CertAuthority, TlsError};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rcgen::{PKCS_ECDSA_P256_SHA256, SanType};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use time::{Duration, OffsetDateTime};

/// Issues leaves for hosts and keeps their TLS configurations.
pub struct LeafCache {
    authority: CertAuthority,
    key: KeyPair,
    configs: Mutex<HashMap<CacheKey, Cached>>,
}

type CacheKey = (String, Vec<Vec<u8>>);

struct Cached {
    config: Arc<ServerConfig>,
    made: Instant,
}

impl LeafCache {
    /// A cache that signs with `authority`.
    pub fn new(authority: CertAuthority) -> Result<Self, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|error| TlsError::Issue { host: String::new(), cause: error.to_string() })?;
        Ok(Self { authority, key, configs: Mutex::default() })
    }

    /// The CA that signs.
    pub fn authority(&self) -> &CertAuthority {
        &self.authority
    }

    /// A TLS configuration for `host` (a DNS name or an IP address) that offers `alpn` in this order.
    pub fn server_config(&self, host: &str, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
        let key = (host.to_ascii_lowercase(), alpn.iter().map(|name| name.to_vec()).collect::<Vec<_>>());
        if let Some(config) = self.cached(&key) {
            return Ok(config);
        }
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![self.issue(&key.0)?, self.authority.ca_der().clone()], self.private_key())?;
        config.alpn_protocols.clone_from(&key.1);
        config.key_log = Arc::new(rustls::KeyLogFile::new());
        let config = Arc::new(config);
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if configs.len() >= MAX_CACHED {
            evict(&mut configs);
        }
        configs.insert(key, Cached { config: Arc::clone(&config), made: Instant::now() });
        Ok(config)
    }

    fn cached(&self, key: &CacheKey) -> Option<Arc<ServerConfig>> {
        let configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = configs.get(key)?;
        (cached.made.elapsed() < CACHED_FOR).then(|| Arc::clone(&cached.config))
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    fn issue(&self, host: &str) -> Result<CertificateDer<'static>, TlsError> {
        let failed = |error: rcgen::Error| TlsError::Issue { host: host.to_owned(), cause: error.to_string() };
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.subject_alt_names = alternative_names(host).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        if host.len() <= LONGEST_COMMON_NAME {
            params.distinguished_name.push(DnType::CommonName, host);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial()?);
        params.not_before = now - Duration::days(1);
        params.not_after = now + Duration::days(LEAF_DAYS - 1);
        let certificate = params.signed_by(&self.key, &self.authority.issuer).map_err(failed)?;
        Ok(certificate.der().clone())
    }
}

/// The SANs for a host. A name with an underscore also gets its wildcard: verifiers differ in which of both they take.
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

/// Makes room: what is stale goes, and if that is not enough, the older half.
fn evict(configs: &mut HashMap<CacheKey, Cached>) {
    configs.retain(|_, cached| cached.made.elapsed() < CACHED_FOR);
    if configs.len() >= MAX_CACHED {
        let mut ages: Vec<_> = configs.values().map(|cached| cached.made).collect();
        ages.sort_unstable();
        let middle = ages[ages.len() / 2];
        configs.retain(|_, cached| cached.made > middle);
    }
}

const MAX_CACHED: usize = 4096;
/// Total validity; under every client's ceiling, the strictest known being 47 days.
const LEAF_DAYS: i64 = 45;
const CACHED_FOR: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);
/// X.520's upper bound.
const LONGEST_COMMON_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::*;

    fn leaf(host: &str) -> (Vec<u8>, Vec<u8>) {
        let cache = LeafCache::new(CertAuthority::ephemeral("test").unwrap()).unwrap();
        (cache.issue(host).unwrap().to_vec(), cache.authority().ca_der().to_vec())
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
        assert_ne!(leaf.public_key().raw, ca.public_key().raw, "the leaf has a key of its own");
    }

    #[test]
    fn addresses_get_address_names_and_serials_differ() {
        let cache = LeafCache::new(CertAuthority::ephemeral("test").unwrap()).unwrap();
        let mut serials = std::collections::HashSet::new();
        for host in ["127.0.0.1", "::1", "a_b.example.com", &"x".repeat(60), "example.com"] {
            let der = cache.issue(host).unwrap();
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
    fn a_second_look_is_served_from_the_cache() {
        super::super::install_provider();
        let cache = LeafCache::new(CertAuthority::ephemeral("test").unwrap()).unwrap();
        let first = cache.server_config("Example.com", &[b"h2"]).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.server_config("example.com", &[b"h2"]).unwrap()));
        assert!(!Arc::ptr_eq(&first, &cache.server_config("example.com", &[b"http/1.1"]).unwrap()));
    }
}
