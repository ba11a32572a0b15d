//! The state that all handlers share.

use super::metrics_source::MetricsSource;
use super::otlp::counters::IngestCounters;
use super::token::Token;
use crate::gateway::Gateway;
use crate::net::drain::DrainGuard;
use crate::rollout::Rollouts;
use crate::store::BoxFuture;
use crate::trace::span::{Link, SpanContext};
use crate::trace::{Attributes, RolloutId, Span, Value, semconv as names};
use crate::wire::redact::Redactor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// What the handlers use.
#[derive(Clone)]
pub(crate) struct ApiState {
    /// The operations on rollouts, and their store.
    pub rollouts: Rollouts,
    /// Assigns sequence ids, shared with the proxy.
    pub sequences: Arc<dyn Sequences>,
    /// Removes secrets from spans that clients send.
    pub redactor: Arc<Redactor>,
    /// The counters of OTLP ingest.
    pub ingest: Arc<IngestCounters>,
    /// When the process started.
    pub started: Instant,
    /// Reads the metrics of the other parts.
    pub metrics: MetricsSource,
    /// Host names that requests may use.
    pub allowed_hosts: Arc<[String]>,
    /// The callers' tokens; empty: full access for all.
    pub tokens: Arc<[Token]>,
    /// Origins whose web pages may call the API.
    pub cors_origins: Arc<[String]>,
    /// Responds to LLM calls.
    pub(crate) gateway: Gateway,
    /// Held by LLM calls until they end, so that a shutdown waits for them.
    pub guard: DrainGuard,
    /// The address of the proxy listener.
    pub proxy_address: SocketAddr,
}

/// What the API shares with the proxy, which assigns ids and records too. `app` provides it.
pub(crate) trait Sequences: Send + Sync {
    /// The next sequence id of a rollout.
    fn next<'a>(&'a self, rollout: &'a RolloutId) -> BoxFuture<'a, u64>;

    /// The span of the LLM call with this response id; `None` if the proxy did not record it recently.
    fn recorded(&self, rollout: &RolloutId, response_id: &str) -> Option<SpanContext>;

    /// Makes later ids higher than `to`, which a client assigned.
    fn raise<'a>(&'a self, rollout: &'a RolloutId, to: u64) -> BoxFuture<'a, ()>;
}

impl ApiState {
    /// Prepares a span that a client sent: removes secrets, and links it to the proxy's span of the same call.
    pub(super) fn adopt(&self, span: &mut Span) {
        self.redactor.span(span);
        let response_id = span.attributes.get(names::GEN_AI_RESPONSE_ID).and_then(Value::as_str);
        if let Some(context) = response_id.and_then(|id| self.sequences.recorded(&span.rollout_id, id)) {
            let attributes = Attributes::from([(names::LINK.to_owned(), "same_call".into())]);
            span.links.push(Link { context, attributes: Some(attributes) });
        }
    }
}
