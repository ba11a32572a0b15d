//! The keys of leaf certificates, and which of them a client can use.
//!
//! Nearly all clients use the first, which is generated at the start. The others are generated for the first client that needs
//! them.

use super::error::TlsError;
use crate::wire::client_hello::ClientHello;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256,
    SignatureAlgorithm,
};
use rustls::{CipherSuite, NamedGroup, SignatureScheme};
use std::sync::OnceLock;

/// The kind of a leaf's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeafKey {
    /// EC P-256.
    P256,
    /// EC P-384.
    P384,
    /// EC P-521.
    P521,
    /// RSA with 2048 bits.
    Rsa,
}

/// What a client supports, as its ClientHello says.
pub(crate) struct ClientSupport {
    suites: Vec<CipherSuite>,
    schemes: Vec<SignatureScheme>,
    /// `None` if it does not say.
    groups: Option<Vec<NamedGroup>>,
}

impl From<&ClientHello> for ClientSupport {
    fn from(hello: &ClientHello) -> Self {
        Self {
            suites: hello.cipher_suites.iter().copied().map(CipherSuite::from).collect(),
            schemes: hello.signature_schemes.iter().copied().map(SignatureScheme::from).collect(),
            groups: hello.groups.as_ref().map(|groups| groups.iter().copied().map(NamedGroup::from).collect()),
        }
    }
}

impl From<&rustls::server::ClientHello<'_>> for ClientSupport {
    fn from(hello: &rustls::server::ClientHello<'_>) -> Self {
        Self {
            suites: hello.cipher_suites().to_vec(),
            schemes: hello.signature_schemes().to_vec(),
            groups: hello.named_groups().map(<[NamedGroup]>::to_vec),
        }
    }
}

impl LeafKey {
    /// All, in the order of preference.
    const ALL: [Self; 4] = [Self::P256, Self::P384, Self::P521, Self::Rsa];

    /// The first key that a client can use. `None` if it shares no cipher suite, curve or signature scheme with this program.
    pub(crate) fn for_client(client: &ClientSupport) -> Option<Self> {
        let provider = rustls::crypto::CryptoProvider::get_default()?;
        let is_ours = |group: &NamedGroup| provider.kx_groups.iter().any(|ours| ours.name() == *group);
        if client.groups.as_ref().is_some_and(|groups| !groups.iter().any(is_ours)) {
            return None;
        }
        let usable = |key: &Self| key.is_usable_in_tls13(client) || key.is_usable_in_tls12(client);
        Self::ALL.into_iter().find(usable)
    }

    fn is_usable_in_tls13(self, client: &ClientSupport) -> bool {
        let has_suite = client.suites.iter().any(|suite| TLS13_SUITES.contains(suite));
        has_suite && client.schemes.iter().any(|scheme| self.schemes().contains(scheme))
    }

    fn is_usable_in_tls12(self, client: &ClientSupport) -> bool {
        let (suites, curve, pkcs1): (&[_], _, &[_]) = match self {
            Self::P256 => (&ECDSA_SUITES, Some(NamedGroup::secp256r1), &[]),
            Self::P384 => (&ECDSA_SUITES, Some(NamedGroup::secp384r1), &[]),
            Self::P521 => (&ECDSA_SUITES, Some(NamedGroup::secp521r1), &[]),
            Self::Rsa => (&RSA_SUITES, None, &RSA_PKCS1),
        };
        // RFC 8422 §5.1: the curve of the key is one of those that the client supports.
        let has_curve = curve.zip(client.groups.as_ref()).is_none_or(|(curve, groups)| groups.contains(&curve));
        let signs = |scheme| self.schemes().contains(scheme) || pkcs1.contains(scheme);
        has_curve && client.suites.iter().any(|suite| suites.contains(suite)) && client.schemes.iter().any(signs)
    }

    /// The signature schemes of TLS 1.3 with this key.
    fn schemes(self) -> &'static [SignatureScheme] {
        match self {
            Self::P256 => &[SignatureScheme::ECDSA_NISTP256_SHA256],
            Self::P384 => &[SignatureScheme::ECDSA_NISTP384_SHA384],
            Self::P521 => &[SignatureScheme::ECDSA_NISTP521_SHA512],
            Self::Rsa => {
                &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PSS_SHA384, SignatureScheme::RSA_PSS_SHA512]
            }
        }
    }

    fn algorithm(self) -> &'static SignatureAlgorithm {
        match self {
            Self::P256 => &PKCS_ECDSA_P256_SHA256,
            Self::P384 => &PKCS_ECDSA_P384_SHA384,
            Self::P521 => &PKCS_ECDSA_P521_SHA512,
            Self::Rsa => &PKCS_RSA_SHA256,
        }
    }
}

/// One key of each kind, for all hosts.
#[derive(Default)]
pub(super) struct LeafKeys([OnceLock<KeyPair>; LeafKey::ALL.len()]);

impl LeafKeys {
    /// The key of a kind. The first use generates it; RSA takes about a tenth of a second.
    pub(super) fn get(&self, kind: LeafKey) -> Result<&KeyPair, TlsError> {
        let place = &self.0[kind as usize];
        if let Some(key) = place.get() {
            return Ok(key);
        }
        let generated = KeyPair::generate_for(kind.algorithm())
            .map_err(|error| TlsError::Issue { host: String::new(), cause: error.to_string() })?;
        Ok(place.get_or_init(|| generated))
    }
}

const TLS13_SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];
const ECDSA_SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];
const RSA_SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];
const RSA_PKCS1: [SignatureScheme; 3] =
    [SignatureScheme::RSA_PKCS1_SHA256, SignatureScheme::RSA_PKCS1_SHA384, SignatureScheme::RSA_PKCS1_SHA512];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_the_first_key_that_it_can_use() {
        crate::tls::install_provider();
        let key = |suite, schemes: &[SignatureScheme], groups: &[NamedGroup]| {
            let groups = (!groups.is_empty()).then(|| groups.to_vec());
            LeafKey::for_client(&ClientSupport { suites: vec![suite], schemes: schemes.to_vec(), groups })
        };
        let ecdsa = SignatureScheme::ECDSA_NISTP256_SHA256;
        let all = [ecdsa, SignatureScheme::ECDSA_NISTP521_SHA512, SignatureScheme::RSA_PKCS1_SHA256];
        let (p256, p521) = (NamedGroup::secp256r1, NamedGroup::secp521r1);
        let (ecdsa_suite, rsa_suite) = (ECDSA_SUITES[0], RSA_SUITES[1]);
        assert_eq!(key(ecdsa_suite, &all, &[p256]), Some(LeafKey::P256));
        assert_eq!(key(ecdsa_suite, &all, &[]), Some(LeafKey::P256));
        assert_eq!(key(ecdsa_suite, &all, &[p521]), Some(LeafKey::P521));
        assert_eq!(key(rsa_suite, &all, &[p521]), Some(LeafKey::Rsa));
        assert_eq!(key(TLS13_SUITES[0], &all, &[p521]), Some(LeafKey::P256), "TLS 1.3 names curves of keys elsewhere");
        assert_eq!(key(TLS13_SUITES[0], &all[1..2], &[p256]), Some(LeafKey::P521));
        assert_eq!(key(TLS13_SUITES[0], &all[2..], &[p256]), None, "no PKCS #1 in TLS 1.3");
        assert_eq!(key(rsa_suite, &[ecdsa], &[p256]), None);
        assert_eq!(key(ecdsa_suite, &all, &[NamedGroup::FFDHE2048]), None);
        assert_eq!(key(CipherSuite::TLS_RSA_WITH_AES_128_CBC_SHA, &all, &[p256]), None);
    }
}
