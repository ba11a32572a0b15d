//! Idle and shared HTTP connections, by pool key and origin: connections of one key never serve another.
//!
//! Idle HTTP/1.1 connections are limited in number: at the limit those idle for longest are closed. It must not dial. The
//! lock is held for a look-up, never across an await.

use super::connection::{Connection, Http1Sender, Http2Sender, Lease, Sender, UpstreamFacts};
use super::origin::{Origin, PoolKey};
use crate::tls::Offer;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(super) struct Pool {
    idle_timeout: Duration,
    max_idle: usize,
    connections: Mutex<PooledConnections>,
}

#[derive(Default)]
struct PooledConnections {
    by_key: HashMap<PoolKey, HashMap<Origin, OriginConnections>>,
    // The number of idle HTTP/1.1 connections under all keys.
    idle: usize,
}

#[derive(Default)]
struct OriginConnections {
    http1: Vec<IdleHttp1>,
    http2: Vec<SharedHttp2>,
}

/// An HTTP/1.1 connection without a request.
struct IdleHttp1 {
    sender: Http1Sender,
    facts: UpstreamFacts,
    since: Instant,
}

/// An HTTP/2 connection, and the number of requests in progress on it.
struct SharedHttp2 {
    sender: Http2Sender,
    facts: UpstreamFacts,
    // Counted by its clones: one here and one in each lease.
    requests: Arc<()>,
    used: Instant,
}

impl SharedHttp2 {
    /// True when the endpoint accepts one more stream (RFC 9113 §5.1.2). A request beyond its limit would only wait.
    fn has_room(&self) -> bool {
        let max = self.sender.max_streams.load(Ordering::Relaxed).clamp(1, MAX_STREAMS as usize);
        !self.sender.requests.is_closed() && Arc::strong_count(&self.requests) <= max
    }

    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.requests) == 1
    }
}

impl Pool {
    /// Keeps idle connections for `idle_timeout` (zero means no limit), and at most `max_idle` HTTP/1.1 connections.
    pub(super) fn new(idle_timeout: Duration, max_idle: usize) -> Self {
        Self { idle_timeout, max_idle, connections: Mutex::default() }
    }

    /// Takes a live connection that speaks what `offer` allows and accepts a request.
    pub(super) fn take(&self, key: &PoolKey, origin: &Origin, offer: Offer) -> Option<(Connection, Lease)> {
        let mut connections = self.lock();
        let PooledConnections { by_key, idle } = &mut *connections;
        let pooled = by_key.get_mut(key)?.get_mut(origin)?;
        if matches!(offer, Offer::Http2OrHttp1 | Offer::Http2)
            && let Some(shared) = pooled.http2.iter_mut().find(|shared| shared.has_room())
        {
            shared.used = Instant::now();
            let connection = Connection { sender: Sender::Http2(shared.sender.clone()), facts: shared.facts.clone() };
            return Some((connection, Lease::on(&shared.requests)));
        }
        if offer == Offer::Http2 {
            return None;
        }
        while let Some(pooled) = pooled.http1.pop() {
            *idle -= 1;
            if self.is_usable(&pooled) {
                let connection = Connection { sender: Sender::Http1(pooled.sender), facts: pooled.facts };
                return Some((connection, Lease::default()));
            }
        }
        None
    }

    /// True when a request to `origin` would find a connection.
    pub(super) fn has_connection(&self, key: &PoolKey, origin: &Origin) -> bool {
        self.any(key, origin, |pooled| {
            pooled.http2.iter().any(SharedHttp2::has_room) || pooled.http1.iter().any(|idle| self.is_usable(idle))
        })
    }

    /// True when there is a live HTTP/2 connection to `origin`.
    pub(super) fn has_http2_connection(&self, key: &PoolKey, origin: &Origin) -> bool {
        self.any(key, origin, |pooled| pooled.http2.iter().any(|shared| !shared.sender.requests.is_closed()))
    }

    /// Adds a connection. The lease counts a request of the caller on a shared connection.
    pub(super) fn put(&self, key: &PoolKey, origin: &Origin, connection: Connection) -> Lease {
        let mut connections = self.lock();
        if connections.idle >= self.max_idle {
            connections.close_longest_idle(self.max_idle / 8);
        }
        let PooledConnections { by_key, idle } = &mut *connections;
        if matches!(key, PoolKey::PerConnection(_)) && !by_key.contains_key(key) {
            // The client connection is closed, and with it its pool.
            return Lease::default();
        }
        let pooled = by_key.entry(key.clone()).or_default().entry(origin.clone()).or_default();
        match connection.sender {
            Sender::Http2(sender) => {
                let requests = Arc::new(());
                let lease = Lease::on(&requests);
                let facts = UpstreamFacts { reused: true, ..connection.facts };
                pooled.http2.push(SharedHttp2 { sender, facts, requests, used: Instant::now() });
                lease
            }
            Sender::Http1(sender) => {
                pooled.http1.push(IdleHttp1 { sender, facts: connection.facts, since: Instant::now() });
                *idle += 1;
                Lease::default()
            }
        }
    }

    /// Removes the HTTP/2 connections to an endpoint that accepts no more requests on them. Responses in progress go on.
    pub(super) fn remove_http2(&self, key: &PoolKey, origin: &Origin) {
        if let Some(pooled) = self.lock().by_key.get_mut(key).and_then(|origins| origins.get_mut(origin)) {
            pooled.http2.clear();
        }
    }

    /// Opens the pool of a client connection. Without it, connections under that key are not kept.
    pub(super) fn open(&self, key: &PoolKey) {
        self.lock().by_key.entry(key.clone()).or_default();
    }

    /// Closes the pool of a client connection, with its idle connections.
    pub(super) fn close(&self, key: &PoolKey) {
        let mut connections = self.lock();
        let removed = connections.by_key.remove(key);
        connections.idle -= removed.iter().flat_map(HashMap::values).map(|pooled| pooled.http1.len()).sum::<usize>();
    }

    /// Removes connections that are closed or were idle for too long.
    pub(super) fn sweep(&self) {
        self.lock().retain(
            |idle| self.is_usable(idle),
            |shared| !shared.sender.requests.is_closed() && (!shared.is_idle() || self.is_fresh(shared.used)),
        );
    }

    fn any(&self, key: &PoolKey, origin: &Origin, test: impl Fn(&OriginConnections) -> bool) -> bool {
        self.lock().by_key.get(key).and_then(|origins| origins.get(origin)).is_some_and(test)
    }

    fn is_usable(&self, idle: &IdleHttp1) -> bool {
        idle.sender.requests.is_ready() && self.is_fresh(idle.since)
    }

    fn is_fresh(&self, since: Instant) -> bool {
        self.idle_timeout.is_zero() || since.elapsed() < self.idle_timeout
    }

    fn lock(&self) -> MutexGuard<'_, PooledConnections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PooledConnections {
    fn retain(&mut self, keep_http1: impl Fn(&IdleHttp1) -> bool, keep_http2: impl Fn(&SharedHttp2) -> bool) {
        let mut idle = 0;
        self.by_key.retain(|key, origins| {
            origins.retain(|_, pooled| {
                pooled.http1.retain(&keep_http1);
                pooled.http2.retain(&keep_http2);
                idle += pooled.http1.len();
                !pooled.http1.is_empty() || !pooled.http2.is_empty()
            });
            matches!(key, PoolKey::PerConnection(_)) || !origins.is_empty()
        });
        self.idle = idle;
    }

    /// Closes the `count` HTTP/1.1 connections that were idle for longest.
    fn close_longest_idle(&mut self, count: usize) {
        let pooled = self.by_key.values().flat_map(HashMap::values);
        let mut times: Vec<Instant> = pooled.flat_map(|pooled| pooled.http1.iter().map(|idle| idle.since)).collect();
        if times.is_empty() {
            return;
        }
        let at = count.min(times.len() - 1);
        let (_, limit, _) = times.select_nth_unstable(at);
        let limit = *limit;
        self.retain(|idle| idle.since > limit, |_| true);
    }
}

/// The maximum number of requests on one HTTP/2 connection, whatever its endpoint allows: more of them would slow each
/// other down.
pub(super) const MAX_STREAMS: u32 = 256;
