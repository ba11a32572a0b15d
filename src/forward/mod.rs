//! THE hot path: one request in, one response out, seen on the way.
//!
//! Start with [`Forwarder::handle`]. It must never name a store, a dialect or an exporter: a parser can't slow or break
//! the traffic.

mod absorb;
pub mod connection;
pub mod expect;
pub mod identity;
pub mod reply;
pub mod rewrite;
mod start;
pub mod tokens;
pub mod upgrade;
mod whole;

mod handle;
mod interims;

pub use connection::{ConnectionContext, NamedRollout, Tunnel};
pub use handle::{Forwarder, note, response_error};
pub use start::{ActiveExchange, RetentionOverride, request_head};
pub use tokens::TokenSettings;

use crate::upstream::{Body, Origin};
use http::{Request, Response};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use std::pin::Pin;

/// Takes requests that don't go to the endpoint they name, and answers them. The gateway is one; `app` passes it in.
pub trait RequestInterceptor: Send + Sync {
    /// True when requests to `origin` may be taken.
    fn may_take(&self, origin: &Origin) -> bool;

    /// True when this request is taken.
    fn takes(&self, origin: &Origin, request: &Request<Incoming>) -> bool;

    /// Answers it, and has it recorded.
    fn handle<'a>(
        &'a self,
        conversation: &'a ConnectionContext,
        origin: Origin,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send + 'a>>;
}

/// `[trace]` of the settings: what happens to `traceparent`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceSettings {
    /// Hosts (patterns) toward which `traceparent` names our span. Toward others it goes on as it came.
    pub propagate_hosts: Vec<String>,
}
