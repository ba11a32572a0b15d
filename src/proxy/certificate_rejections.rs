//! An agent that refuses our certificate: recognised, recorded, and told what to set.
//!
//! A refusal is a TLS alert, or a connection given up right after its handshake without a byte; under TLS 1.3 the alert
//! comes after the server believes that it is done, or never. A host is never passed through because of it: that is
//! suggested, and people decide.

use crate::error::{ErrorKind, ProxyError};
use crate::forward::ActiveExchange;
use crate::forward::connection::ConnectionContext;
use crate::net::peer::program_of;
use crate::net::{BoxedIo, write_through};
use crate::trace::exchange::Outcome;
use crate::wire::client_hello::ja4;
use bytes::Bytes;
use rustls::AlertDescription;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, ReadBuf};

/// What is known of the client behind a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClientIdentity {
    /// `User-Agent` of its CONNECT.
    pub user_agent: Option<String>,
    /// The program at the other end, if it runs on this machine.
    pub program: Option<String>,
    /// What it offered by ALPN, comma-separated.
    pub alpn: String,
    /// The TLS record with its ClientHello.
    pub hello: Bytes,
}

/// Tells a client what to set so that it trusts us.
pub type Advise = fn(user_agent: Option<&str>, program: Option<&str>) -> String;

/// CertificateRejections seen at one door.
pub struct CertificateRejections {
    advise: Advise,
    refused: AtomicU64,
    by_host: Mutex<HashMap<String, Standing>>,
}

/// What a host's clients thought of us.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    trusted: bool,
    refused: u64,
}

/// One CONNECT whose handshake may be refused.
pub(super) struct CertificateRejection {
    pub(super) distrust: Arc<CertificateRejections>,
    pub(super) conversation: ConnectionContext,
    pub(super) host: String,
    pub(super) client: ClientIdentity,
    pub(super) begun: ActiveExchange,
}

impl CertificateRejections {
    /// None seen yet.
    pub fn new(advise: Advise) -> Self {
        Self { advise, refused: AtomicU64::new(0), by_host: Mutex::default() }
    }

    /// Connections whose agent refused our certificate.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Notes one more refusal for `host`; how many there are by now.
    fn note(&self, host: &str) -> u64 {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.standing(host, |standing| {
            standing.refused += 1;
            standing.refused
        })
    }

    fn standing<T>(&self, host: &str, change: impl FnOnce(&mut Standing) -> T) -> T {
        let mut by_host = self.by_host.lock().unwrap_or_else(PoisonError::into_inner);
        if by_host.len() >= MAX_HOSTS && !by_host.contains_key(host) {
            by_host.clear();
        }
        change(by_host.entry(host.to_owned()).or_default())
    }

    /// The program behind `peer`, where that may be wanted: a client that gave no name asks for a host that nobody has
    /// trusted us for yet. It must be asked while the client waits for us, since one that refuses us is gone at once.
    pub(super) async fn program_of(&self, client: &ClientIdentity, peer: SocketAddr, host: &str) -> Option<String> {
        let wanted = client.user_agent.is_none() && peer.ip().to_canonical().is_loopback();
        if !wanted || self.standing(host, |standing| standing.trusted) {
            return None;
        }
        let looked = tokio::task::spawn_blocking(move || program_of(peer));
        tokio::time::timeout(MAX_DELAY, looked).await.ok()?.ok()?
    }
}

impl CertificateRejection {
    /// The handshake failed. An alert about our certificate is distrust; anything else is a failure of TLS.
    pub(super) fn handshake_failed(self, error: &io::Error) {
        match alert_of(error) {
            Some(alert) => self.refused(&format!("TLS alert {}", alert_word(alert))),
            None => {
                let error = ProxyError::new(ErrorKind::ClientTlsError, self.host.clone(), error.to_string());
                tracing::warn!(peer = %self.conversation.client, %error, "the handshake failed");
                self.describe(None);
                self.begun.recording.fail(&error);
            }
        }
    }

    /// The agent has sent something: it trusts us.
    fn trusted(self) {
        self.distrust.standing(&self.host, |standing| standing.trusted = true);
        self.begun.recording.outcome(Outcome::Complete);
    }

    /// Nothing can be said of the agent.
    fn unused(self) {
        self.begun.recording.outcome(Outcome::Complete);
    }

    /// The agent does not trust us. Finding out who it is may take a moment, so that is done elsewhere.
    fn refused(mut self, how: &str) {
        let seen = self.distrust.note(&self.host);
        let cause = format!("the client refused Tracewire's certificate ({how})");
        let look = move || {
            if self.client.user_agent.is_none() && self.client.program.is_none() {
                self.client.program = program_of(self.conversation.client);
            }
            let advice = (self.distrust.advise)(self.client.user_agent.as_deref(), self.client.program.as_deref());
            let error = ProxyError::new(ErrorKind::ClientTlsError, self.host.clone(), format!("{cause}; {advice}"));
            let client = self.client.user_agent.as_deref().or(self.client.program.as_deref()).unwrap_or("unknown");
            tracing::warn!(peer = %self.conversation.client, client, %error, "not traced");
            if seen == SUGGEST_AFTER {
                tracing::warn!(
                    host = self.host,
                    "refused {seen} times; if its client has its own list of certificates, name the host in proxy.passthrough"
                );
            }
            self.describe(Some(&advice));
            self.begun.recording.fail(&error);
        };
        drop(tokio::task::spawn_blocking(look));
    }

    fn describe(&self, advice: Option<&str>) {
        self.begun.recording.connection(|connection| {
            connection.refusal = Some(crate::trace::exchange::Refusal {
                user_agent: self.client.user_agent.clone(),
                program: self.client.program.clone(),
                alpn: self.client.alpn.clone(),
                fingerprint: ja4(&self.client.hello),
                advice: advice.map(str::to_owned),
            });
        });
    }
}

/// An opened TLS connection, until the agent's first byte settles whether it trusts us.
pub(super) struct Watched {
    inner: BoxedIo,
    suspicion: Option<CertificateRejection>,
    since: Instant,
    patience: Duration,
}

impl Watched {
    /// Watches a connection whose handshake took so long.
    pub(super) fn new(inner: BoxedIo, suspicion: CertificateRejection, handshake: Duration) -> Self {
        let patience = (handshake * 10).max(MIN_TIMEOUT);
        Self { inner, suspicion: Some(suspicion), since: Instant::now(), patience }
    }

    /// The agent went without a byte: soon is distrust, late is a connection that was never used.
    fn gone(&mut self, how: &str) {
        let Some(suspicion) = self.suspicion.take() else { return };
        if self.since.elapsed() <= self.patience {
            suspicion.refused(how);
        } else {
            suspicion.unused();
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.suspicion.is_none() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        match &read {
            Ok(()) if buf.filled().len() > before => {
                if let Some(suspicion) = self.suspicion.take() {
                    suspicion.trusted();
                }
            }
            Ok(()) => self.gone("closed right after the handshake"),
            Err(error) => match (alert_of(error), self.suspicion.take()) {
                (Some(alert), Some(suspicion)) => suspicion.refused(&format!("TLS alert {}", alert_word(alert))),
                (None, suspicion) => {
                    self.suspicion = suspicion;
                    self.gone("broken off right after the handshake");
                }
                (Some(_), None) => {}
            },
        }
        Poll::Ready(read)
    }
}

write_through!(Watched);

impl Drop for Watched {
    fn drop(&mut self) {
        // The server side gave it up (a drain, a timeout): that says nothing about the agent.
        if let Some(suspicion) = self.suspicion.take() {
            suspicion.unused();
        }
    }
}

/// An alert by which a client says that it doesn't like our certificate.
fn alert_of(error: &io::Error) -> Option<AlertDescription> {
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
    about_certificate.then_some(*alert)
}

/// The alert's name in RFC 8446 §6.2.
fn alert_word(alert: AlertDescription) -> String {
    let mut word = String::new();
    for letter in format!("{alert:?}").replace("CA", "Ca").chars() {
        if letter.is_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.extend(letter.to_lowercase());
    }
    word
}

/// How long a handshake may wait for the client's name.
const MAX_DELAY: Duration = Duration::from_millis(50);
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
const SUGGEST_AFTER: u64 = 3;
const MAX_HOSTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_named_as_the_rfc_names_them() {
        assert_eq!(alert_word(AlertDescription::UnknownCA), "unknown_ca");
        assert_eq!(alert_word(AlertDescription::BadCertificate), "bad_certificate");
    }
}
