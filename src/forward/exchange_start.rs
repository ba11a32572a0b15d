//! Starts the record of an exchange: which rollout it belongs to, its place in its trace, and whether it is recorded.

use super::connection_context::ConnectionContext;
use super::forwarder::Forwarder;
use super::identity::{OWN_TRAFFIC_HEADER, identify};
use super::reply;
use crate::capture::{ExchangeStart, Recording};
use crate::error::ProxyError;
use crate::shared_state::SequenceLease;
use crate::trace::exchange::{ConnectionFacts, ExchangeKind, Identity, IdentitySource, RequestHead, TraceContext};
use crate::trace::{SpanId, TraceId};
use crate::upstream::{Body, Origin, PoolKey};
use crate::util::glob::any_matches;
use crate::wire::fields;
use crate::wire::framing::target::RawTarget;
use crate::wire::traceparent::TraceParent;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

/// An exchange in progress.
#[derive(Clone)]
pub(crate) struct ActiveExchange {
    /// Its record. It records nothing if a setting excludes the exchange, or the queue was full.
    pub recording: Recording,
    /// The rollout it belongs to.
    pub identity: Identity,
    /// Its place in its trace.
    pub trace: TraceContext,
    // Held as long as the exchange may start further records: the tries of a call.
    sequence: SequenceLease,
}

/// What an exchange records and waits for beyond the settings.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RetentionOverride {
    /// Its bodies are recorded.
    pub bodies: bool,
    /// It must not be lost, as far as `capture.durability` and `capture.when_full` are `auto`.
    pub required: bool,
}

impl ActiveExchange {
    /// The pool of upstream connections that the exchange uses.
    pub(crate) fn pool_key(&self) -> PoolKey {
        let rollout = self.identity.rollout_id.shared();
        match self.identity.source {
            IdentitySource::Connection => PoolKey::PerConnection(rollout),
            _ => PoolKey::Rollout(rollout),
        }
    }
}

impl Forwarder {
    /// Answers a request that must not be sent anywhere, and records it.
    pub(crate) async fn refuse(
        &self,
        connection: &ConnectionContext,
        kind: ExchangeKind,
        head: RequestHead,
        error: &ProxyError,
    ) -> Response<Body> {
        let exchange = self.start_exchange(connection, kind, head, Instant::now()).await;
        tracing::warn!(rollout_id = %exchange.identity.rollout_id, %error, "request refused");
        exchange.recording.fail(error);
        reply::error(error)
    }

    /// Starts an exchange. It is recorded unless a setting excludes it.
    pub(crate) async fn start_exchange(
        &self,
        connection: &ConnectionContext,
        kind: ExchangeKind,
        request: RequestHead,
        started: Instant,
    ) -> ActiveExchange {
        if self.records(&request) {
            return self.start_recorded(connection, kind, request, started, RetentionOverride::default()).await;
        }
        self.recorder.counters().filtered.fetch_add(1, Ordering::Relaxed);
        let (identity, _) = identify(connection, &request.headers);
        let trace = trace_context(&identity, &request.headers);
        ActiveExchange { recording: Recording::off(), identity, trace, sequence: SequenceLease::default() }
    }

    /// Starts an exchange that is recorded whatever its host.
    pub(crate) async fn start_recorded(
        &self,
        connection: &ConnectionContext,
        kind: ExchangeKind,
        request: RequestHead,
        started: Instant,
        retention: RetentionOverride,
    ) -> ActiveExchange {
        let (mut identity, named_id) = identify(connection, &request.headers);
        let trace = trace_context(&identity, &request.headers);
        let allocated = self.sequences.allocate(&identity.rollout_id, named_id).await;
        identity.sequence_id = allocated.sequence_id;
        let facts = ConnectionFacts {
            client: Some(connection.client),
            downstream_id: connection.id,
            downstream_tls: connection.tunnel.as_ref().and_then(|tunnel| tunnel.tls.clone()),
            ..ConnectionFacts::default()
        };
        let recording = self.recorder.start(ExchangeStart {
            identity: identity.clone(),
            sequence: allocated.lease.clone(),
            trace: trace.clone(),
            kind,
            request,
            connection: facts,
            started,
            is_required: allocated.registered || retention.required,
            records_bodies: retention.bodies,
        });
        let recording = recording.await;
        ActiveExchange { recording, identity, trace, sequence: allocated.lease }
    }

    /// Starts the record of a try of a call: a span below that of the call, with its sequence id.
    pub(crate) fn start_try(&self, call: &ActiveExchange, request: RequestHead, started: Instant) -> Recording {
        if !call.recording.is_on() {
            return Recording::off();
        }
        let trace = TraceContext {
            span_id: new_span_id(),
            parent_id: call.trace.span_id,
            parent_is_remote: false,
            ..call.trace.clone()
        };
        self.recorder.start_now(ExchangeStart {
            identity: call.identity.clone(),
            sequence: call.sequence.clone(),
            trace,
            kind: ExchangeKind::Http,
            request,
            connection: ConnectionFacts::default(),
            started,
            is_required: false,
            records_bodies: false,
        })
    }

    /// False if a setting excludes the request from recording.
    pub(super) fn records(&self, request: &RequestHead) -> bool {
        let settings = self.recorder.settings();
        let is_own_traffic = request.headers.get(OWN_TRAFFIC_HEADER).is_some_and(|value| value == "true");
        let (host, port) = (&request.host, request.port);
        (!is_own_traffic || settings.own_traffic)
            && (settings.only_hosts.is_empty() || any_matches(&settings.only_hosts, host, port))
            && !any_matches(&settings.skip_hosts, host, port)
    }
}

/// The head of a request as it is recorded.
pub(crate) fn request_head<B>(origin: &Origin, request: &Request<B>) -> RequestHead {
    let mut headers = fields::copy(request.headers());
    // RFC 9113 §8.3.1: the same fact under the name that it has in HTTP/1.
    if request.version() == Version::HTTP_2
        && let Some(named) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(named.as_str())
    {
        headers.entry(header::HOST).or_insert(host);
    }
    RequestHead {
        method: request.method().clone(),
        scheme: if origin.tls { "https" } else { "http" },
        host: origin.host.clone(),
        port: origin.port,
        target: target_of(request),
        version: request.version(),
        headers,
    }
}

/// Path and query as they came, also where the HTTP library holds something else.
fn target_of<B>(request: &Request<B>) -> String {
    let raw = request.extensions().get::<RawTarget>().filter(|target| target.raw != "*");
    let held = || request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    raw.map_or_else(held, |target| String::from_utf8_lossy(&target.raw).into_owned())
}

/// The caller's trace if exactly one valid `traceparent` names it, else the attempt's.
fn trace_context(identity: &Identity, headers: &HeaderMap) -> TraceContext {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let caller = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().and_then(TraceParent::parse),
        _ => None,
    };
    let (rollout, attempt) = (&identity.rollout_id, &identity.attempt_id);
    TraceContext {
        trace_id: caller.as_ref().map_or_else(|| TraceId::of_attempt(rollout, attempt), |caller| caller.trace_id),
        span_id: new_span_id(),
        parent_id: caller.as_ref().map_or_else(|| SpanId::of_attempt_root(rollout, attempt), |caller| caller.span_id),
        parent_is_remote: caller.is_some(),
        otel_state: caller.and_then(|_| otel_state(headers)),
    }
}

/// The entry `ot` of `tracestate`, if it is not longer than OpenTelemetry allows.
fn otel_state(headers: &HeaderMap) -> Option<String> {
    let entries = headers.get_all("tracestate").iter().filter_map(|value| value.to_str().ok());
    let mut entries = entries.flat_map(|value| value.split(','));
    let state = entries.find_map(|entry| entry.trim().strip_prefix("ot="))?;
    (state.len() <= MAX_OTEL_STATE).then(|| state.to_owned())
}

fn new_span_id() -> SpanId {
    SpanId::of_time(SystemTime::now().into(), fastrand::u64(..))
}

/// Sets `traceparent` so that the endpoint's spans are below ours. The caller's flags stay; without one it is sampled.
pub(super) fn propagate(headers: &mut HeaderMap, trace: &TraceContext) {
    let caller = headers.get(TRACEPARENT).and_then(|value| TraceParent::parse(value.to_str().ok()?));
    let flags = caller.map_or(1, |caller| caller.flags);
    let parent = TraceParent { trace_id: trace.trace_id, span_id: trace.span_id, flags };
    if let Ok(value) = HeaderValue::from_str(&parent.to_string()) {
        headers.insert(TRACEPARENT, value);
    }
}

const TRACEPARENT: &str = "traceparent";
const MAX_OTEL_STATE: usize = 256;
