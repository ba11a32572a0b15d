//! The state that the handlers of the API share, and what the composition root provides for it.

use super::access::{AccessCheck, RouteAccess};
use super::otlp::counters::IngestCounters;
use super::settings::TripletCalls;
use super::token::Token;
use crate::gateway::Gateway;
use crate::rollout::{Rollouts, SearchCache};
use crate::store::BoxFuture;
use crate::trace::span::{Link, SpanContext};
use crate::trace::{Attributes, RolloutId, Span, Value, semconv};
use crate::trajectory::VerdictSettings;
use crate::wire::redact::Redactor;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// The state of the API. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ApiState {
    /// Operations on rollouts, and their store.
    pub(crate) rollouts: Rollouts,
    /// The sequence ids, which the proxy and the gateway allocate too.
    pub(crate) sequences: Arc<dyn Sequences>,
    /// Removes secrets from the spans that clients send.
    pub(crate) redactor: Arc<Redactor>,
    /// Counts of OTLP ingest.
    pub(crate) ingest: Arc<IngestCounters>,
    /// When the program started.
    pub(crate) started: Instant,
    /// The metrics of the other parts.
    pub(crate) metrics: MetricsSource,
    /// What is wrong with the other parts.
    pub(crate) warnings: WarningsSource,
    /// `server.allowed_hosts`.
    pub(crate) allowed_hosts: Arc<[String]>,
    /// `server.tokens`.
    pub(crate) tokens: Arc<[Token]>,
    /// `server.cors_origins`.
    pub(crate) cors_origins: Arc<[String]>,
    /// `server.triplets`.
    pub(crate) triplets: TripletCalls,
    /// `[verdict]`.
    pub(crate) verdict: Arc<VerdictSettings>,
    /// What searches keep between them.
    pub(crate) search: Arc<SearchCache>,
    /// Answers LLM calls.
    pub(crate) gateway: Gateway,
    /// The address of the proxy listener.
    pub(crate) proxy_address: SocketAddr,
}

/// Adds the current values of the process's parts to a registry. `app` provides it, because the API does not know the
/// other parts.
pub(crate) type MetricsSource = Arc<dyn Fn(&mut Registry) + Send + Sync>;

/// What is wrong with the process's parts now, in words for people: traffic goes on, but what is recorded of it is
/// incomplete.
pub(crate) type WarningsSource = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Sequence ids and recorded calls, which the API shares with the proxy. `app` provides it.
pub(crate) trait Sequences: Send + Sync {
    /// The next sequence id of a rollout.
    fn next<'a>(&'a self, rollout: &'a RolloutId) -> BoxFuture<'a, u64>;

    /// The next `count` sequence ids of a rollout, in ascending order.
    fn next_run<'a>(&'a self, rollout: &'a RolloutId, count: u64) -> BoxFuture<'a, Vec<u64>>;

    /// The span that the proxy or the gateway recorded for the response with this id. `None` if there is none among the
    /// recent calls.
    fn recorded(&self, rollout: &RolloutId, response_id: &str) -> Option<SpanContext>;

    /// The sequence id of a span that a client has numbered itself: `requested`, and later ids of the rollout are higher.
    /// If `requested` is above 2^53, it is ignored, and the span gets the next id.
    fn claim<'a>(&'a self, rollout: &'a RolloutId, requested: u64) -> BoxFuture<'a, u64>;
}

impl ApiState {
    /// The check of a route's access.
    pub(super) fn access_check(&self, access: RouteAccess) -> AccessCheck {
        let signing_key = self.gateway.settings().signing_key.clone();
        AccessCheck { tokens: Arc::clone(&self.tokens), signing_key, access }
    }

    /// Prepares a client's span for the store: removes secrets, and links it to our own span of the same LLM call.
    pub(super) fn adopt(&self, span: &mut Span) {
        self.redactor.span(span);
        let response_id = span.attributes.get(semconv::GEN_AI_RESPONSE_ID).and_then(Value::as_str);
        if let Some(context) = response_id.and_then(|id| self.sequences.recorded(&span.rollout_id, id)) {
            let attributes = Attributes::from([(semconv::LINK.to_owned(), "same_call".into())]);
            span.links.push(Link { context, attributes: Some(attributes) });
        }
    }
}
