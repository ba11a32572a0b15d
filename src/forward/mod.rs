//! THE hot path: one request in, one response out, seen on the way.
//!
//! Start with [`Forwarder::handle`]. It must never name a store, a dialect or an exporter: a parser can't slow or break
//! the traffic.

mod absorb;
pub mod conversation;
pub mod expect;
pub mod identity;
pub mod reply;
pub mod rewrite;
pub mod terminal;
pub mod tokens;
pub mod upgrade;
mod whole;

mod handle;
mod interims;

pub use conversation::{Conversation, Credentials, Tunnel};
pub use handle::{Begun, Forwarder};
pub use tokens::TokenSettings;

use serde::{Deserialize, Serialize};

/// `[trace]` of the settings: what happens to `traceparent`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceSettings {
    /// Hosts (patterns) toward which `traceparent` names our span. Toward others it goes on as it came.
    pub propagate_hosts: Vec<String>,
}
