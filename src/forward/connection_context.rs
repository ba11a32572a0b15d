//! What is known of an agent's connection. Every request on it is handled with this.

use crate::error::ProxyError;
use crate::net::drain::DrainGuard;
use crate::trace::exchange::{ANONYMOUS_USER, TlsFacts};
use crate::trace::{AttemptId, RolloutId};
use crate::upstream::Origin;
use http::HeaderValue;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// An agent's connection to a listener, or the inside of one of its tunnels.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionContext {
    /// Number of the connection in this process.
    pub id: u64,
    /// The agent's address.
    pub client: SocketAddr,
    /// The rollout that the listener is bound to. None for `tracewire serve`.
    pub binding: Option<(RolloutId, AttemptId)>,
    /// The rollout that the gateway's URL prefix names.
    pub prefix: NamedRollout,
    /// The rollout that the gateway's API key names.
    pub key: NamedRollout,
    /// The rollout that the user name of the proxy credentials names.
    pub credentials: NamedRollout,
    /// The proxy credentials of the last request on this connection that was admitted with some. Later requests without any use
    /// them.
    pub last_credentials: Arc<Mutex<Option<HeaderValue>>>,
    /// True if the proxy credentials had the token, or a signed key.
    pub is_authenticated: bool,
    /// What the signed key that the client presented is for: requests that name anything else are refused. `None` for clients
    /// with the proxy's token, or without a key.
    pub limit: Option<NamedRollout>,
    /// A rollout for this connection alone, for requests without any other identity.
    pub fallback_identity: (RolloutId, AttemptId),
    /// `User-Agent` of the CONNECT that opened the tunnel, if it had one.
    pub user_agent: Option<String>,
    /// The tunnel that requests on this connection come through. None outside of tunnels.
    pub tunnel: Option<Tunnel>,
    /// A drain waits until all guards of the connection are dropped.
    pub guard: DrainGuard,
}

/// A rollout and attempt as an agent names them. Without a rollout the attempt is ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NamedRollout {
    /// The rollout, if it is named.
    pub rollout: Option<RolloutId>,
    /// The attempt, if it is named.
    pub attempt: Option<AttemptId>,
}

/// The inside of a CONNECT that is intercepted.
#[derive(Clone, Debug)]
pub(crate) struct Tunnel {
    /// The endpoint that it leads to. Requests inside must not name another host.
    pub origin: Origin,
    /// TLS with the agent. None for plaintext HTTP in the tunnel.
    pub tls: Option<TlsFacts>,
    /// Why the endpoint can't be reached, if that was known only after the CONNECT was answered.
    pub unreachable: Option<ProxyError>,
}

impl ConnectionContext {
    /// A new connection from `client`.
    pub(crate) fn new(client: SocketAddr, binding: Option<(RolloutId, AttemptId)>, guard: DrainGuard) -> Self {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
        let fallback_identity = (RolloutId::from_random(fastrand::u64(..)), AttemptId::from_random(fastrand::u32(..)));
        let id = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        Self {
            id,
            client,
            binding,
            prefix: NamedRollout::default(),
            key: NamedRollout::default(),
            credentials: NamedRollout::default(),
            last_credentials: Arc::default(),
            is_authenticated: false,
            limit: None,
            fallback_identity,
            user_agent: None,
            tunnel: None,
            guard,
        }
    }
}

impl NamedRollout {
    /// True if `named` is this rollout and attempt, or leaves open which one.
    pub(crate) fn includes(&self, named: &Self) -> bool {
        let is_same_attempt = named.attempt.is_none() || self.attempt.is_none() || named.attempt == self.attempt;
        named.rollout.is_none() || (named.rollout == self.rollout && is_same_attempt)
    }

    /// Reads `ROLLOUT.ATTEMPT` or `ROLLOUT`. The part after the last dot is the attempt id. [`ANONYMOUS_USER`] names none.
    pub(crate) fn from_user(user: &str) -> Self {
        if user == ANONYMOUS_USER {
            return Self::default();
        }
        let (rollout, attempt) = match user.rsplit_once('.') {
            Some((rollout, attempt)) if !rollout.is_empty() && !attempt.is_empty() => (rollout, Some(attempt)),
            _ => (user, None),
        };
        Self { rollout: (!rollout.is_empty()).then(|| rollout.into()), attempt: attempt.map(Into::into) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_names_rollout_and_attempt() {
        let read = |user| {
            let read = NamedRollout::from_user(user);
            (read.rollout.map(|id| id.to_string()), read.attempt.map(|id| id.to_string()))
        };
        assert_eq!(read("ro-1.at-2"), (Some("ro-1".into()), Some("at-2".into())));
        assert_eq!(read("a.b.at-2"), (Some("a.b".into()), Some("at-2".into())));
        assert_eq!(read("ro-1"), (Some("ro-1".into()), None));
        assert_eq!(read(""), (None, None));
        assert_eq!(read(ANONYMOUS_USER), (None, None));
    }
}
