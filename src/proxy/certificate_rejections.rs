//! Clients that reject our certificate. They are counted and recorded with advice; they are never passed through automatically.
//!
//! Repeated rejections of one host log a suggestion to pass the host through; the user decides. Counters are kept for the
//! [`MAX_HOSTS`] hosts used last.

use crate::error::{ErrorKind, ProxyError};
use crate::forward::{ActiveExchange, ConnectionContext};
use crate::net::peer::program_of;
use crate::trace::exchange::{Outcome, Refusal};
use crate::util::lru::{LruCache, lru};
use crate::wire::client_hello::ja4;
use bytes::Bytes;
use rustls::AlertDescription;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is known about the client of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClientIdentity {
    /// `User-Agent` of its CONNECT.
    pub user_agent: Option<String>,
    /// The program's name, if it runs on this machine and was looked up.
    pub program: Option<String>,
    /// The protocols it offered by ALPN, comma-separated.
    pub alpn: String,
    /// The TLS record with its ClientHello.
    pub hello: Bytes,
}

/// Returns the settings that make a client trust the CA, given its `User-Agent` and its program's name.
pub(crate) type Advise = fn(user_agent: Option<&str>, program: Option<&str>) -> String;

/// Certificate rejections seen by one proxy listener.
pub(crate) struct CertificateRejections {
    advise: Advise,
    count: AtomicU64,
    by_host: Mutex<LruCache<String, HostAcceptance>>,
}

/// How the clients of one host reacted to our certificate.
#[derive(Clone, Copy, Debug, Default)]
struct HostAcceptance {
    accepted: bool,
    rejections: u64,
}

/// One CONNECT until it is known whether its client accepts our certificate.
pub(super) struct PendingAcceptance {
    pub(super) rejections: Arc<CertificateRejections>,
    pub(super) connection: ConnectionContext,
    pub(super) host: String,
    pub(super) client: ClientIdentity,
    pub(super) exchange: ActiveExchange,
}

impl CertificateRejections {
    /// Starts without rejections. `advise` gives the fix that the log and the span name.
    pub(crate) fn new(advise: Advise) -> Self {
        Self { advise, count: AtomicU64::new(0), by_host: Mutex::new(lru(MAX_HOSTS)) }
    }

    /// The number of connections with a client that rejected our certificate.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts one more rejection for `host` and returns the host's total.
    fn add(&self, host: &str) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.with_host(host, |host| {
            host.rejections += 1;
            host.rejections
        })
    }

    fn with_host<T>(&self, host: &str, change: impl FnOnce(&mut HostAcceptance) -> T) -> T {
        let mut by_host = self.by_host.lock().unwrap_or_else(PoisonError::into_inner);
        change(by_host.get_or_insert_mut_ref(host, HostAcceptance::default))
    }

    /// Looks up the program behind `peer` if a rejection would need it: the client sent no user agent, and no client has
    /// accepted our certificate for `host` yet. The look-up runs while the client waits for the handshake, because a
    /// client that rejects the certificate exits at once.
    pub(super) async fn program_of(&self, client: &ClientIdentity, peer: SocketAddr, host: &str) -> Option<String> {
        let needed = client.user_agent.is_none() && peer.ip().to_canonical().is_loopback();
        if !needed || self.with_host(host, |host| host.accepted) {
            return None;
        }
        let lookup = tokio::task::spawn_blocking(move || program_of(peer));
        tokio::time::timeout(MAX_LOOKUP_DELAY, lookup).await.ok()?.ok()?
    }
}

impl PendingAcceptance {
    /// The handshake failed. An alert about our certificate is a rejection; any other error is a TLS failure.
    pub(super) fn handshake_failed(self, error: &io::Error) {
        match certificate_alert(error) {
            Some(alert) => self.rejected(&alert),
            None => {
                let error = ProxyError::new(failure_kind(error), self.host.clone(), error.to_string());
                tracing::warn!(peer = %self.connection.client, %error, "the TLS handshake with a client failed");
                self.describe(None);
                self.exchange.recording.fail(&error);
            }
        }
    }

    /// The client sent its first byte after the handshake: it accepts the certificate.
    pub(super) fn accepted(self) {
        self.rejections.with_host(&self.host, |host| host.accepted = true);
        self.exchange.recording.outcome(Outcome::Complete);
    }

    /// The connection ended without evidence of acceptance or rejection.
    pub(super) fn unused(self) {
        self.exchange.recording.outcome(Outcome::Complete);
    }

    /// The client rejects the certificate; `evidence` goes into the error. Identifying the client can block, so it runs on
    /// a blocking thread.
    pub(super) fn rejected(mut self, evidence: &str) {
        let total = self.rejections.add(&self.host);
        let cause = format!("the client refused Tracewire's certificate ({evidence})");
        let record = move || {
            if self.client.user_agent.is_none() && self.client.program.is_none() {
                self.client.program = program_of(self.connection.client);
            }
            let advice = (self.rejections.advise)(self.client.user_agent.as_deref(), self.client.program.as_deref());
            let error = ProxyError::new(ErrorKind::ClientTlsError, self.host.clone(), format!("{cause}; {advice}"));
            let client = self.client.user_agent.as_deref().or(self.client.program.as_deref()).unwrap_or("unknown");
            tracing::warn!(peer = %self.connection.client, client, %error, "not traced");
            if total == SUGGEST_PASSTHROUGH_AFTER {
                tracing::warn!(
                    host = self.host,
                    "clients refused the certificate {total} times; if they have their own list of certificates, add the \
                     host to proxy.passthrough"
                );
            }
            self.describe(Some(&advice));
            self.exchange.recording.fail(&error);
        };
        drop(tokio::task::spawn_blocking(record));
    }

    fn describe(&self, advice: Option<&str>) {
        self.exchange.recording.connection(|connection| {
            connection.refusal = Some(Refusal {
                user_agent: self.client.user_agent.clone(),
                program: self.client.program.clone(),
                alpn: self.client.alpn.clone(),
                fingerprint: ja4(&self.client.hello),
                advice: advice.map(str::to_owned),
            });
        });
    }
}

/// What it means that a handshake failed without an alert about our certificate.
fn failure_kind(error: &io::Error) -> ErrorKind {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::PeerIncompatible(_)) => ErrorKind::ClientTlsIncompatible,
        _ => ErrorKind::ClientTlsError,
    }
}

/// Describes the alert by which a client rejected our certificate; `None` for any other error.
pub(super) fn certificate_alert(error: &io::Error) -> Option<String> {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRevoked, CertificateUnknown, DecryptError,
        UnknownCA, UnsupportedCertificate,
    };
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::AlertReceived(alert) = inner else { return None };
    let about_certificate = matches!(
        alert,
        UnknownCA
            | BadCertificate
            | CertificateUnknown
            | CertificateExpired
            | CertificateRevoked
            | UnsupportedCertificate
            | AccessDenied
            | DecryptError
    );
    about_certificate.then(|| format!("TLS alert {}", alert_name(*alert)))
}

/// The alert's name in RFC 8446 §6.2.
fn alert_name(alert: AlertDescription) -> String {
    let mut name = String::new();
    for letter in format!("{alert:?}").replace("CA", "Ca").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

/// The longest time that a handshake waits for the client's program name. A lookup takes a few milliseconds, but on a busy
/// machine it may wait for a thread.
const MAX_LOOKUP_DELAY: Duration = Duration::from_millis(200);
const SUGGEST_PASSTHROUGH_AFTER: u64 = 3;
const MAX_HOSTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_have_the_names_of_the_rfc() {
        assert_eq!(alert_name(AlertDescription::UnknownCA), "unknown_ca");
        assert_eq!(alert_name(AlertDescription::BadCertificate), "bad_certificate");
    }
}
