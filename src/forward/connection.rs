//! What is known of an agent's connection: every request on it is handled with this.

use crate::net::drain::DrainGuard;
use crate::trace::exchange::TlsFacts;
use crate::trace::{AttemptId, RolloutId};
use crate::upstream::Origin;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// An agent's connection to a door, or the inside of one of its tunnels.
#[derive(Clone, Debug)]
pub struct ConnectionContext {
    /// Number of the connection in this process.
    pub id: u64,
    /// The agent's address.
    pub client: SocketAddr,
    /// What the door is bound to, if it is.
    pub binding: Option<(RolloutId, AttemptId)>,
    /// What the gateway's URL prefix named.
    pub prefix: NamedRollout,
    /// What the gateway's API key named.
    pub key: NamedRollout,
    /// What the proxy credentials named.
    pub credentials: NamedRollout,
    /// The rollout of the connection's own, for exchanges that nobody names.
    pub own: (RolloutId, AttemptId),
    /// `User-Agent` of the CONNECT that opened the tunnel.
    pub user_agent: Option<String>,
    /// The tunnel that the request came through, if it did.
    pub tunnel: Option<Tunnel>,
    /// Holds the drain until everything of this connection is over.
    pub guard: DrainGuard,
}

/// The user name of proxy credentials, read as `ROLLOUT.ATTEMPT` or `ROLLOUT`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedRollout {
    /// The rollout.
    pub rollout: Option<RolloutId>,
    /// The attempt.
    pub attempt: Option<AttemptId>,
}

/// The inside of an intercepted CONNECT.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Where it leads: no request inside may name another host.
    pub origin: Origin,
    /// TLS toward the agent.
    pub tls: Option<TlsFacts>,
    /// Why the endpoint can't be reached, when that came out after the CONNECT was answered.
    pub unreachable: Option<crate::error::ProxyError>,
}

impl ConnectionContext {
    /// A new connection from `client`.
    pub fn new(client: SocketAddr, binding: Option<(RolloutId, AttemptId)>, guard: DrainGuard) -> Self {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
        let own = (RolloutId::from_random(fastrand::u64(..)), AttemptId::from_random(fastrand::u32(..)));
        let id = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        Self {
            id,
            client,
            binding,
            prefix: NamedRollout::default(),
            key: NamedRollout::default(),
            credentials: NamedRollout::default(),
            own,
            user_agent: None,
            tunnel: None,
            guard,
        }
    }
}

impl NamedRollout {
    /// Reads a user name. The last dot divides; an attempt id has none, a rollout id may.
    pub fn from_user(user: &str) -> Self {
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
    }
}
