//! Where a record begins: whose exchange it is, where it stands in its trace, and whether it is recorded at all.

use super::handle::Forwarder;
use super::identity::{OWN_TRAFFIC_HEADER, identify};
use super::{ConnectionContext, reply};
use crate::capture::{ExchangeStart, Recording};
use crate::error::ProxyError;
use crate::shared_state::SequenceLease;
use crate::trace::exchange::{ConnectionFacts, ExchangeKind, Identity, IdentitySource, RequestHead, TraceContext};
use crate::trace::{SpanId, TraceId};
use crate::upstream::{Body, Origin, PoolKey};
use crate::util::glob::any_matches;
use crate::wire::fields;
use crate::wire::traceparent::TraceParent;
use http::{HeaderMap, Request, Response};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A request that is being recorded.
#[derive(Clone)]
pub struct ActiveExchange {
    /// The record.
    pub recording: Recording,
    /// Whose it is.
    pub identity: Identity,
    /// Its place in its trace.
    pub trace: TraceContext,
    // Held as long as the exchange may start further records: the tries of a call.
    sequence: SequenceLease,
}

/// What is kept of an exchange whatever the settings say.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetentionOverride {
    /// Its bodies.
    pub bodies: bool,
    /// Its span before the end of its answer is delivered, if `capture.durability` is `auto`.
    pub durably: bool,
}

impl ActiveExchange {
    /// The pool of upstream connections that the exchange uses.
    pub fn pool_key(&self) -> PoolKey {
        let rollout = self.identity.rollout_id.shared();
        match self.identity.source {
            IdentitySource::Connection => PoolKey::PerConnection(rollout),
            _ => PoolKey::Rollout(rollout),
        }
    }
}

impl Forwarder {
    /// Answers a request that must not be sent anywhere, and has that recorded.
    pub async fn refuse(
        &self,
        conversation: &ConnectionContext,
        kind: ExchangeKind,
        head: RequestHead,
        error: &ProxyError,
    ) -> Response<Body> {
        let begun = self.begin(conversation, kind, head, Instant::now()).await;
        tracing::warn!(rollout_id = %begun.identity.rollout_id, %error, "request refused");
        begun.recording.fail(error);
        reply::error(error)
    }

    /// Decides whose an exchange is and begins to record it, unless a setting says that it isn't recorded.
    pub async fn begin(
        &self,
        conversation: &ConnectionContext,
        kind: ExchangeKind,
        request: RequestHead,
        started: Instant,
    ) -> ActiveExchange {
        if self.records(&request) {
            return self.record(conversation, kind, request, started, RetentionOverride::default()).await;
        }
        self.recorder.counters().filtered.fetch_add(1, Ordering::Relaxed);
        let (identity, _) = identify(conversation, &request.headers);
        let trace = trace_context(&identity, &request.headers);
        ActiveExchange { recording: Recording::off(), identity, trace, sequence: SequenceLease::default() }
    }

    /// Decides whose an exchange is and begins to record it, whatever its host.
    pub async fn record(
        &self,
        conversation: &ConnectionContext,
        kind: ExchangeKind,
        request: RequestHead,
        started: Instant,
        keep: RetentionOverride,
    ) -> ActiveExchange {
        let (mut identity, given) = identify(conversation, &request.headers);
        let trace = trace_context(&identity, &request.headers);
        let allocated = self.sequences.allocate(&identity.rollout_id, given).await;
        identity.sequence_id = allocated.sequence_id;
        let connection = ConnectionFacts {
            client: Some(conversation.client),
            downstream_id: conversation.id,
            downstream_tls: conversation.tunnel.as_ref().and_then(|tunnel| tunnel.tls.clone()),
            ..ConnectionFacts::default()
        };
        let begin = ExchangeStart {
            identity: identity.clone(),
            trace: trace.clone(),
            kind,
            request,
            connection,
            started,
            auto_durable: allocated.registered || keep.durably,
            records_bodies: keep.bodies,
            sequence: allocated.lease.clone(),
        };
        ActiveExchange { recording: self.recorder.start(begin), identity, trace, sequence: allocated.lease }
    }

    /// Begins to record a try of the call that `begun` is: a span below it, under its sequence id.
    pub fn record_try(&self, begun: &ActiveExchange, request: RequestHead, started: Instant) -> Recording {
        if !begun.recording.is_on() {
            return Recording::off();
        }
        let trace = TraceContext {
            span_id: SpanId::from_random(fastrand::u64(..)),
            parent_id: begun.trace.span_id,
            parent_is_remote: false,
            ..begun.trace.clone()
        };
        self.recorder.start(ExchangeStart {
            identity: begun.identity.clone(),
            trace,
            kind: ExchangeKind::Http,
            request,
            connection: ConnectionFacts::default(),
            started,
            auto_durable: false,
            records_bodies: false,
            sequence: begun.sequence.clone(),
        })
    }

    pub(super) fn records(&self, request: &RequestHead) -> bool {
        let settings = self.recorder.settings();
        let own = request.headers.get(OWN_TRAFFIC_HEADER).is_some_and(|value| value == "true");
        let (host, port) = (&request.host, request.port);
        (!own || settings.own_traffic)
            && (settings.only_hosts.is_empty() || any_matches(&settings.only_hosts, host, port))
            && !any_matches(&settings.skip_hosts, host, port)
    }
}

/// The head of a request as it is recorded.
pub fn request_head<B>(origin: &Origin, request: &Request<B>) -> RequestHead {
    RequestHead {
        method: request.method().clone(),
        scheme: if origin.tls { "https" } else { "http" },
        host: origin.host.clone(),
        port: origin.port,
        target: request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        version: request.version(),
        headers: fields::copy(request.headers()),
    }
}

fn trace_context(identity: &Identity, headers: &HeaderMap) -> TraceContext {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let incoming = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().and_then(TraceParent::parse),
        _ => None,
    };
    let (rollout, attempt) = (&identity.rollout_id, &identity.attempt_id);
    TraceContext {
        trace_id: incoming.as_ref().map_or_else(|| TraceId::of_attempt(rollout, attempt), |parent| parent.trace_id),
        span_id: SpanId::from_random(fastrand::u64(..)),
        parent_id: incoming.as_ref().map_or_else(|| SpanId::of_attempt_root(rollout, attempt), |parent| parent.span_id),
        parent_is_remote: incoming.is_some(),
    }
}

pub(super) const TRACEPARENT: &str = "traceparent";
