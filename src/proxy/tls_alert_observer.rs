//! Observes a client's TLS connection after the handshake, to find out whether the client accepts our certificate.
//!
//! Under TLS 1.3 a client's alert arrives after the server has completed the handshake, or never: some clients only close
//! the connection. So a rejection is a TLS alert, or an end of the connection right after the handshake without a byte.
//! The bytes pass unchanged.

use super::certificate_rejections::{PendingAcceptance, certificate_alert};
use crate::net::{BoxedIo, flush_through, write_through};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, ReadBuf};

/// An open TLS connection. Its first read decides whether the client accepts our certificate.
pub(super) struct TlsAlertObserver {
    inner: BoxedIo,
    // None once it is decided.
    pending: Option<PendingAcceptance>,
    since: Instant,
    rejection_window: Duration,
}

impl TlsAlertObserver {
    /// Observes a connection. `handshake` is the duration of its handshake: an end within ten times that counts as a
    /// rejection.
    pub(super) fn new(inner: BoxedIo, pending: PendingAcceptance, handshake: Duration) -> Self {
        let rejection_window = (handshake * 10).max(MIN_REJECTION_WINDOW);
        Self { inner, pending: Some(pending), since: Instant::now(), rejection_window }
    }

    /// The connection ended without a byte from the client: an early end is a rejection, a late one an unused connection.
    fn ended(&mut self, evidence: &str) {
        let Some(pending) = self.pending.take() else { return };
        if self.since.elapsed() <= self.rejection_window {
            pending.rejected(evidence);
        } else {
            pending.unused();
        }
    }
}

impl AsyncRead for TlsAlertObserver {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.pending.is_none() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        match &read {
            Ok(()) if buf.filled().len() > before => {
                if let Some(pending) = self.pending.take() {
                    pending.accepted();
                }
            }
            Ok(()) => self.ended("closed right after the handshake"),
            Err(error) => match certificate_alert(error) {
                Some(alert) => {
                    if let Some(pending) = self.pending.take() {
                        pending.rejected(&alert);
                    }
                }
                None => self.ended("broken off right after the handshake"),
            },
        }
        Poll::Ready(read)
    }
}

write_through!(TlsAlertObserver);

impl Drop for TlsAlertObserver {
    fn drop(&mut self) {
        // This process closed the connection (a drain, a timeout), which says nothing about the client.
        if let Some(pending) = self.pending.take() {
            pending.unused();
        }
    }
}

const MIN_REJECTION_WINDOW: Duration = Duration::from_millis(100);
