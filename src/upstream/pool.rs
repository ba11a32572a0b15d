//! Idle HTTP connections, kept by origin and rollout: one rollout's connections never serve another.
//!
//! It must not dial. The lock is held for a look-up, never over an await.

use super::body::Body;
use super::send::UpstreamFacts;
use super::via::ProxyUrl;
use crate::net::guard::Guard;
use crate::tls::Offer;
use hyper::client::conn::{http1, http2};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Whose connections these are: a rollout's id.
pub type Isolation = Arc<str>;

/// Scheme, host and port of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// True for https.
    pub tls: bool,
    /// Without brackets, lower case.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Where to dial instead of `host`: what the agent's CONNECT named, when TLS inside it named another host.
    pub dial_host: Option<String>,
}

impl Origin {
    /// An endpoint that is dialled by its own name. Brackets around an IPv6 address are taken off.
    pub fn new(tls: bool, host: &str, port: u16) -> Self {
        Self { tls, host: host.trim_matches(['[', ']']).to_ascii_lowercase(), port, dial_host: None }
    }
}

/// The sending half of an HTTP connection.
pub(super) enum Sender {
    Http1(Http1Sender),
    Http2(Http2Sender),
}

pub(super) struct Http1Sender {
    pub(super) requests: http1::SendRequest<Body>,
    /// Judges the responses.
    pub(super) guard: Guard,
    /// The upstream proxy that the requests are sent to, with their whole target.
    pub(super) forward_proxy: Option<ProxyUrl>,
}

#[derive(Clone)]
pub(super) struct Http2Sender {
    pub(super) requests: http2::SendRequest<Body>,
    /// True once the endpoint has said that it takes extended CONNECTs (RFC 8441).
    pub(super) extended_connect: watch::Receiver<bool>,
    /// Has that looked at anew.
    pub(super) look: mpsc::Sender<()>,
    pub(super) made: Instant,
}

/// A connection ready for a request.
pub(super) struct Connection {
    pub(super) sender: Sender,
    pub(super) facts: UpstreamFacts,
}

pub(super) struct Pool {
    idle_timeout: Duration,
    origins: Mutex<HashMap<(Isolation, Origin), Entry>>,
}

#[derive(Default)]
struct Entry {
    http1: Vec<(Http1Sender, UpstreamFacts, Instant)>,
    http2: Option<(Http2Sender, UpstreamFacts)>,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration) -> Self {
        Self { idle_timeout, origins: Mutex::default() }
    }

    /// A live connection that speaks what `offer` allows.
    pub(super) fn take(&self, isolation: &Isolation, origin: &Origin, offer: Offer) -> Option<Connection> {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = origins.get_mut(&(Arc::clone(isolation), origin.clone()))?;
        if offer != Offer::Http1
            && let Some((sender, facts)) = &entry.http2
            && !sender.requests.is_closed()
        {
            return Some(Connection { sender: Sender::Http2(sender.clone()), facts: facts.clone() });
        }
        if offer == Offer::Http2 {
            return None;
        }
        while let Some((sender, facts, since)) = entry.http1.pop() {
            if sender.requests.is_ready() && self.is_fresh(since) {
                return Some(Connection { sender: Sender::Http1(sender), facts });
            }
        }
        None
    }

    /// True when a request to `origin` would find a connection.
    pub(super) fn holds(&self, isolation: &Isolation, origin: &Origin) -> bool {
        let origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        origins.get(&(Arc::clone(isolation), origin.clone())).is_some_and(|entry| {
            entry.http2.as_ref().is_some_and(|(sender, _)| !sender.requests.is_closed())
                || entry.http1.iter().any(|(sender, _, since)| sender.requests.is_ready() && self.is_fresh(*since))
        })
    }

    /// True when a live HTTP/2 connection to `origin` is there to share.
    pub(super) fn speaks_http2(&self, isolation: &Isolation, origin: &Origin) -> bool {
        let origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = origins.get(&(Arc::clone(isolation), origin.clone()));
        entry.is_some_and(|entry| entry.http2.as_ref().is_some_and(|(sender, _)| !sender.requests.is_closed()))
    }

    pub(super) fn put(&self, isolation: &Isolation, origin: &Origin, connection: Connection) {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = origins.entry((Arc::clone(isolation), origin.clone())).or_default();
        match connection.sender {
            Sender::Http2(sender) => entry.http2 = Some((sender, connection.facts)),
            Sender::Http1(sender) if entry.http1.len() < MOST_IDLE => {
                entry.http1.push((sender, connection.facts, Instant::now()));
            }
            Sender::Http1(_) => {}
        }
    }

    /// Gives up the shared HTTP/2 connection: the endpoint takes no more requests on it, though it may still answer some.
    pub(super) fn forget_http2(&self, isolation: &Isolation, origin: &Origin) {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = origins.get_mut(&(Arc::clone(isolation), origin.clone())) {
            entry.http2 = None;
        }
    }

    /// A limit of zero is none.
    fn is_fresh(&self, since: Instant) -> bool {
        self.idle_timeout.is_zero() || since.elapsed() < self.idle_timeout
    }

    /// Drops what is closed or has been idle too long.
    pub(super) fn sweep(&self) {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        origins.retain(|_, entry| {
            entry.http1.retain(|(sender, _, since)| sender.requests.is_ready() && self.is_fresh(*since));
            entry.http2.take_if(|(sender, _)| sender.requests.is_closed());
            !entry.http1.is_empty() || entry.http2.is_some()
        });
    }
}

/// Idle HTTP/1.1 connections kept per origin and rollout.
const MOST_IDLE: usize = 64;
