//! Why TLS with an endpoint failed, in words that name the cause.

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

/// Why TLS with an endpoint failed. The texts go on after "the endpoint's certificate".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TlsFailure {
    /// No trusted CA issued its certificate.
    UntrustedCertificate(&'static str),
    /// Its certificate is invalid under any CA: outside its validity period, or for another host.
    InvalidCertificate(String),
    /// Its certificate is of a form that other TLS libraries read and this one does not.
    CertificateForm(&'static str),
    /// It shares no version or cipher suite with this program, or requires a client certificate.
    NothingInCommon,
    /// It ended the connection with another alert.
    Alert,
    /// Any other error, such as a connection that ends during the handshake.
    Other,
}

impl TlsFailure {
    /// Reads the error of a handshake, or of a connection.
    pub(crate) fn of(error: &std::io::Error) -> Self {
        let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else { return Self::Other };
        match inner {
            Error::InvalidCertificate(error) => of_certificate(error),
            Error::NoCertificatesPresented => Self::InvalidCertificate("is missing".to_owned()),
            Error::AlertReceived(
                AlertDescription::HandshakeFailure
                | AlertDescription::ProtocolVersion
                | AlertDescription::InsufficientSecurity,
            )
            | Error::PeerIncompatible(_) => Self::NothingInCommon,
            Error::AlertReceived(_) => Self::Alert,
            _ => Self::Other,
        }
    }
}

fn of_certificate(error: &CertificateError) -> TlsFailure {
    TlsFailure::InvalidCertificate(match error {
        CertificateError::UnknownIssuer => {
            return TlsFailure::UntrustedCertificate("is not issued by a CA that is trusted here");
        }
        CertificateError::Other(cause) if cause.to_string() == CA_USED_AS_END_ENTITY => {
            return TlsFailure::UntrustedCertificate("is self-signed and not trusted itself");
        }
        CertificateError::Other(cause) if cause.to_string() == UNSUPPORTED_VERSION => {
            return TlsFailure::CertificateForm("is X.509 version 1");
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            return TlsFailure::CertificateForm("has its name in the subject only, not in subjectAltName");
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| bare(name)).collect();
            format!("is for {}, not for {}", names.join(", "), expected.to_str())
        }
        CertificateError::ExpiredContext { time, not_after } => {
            format!("expired {} ago", duration(*not_after, *time))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("is valid only in {}, by the clock of this machine", duration(*time, *not_before))
        }
        CertificateError::Revoked => "was revoked".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not for servers (extendedKeyUsage)".to_owned()
        }
        CertificateError::BadSignature => "has a signature that does not verify".to_owned(),
        other => format!("is invalid: {other}"),
    })
}

/// The name in what rustls shows, such as `DnsName("example.com")`.
fn bare(shown: &str) -> &str {
    let inner = shown.split_once('(').map_or(shown, |(_kind, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"')
}

fn duration(from: UnixTime, to: UnixTime) -> String {
    let seconds = to.as_secs().saturating_sub(from.as_secs());
    match seconds / SECONDS_OF_A_DAY {
        0 => format!("{} h", seconds / 3600),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

const SECONDS_OF_A_DAY: u64 = 24 * 3600;
/// How rustls-webpki names a certificate of X.509 version 1.
const UNSUPPORTED_VERSION: &str = "UnsupportedCertVersion";
/// How it names the certificate of a CA that an endpoint presents as its own.
const CA_USED_AS_END_ENTITY: &str = "CaUsedAsEndEntity";

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use std::time::Duration;

    #[test]
    fn causes_are_in_plain_words() {
        let at = |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(days * SECONDS_OF_A_DAY));
        let other = |name: &str| CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("a.test").unwrap(),
            presented: vec![format!("DnsName(\"{name}\")"), "IpAddress(127.0.0.1)".to_owned()],
        };
        for (error, words) in [
            (other("*.b.test"), "is for *.b.test, 127.0.0.1, not for a.test"),
            (CertificateError::ExpiredContext { time: at(9), not_after: at(7) }, "expired 2 days ago"),
            (
                CertificateError::NotValidYetContext { time: at(1), not_before: at(2) },
                "is valid only in 1 day, by the clock of this machine",
            ),
        ] {
            let error = std::io::Error::other(Error::InvalidCertificate(error));
            assert_eq!(TlsFailure::of(&error), TlsFailure::InvalidCertificate(words.to_owned()));
        }
    }
}
