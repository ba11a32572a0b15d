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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Whose connections these are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Isolation {
    rollout: Arc<str>,
    // Only one connection of an agent can use them.
    fleeting: bool,
}

impl Isolation {
    /// A rollout's, by its id.
    pub fn of_rollout(rollout: Arc<str>) -> Self {
        Self { rollout, fleeting: false }
    }

    /// Nobody's: connections to our own model servers, where no agent's credentials pass.
    pub fn shared() -> Self {
        static SHARED: LazyLock<Arc<str>> = LazyLock::new(|| "\0gateway".into());
        Self { rollout: Arc::clone(&SHARED), fleeting: false }
    }

    /// An agent's connection's own: kept from [`Upstream::open`](super::Upstream::open) to `forget`.
    pub fn of_connection(rollout: Arc<str>) -> Self {
        Self { rollout, fleeting: true }
    }
}

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
    /// Streams that the endpoint takes at once, as far as it has said.
    pub(super) most_streams: Arc<AtomicUsize>,
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

/// A request under way on a shared connection; dropped with its response.
#[derive(Debug, Default)]
pub struct Lease(#[expect(dead_code, reason = "held, not read")] Option<Arc<()>>);

pub(super) struct Pool {
    idle_timeout: Duration,
    most_idle: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    rollouts: HashMap<Isolation, HashMap<Origin, Entry>>,
    // Idle HTTP/1.1 connections of all of them.
    idle: usize,
}

#[derive(Default)]
struct Entry {
    http1: Vec<(Http1Sender, UpstreamFacts, Instant)>,
    http2: Vec<Shared>,
}

/// An HTTP/2 connection and what is under way on it.
struct Shared {
    sender: Http2Sender,
    facts: UpstreamFacts,
    under_way: Arc<()>,
    used: Instant,
}

impl Shared {
    /// True when the endpoint takes one more stream (RFC 9113 §5.1.2): what is over its limit would only wait.
    fn has_room(&self) -> bool {
        let most = self.sender.most_streams.load(Ordering::Relaxed).clamp(1, MAX_STREAMS);
        !self.sender.requests.is_closed() && Arc::strong_count(&self.under_way) <= most
    }

    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.under_way) == 1
    }
}

impl Pool {
    /// Keeps idle connections for `idle_timeout`, and `most_idle` HTTP/1.1 connections in all.
    pub(super) fn new(idle_timeout: Duration, most_idle: usize) -> Self {
        Self { idle_timeout, most_idle, kept: Mutex::default() }
    }

    /// A live connection that speaks what `offer` allows, with room for a request.
    pub(super) fn take(&self, isolation: &Isolation, origin: &Origin, offer: Offer) -> Option<(Connection, Lease)> {
        let mut kept = self.lock();
        let Kept { rollouts, idle } = &mut *kept;
        let entry = rollouts.get_mut(isolation)?.get_mut(origin)?;
        if offer != Offer::Http1
            && let Some(shared) = entry.http2.iter_mut().find(|shared| shared.has_room())
        {
            shared.used = Instant::now();
            let sender = Sender::Http2(shared.sender.clone());
            return Some((
                Connection { sender, facts: shared.facts.clone() },
                Lease(Some(Arc::clone(&shared.under_way))),
            ));
        }
        if offer == Offer::Http2 {
            return None;
        }
        while let Some((sender, facts, since)) = entry.http1.pop() {
            *idle -= 1;
            if sender.requests.is_ready() && self.is_fresh(since) {
                return Some((Connection { sender: Sender::Http1(sender), facts }, Lease::default()));
            }
        }
        None
    }

    /// True when a request to `origin` would find a connection.
    pub(super) fn holds(&self, isolation: &Isolation, origin: &Origin) -> bool {
        let kept = self.lock();
        kept.rollouts.get(isolation).and_then(|origins| origins.get(origin)).is_some_and(|entry| {
            entry.http2.iter().any(Shared::has_room)
                || entry.http1.iter().any(|(sender, _, since)| sender.requests.is_ready() && self.is_fresh(*since))
        })
    }

    /// True when a live HTTP/2 connection to `origin` is there to share.
    pub(super) fn speaks_http2(&self, isolation: &Isolation, origin: &Origin) -> bool {
        let kept = self.lock();
        let entry = kept.rollouts.get(isolation).and_then(|origins| origins.get(origin));
        entry.is_some_and(|entry| entry.http2.iter().any(|shared| !shared.sender.requests.is_closed()))
    }

    /// Keeps a connection. One that is shared is under way as soon as it is kept.
    pub(super) fn put(&self, isolation: &Isolation, origin: &Origin, connection: Connection) -> Lease {
        let mut kept = self.lock();
        if kept.idle >= self.most_idle {
            kept.give_up_oldest(self.most_idle / 8);
        }
        let Kept { rollouts, idle } = &mut *kept;
        if isolation.fleeting && !rollouts.contains_key(isolation) {
            // Its agent is gone.
            return Lease::default();
        }
        let entry = rollouts.entry(isolation.clone()).or_default().entry(origin.clone()).or_default();
        match connection.sender {
            Sender::Http2(sender) => {
                let under_way = Arc::new(());
                let lease = Lease(Some(Arc::clone(&under_way)));
                let facts = UpstreamFacts { reused: true, ..connection.facts };
                entry.http2.push(Shared { sender, facts, under_way, used: Instant::now() });
                lease
            }
            Sender::Http1(sender) => {
                entry.http1.push((sender, connection.facts, Instant::now()));
                *idle += 1;
                Lease::default()
            }
        }
    }

    /// Gives up the HTTP/2 connections: the endpoint takes no more requests on them, though it may still answer some.
    pub(super) fn forget_http2(&self, isolation: &Isolation, origin: &Origin) {
        if let Some(entry) = self.lock().rollouts.get_mut(isolation).and_then(|origins| origins.get_mut(origin)) {
            entry.http2.clear();
        }
    }

    /// Lets connections be kept for a fleeting isolation.
    pub(super) fn open(&self, isolation: &Isolation) {
        self.lock().rollouts.entry(isolation.clone()).or_default();
    }

    /// Gives up all connections of an isolation that is over.
    pub(super) fn forget(&self, isolation: &Isolation) {
        let mut kept = self.lock();
        let gone = kept.rollouts.remove(isolation);
        kept.idle -= gone.iter().flat_map(HashMap::values).map(|entry| entry.http1.len()).sum::<usize>();
    }

    /// A limit of zero is none.
    fn is_fresh(&self, since: Instant) -> bool {
        self.idle_timeout.is_zero() || since.elapsed() < self.idle_timeout
    }

    /// Drops what is closed or has been idle too long.
    pub(super) fn sweep(&self) {
        self.lock().retain(
            |(sender, _, since)| sender.requests.is_ready() && self.is_fresh(*since),
            |shared| !shared.sender.requests.is_closed() && (!shared.is_idle() || self.is_fresh(shared.used)),
        );
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn retain(
        &mut self,
        http1: impl Fn(&(Http1Sender, UpstreamFacts, Instant)) -> bool,
        http2: impl Fn(&Shared) -> bool,
    ) {
        let mut idle = 0;
        self.rollouts.retain(|isolation, origins| {
            origins.retain(|_, entry| {
                entry.http1.retain(&http1);
                entry.http2.retain(&http2);
                idle += entry.http1.len();
                !entry.http1.is_empty() || !entry.http2.is_empty()
            });
            isolation.fleeting || !origins.is_empty()
        });
        self.idle = idle;
    }

    /// Drops the `count` that have been idle for longest.
    fn give_up_oldest(&mut self, count: usize) {
        let entries = self.rollouts.values().flat_map(HashMap::values);
        let mut times: Vec<Instant> =
            entries.flat_map(|entry| entry.http1.iter().map(|(_, _, since)| *since)).collect();
        if times.is_empty() {
            return;
        }
        let at = count.min(times.len() - 1);
        let (_, limit, _) = times.select_nth_unstable(at);
        let limit = *limit;
        self.retain(|(_, _, since)| *since > limit, |_| true);
    }
}

/// Requests on one HTTP/2 connection, whatever its endpoint allows: beyond, one connection's order slows them.
const MAX_STREAMS: usize = 256;
