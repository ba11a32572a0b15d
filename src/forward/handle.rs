//! One request: who, begin, rewrite, tee, send, tee. See `handle`.

use super::absorb::answer_here;
use super::connection::ConnectionContext;
use super::expect::ContinueGate;
use super::interims::{Interim, listen_for_interims, with_interims};
use super::start::{ActiveExchange, TRACEPARENT, request_head};
use super::tokens::{TokenSettings, stripped};
use super::{RequestInterceptor, TraceSettings, reply, rewrite, upgrade};
use crate::capture::{Absorb, Recorder, Recording, TeeBody, is_trace_export};
use crate::error::{ErrorKind, FramingFault, ProxyError};
use crate::llm::api::ends_stream;
use crate::net::interim::InterimSender;
use crate::shared_state::{DetectedEngines, SequenceAllocator};
use crate::tls::Offer;
use crate::trace::exchange::{Direction, ExchangeKind, Outcome, RequestHead, ResponseHead, TraceContext};
use crate::upstream::authority;
use crate::upstream::{Body, BodyError, Lease, Origin, Sent, Upstream};
use crate::upstream::{IdleLimited, body};
use crate::util::glob::any_matches;
use crate::wire::fields;
use crate::wire::json_edit::Changes;
use crate::wire::traceparent::TraceParent;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::ext::Protocol;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Forwards requests and has them recorded. Cheap to clone.
#[derive(Clone)]
pub struct Forwarder {
    upstream: Upstream,
    pub(super) recorder: Recorder,
    pub(super) sequences: SequenceAllocator,
    trace: Arc<TraceSettings>,
    tokens: Arc<TokenSettings>,
    engines: DetectedEngines,
    detour: Option<Arc<dyn RequestInterceptor>>,
}

impl Forwarder {
    /// A forwarder over these parts.
    pub fn new(
        upstream: Upstream,
        recorder: Recorder,
        sequences: SequenceAllocator,
        trace: TraceSettings,
        tokens: TokenSettings,
        engines: DetectedEngines,
    ) -> Self {
        Self { upstream, recorder, sequences, trace: Arc::new(trace), tokens: Arc::new(tokens), engines, detour: None }
    }

    /// With requests that `detour` takes going there.
    #[must_use]
    pub fn with_detour(self, detour: Arc<dyn RequestInterceptor>) -> Self {
        Self { detour: Some(detour), ..self }
    }

    /// True when requests to `origin` may not go there, so that it need not be reached.
    pub fn may_detour(&self, origin: &Origin) -> bool {
        self.detour.as_ref().is_some_and(|detour| detour.may_take(origin))
    }

    /// The way to endpoints.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Forwards one request to `origin` and answers it, whatever happens. `refusal` is why it must not be sent. Interim
    /// responses go to `interim`, if the agent's connection can take any.
    pub async fn handle(
        &self,
        conversation: &ConnectionContext,
        origin: Origin,
        request: Request<Incoming>,
        refusal: Option<ProxyError>,
        interim: Option<&InterimSender>,
    ) -> Response<Body> {
        let started = Instant::now();
        let refusal = refusal.or_else(|| misdirected(conversation, &origin, &request));
        if let Some(detour) = self.detour.as_ref().filter(|detour| refusal.is_none() && detour.takes(&origin, &request))
        {
            return detour.handle(conversation, origin, request).await;
        }
        let head = request_head(&origin, &request);
        let stays = self.stays_here(&head);
        let begun = self.begin(conversation, ExchangeKind::Http, head, started).await;
        let forwarded = match refusal {
            Some(error) => Err(error),
            None if stays => answer_here(&begun, request).await,
            None => Box::pin(self.forward(conversation, &begun, origin, request, interim)).await,
        };
        forwarded.unwrap_or_else(|error| {
            tracing::warn!(rollout_id = %begun.identity.rollout_id, %error, "exchange failed");
            begun.recording.fail(&error);
            reply::error(&error)
        })
    }

    /// True for telemetry that must not leave the machine.
    fn stays_here(&self, request: &RequestHead) -> bool {
        self.recorder.settings().absorb_telemetry == Absorb::Local && is_trace_export(request) && self.records(request)
    }

    async fn forward(
        &self,
        conversation: &ConnectionContext,
        begun: &ActiveExchange,
        origin: Origin,
        mut request: Request<Incoming>,
        interim: Option<&InterimSender>,
    ) -> Result<Response<Body>, ProxyError> {
        let version = request.version();
        let upgrading = upgrade::wanted(&mut request)?;
        let head_only = request.method() == Method::HEAD;
        let offer = match version {
            Version::HTTP_2 if origin.tls => Offer::Http2OrHttp1,
            // Without TLS nobody asks: inside a tunnel the agent knows, at the door it only knows us.
            Version::HTTP_2 if conversation.tunnel.is_some() => Offer::Http2,
            _ => Offer::Http1,
        };
        let (outgoing, interims, changes) =
            Box::pin(self.outgoing(begun, &origin, request, upgrading.is_some())).await?;
        let pool_key = begun.pool_key();
        let interim = interim.filter(|_| version == Version::HTTP_11);
        let sending = pin!(self.upstream.send(outgoing, &pool_key, &origin, offer));
        let sent = with_interims(sending, interims, interim, &begun.recording).await?;
        let (response, lease) = note(&begun.recording, sent);
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switched || (upgrading.is_some() && upgrade::agrees(&response, version)) {
            let held = (conversation.guard.clone(), lease);
            return upgrade::relay(response, upgrading, version, &begun.recording, held);
        }
        let changes = changes.filter(|_| !head_only);
        Ok(self.answer(begun, response, lease, version, head_only, changes).await)
    }

    /// The request as it goes to the endpoint, the interim responses that come back for it, and what its answer loses.
    async fn outgoing(
        &self,
        begun: &ActiveExchange,
        origin: &Origin,
        request: Request<Incoming>,
        upgrading: bool,
    ) -> Result<(Request<Body>, mpsc::Receiver<Interim>, Option<Changes>), ProxyError> {
        let (mut parts, body) = request.into_parts();
        parts.uri = absolute(origin, &parts.uri, &parts.headers)?;
        rewrite::request(&mut parts.headers, upgrading);
        if any_matches(&self.trace.propagate_hosts, &origin.host, origin.port) {
            propagate(&mut parts.headers, &begun.trace);
        }
        let path = parts.uri.path();
        let plan = self.tokens.plan((&origin.host, origin.port), &self.engines, &parts.method, path, &parts.headers);
        let plan = plan.filter(|_| begun.recording.is_on());
        let tee = TeeBody::new(body, begun.recording.clone(), Direction::Request, request_error, |_| false);
        let (go, opened) = oneshot::channel();
        let mut changes = None;
        let body = if let Some(plan) = plan {
            let whole = tee.collect().await.map_err(|error| request_error(&error))?.to_bytes();
            match plan.apply(&whole, &mut parts.headers) {
                Some(asked) => {
                    begun.recording.injected(asked.injection);
                    changes = Some(asked.changes).filter(|changes| *changes != Changes::default());
                    body::full(asked.body)
                }
                None => body::full(whole),
            }
        } else if parts.headers.contains_key(header::EXPECT) {
            ContinueGate::closed(tee.map_err(BodyError::Http), opened).boxed_unsync()
        } else {
            ContinueGate::open(tee.map_err(BodyError::Http)).boxed_unsync()
        };
        let mut outgoing = Request::from_parts(parts, body);
        let interims = listen_for_interims(&mut outgoing, go);
        Ok((outgoing, interims, changes))
    }

    async fn answer(
        &self,
        begun: &ActiveExchange,
        mut response: Response<Incoming>,
        lease: Lease,
        version: Version,
        head_only: bool,
        changes: Option<Changes>,
    ) -> Response<Body> {
        let recording = &begun.recording;
        rewrite::response(response.headers_mut(), false);
        *response.version_mut() = version;
        let limit = self.upstream.body_idle_timeout();
        if response.body().is_end_stream() || head_only {
            recording.outcome(Outcome::Complete);
            recording.finish_and_wait().await;
            return response.map(|body| IdleLimited::new(body, lease, limit).boxed_unsync());
        }
        let (mut parts, body) = response.into_parts();
        let body = IdleLimited::new(body, lease, limit);
        let tee = TeeBody::new(body, recording.clone(), Direction::Response, response_error, ends_stream);
        let body = match changes {
            Some(changes) => stripped(tee, changes, &mut parts.headers, recording).await,
            None => tee.boxed_unsync(),
        };
        Response::from_parts(parts, body)
    }
}

/// Records the response's head and the connection it came over.
pub fn note(recording: &Recording, sent: Sent) -> (Response<Incoming>, Lease) {
    let Sent { response, facts, lease } = sent;
    recording.response(ResponseHead {
        status: response.status(),
        version: response.version(),
        headers: fields::copy(response.headers()),
    });
    if !facts.reused {
        recording.connected(facts.connect, facts.handshake);
    }
    recording.connection(|connection| {
        connection.upstream_peer = facts.peer;
        connection.upstream_tls = facts.tls;
        connection.upstream_reused = facts.reused;
    });
    (response, lease)
}

/// A request inside a tunnel that names another host would slip past the policy that the tunnel passed.
fn misdirected(conversation: &ConnectionContext, origin: &Origin, request: &Request<Incoming>) -> Option<ProxyError> {
    let tunnel = conversation.tunnel.as_ref()?;
    if let Some(error) = &tunnel.unreachable {
        return Some(error.clone());
    }
    if request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_none() {
        let shown = authority(&tunnel.origin.host, tunnel.origin.port);
        return Some(ProxyError::new(ErrorKind::HttpRequestError, shown, "a CONNECT inside a tunnel"));
    }
    // Every place that names a host must name this one: the next server may look at another of them than we do.
    let hosts = request.headers().get_all(header::HOST);
    let fields = hosts.iter().map(|host| host.to_str().ok()?.parse::<http::uri::Authority>().ok());
    let named: Vec<Option<http::uri::Authority>> = fields.chain(request.uri().authority().cloned().map(Some)).collect();
    let leads = &tunnel.origin;
    let inside = origin == leads || (origin.dial_host.as_ref() == Some(&leads.host) && origin.port == leads.port);
    let is_origins = |named: &&Option<http::uri::Authority>| {
        named.as_ref().is_some_and(|named| named.host().trim_matches(['[', ']']).eq_ignore_ascii_case(&origin.host))
    };
    let stranger = named.iter().find(|named| !is_origins(named));
    (!inside || stranger.is_some()).then(|| {
        let host = stranger.and_then(|named| named.as_ref()).map_or(origin.host.as_str(), |named| named.host());
        let cause = format!("the request names {host} inside a tunnel to {}", leads.host);
        ProxyError::new(ErrorKind::HttpRequestError, authority(&origin.host, origin.port), cause)
    })
}

/// The absolute target. The authority is the one the agent wrote, since a signature may cover it.
fn absolute(origin: &Origin, uri: &Uri, headers: &HeaderMap) -> Result<Uri, ProxyError> {
    let written = uri.authority().map(|authority| authority.as_str().to_owned());
    let host = || headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let shown = authority(&origin.host, origin.port);
    let built = Uri::builder()
        .scheme(if origin.tls { "https" } else { "http" })
        .authority(written.or_else(host).unwrap_or_else(|| shown.clone()))
        .path_and_query(uri.path_and_query().map_or("/", |path| path.as_str()))
        .build();
    built.map_err(|error| ProxyError::from_source(ErrorKind::HttpRequestError, shown, &error))
}

fn propagate(headers: &mut HeaderMap, trace: &TraceContext) {
    let flags = headers.get(TRACEPARENT).and_then(|value| TraceParent::parse(value.to_str().ok()?));
    let flags = flags.map_or(1, |parent| parent.flags);
    let parent = TraceParent { trace_id: trace.trace_id, span_id: trace.span_id, flags };
    if let Ok(value) = HeaderValue::from_str(&parent.to_string()) {
        headers.insert(TRACEPARENT, value);
    }
}

pub(super) fn request_error(error: &hyper::Error) -> ProxyError {
    FramingFault::behind(error)
        .map_or_else(|| ProxyError::from_source(ErrorKind::HttpRequestIncomplete, "", error), FramingFault::of_request)
}

/// What it means that an answer's body broke off.
pub fn response_error(error: &BodyError) -> ProxyError {
    match error {
        BodyError::Http(error) => FramingFault::behind(error).map_or_else(
            || ProxyError::from_source(ErrorKind::HttpResponseIncomplete, "", error),
            FramingFault::of_response,
        ),
        BodyError::Proxy(error) => error.clone(),
    }
}
