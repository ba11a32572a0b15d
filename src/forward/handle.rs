//! Handles one request: identity, recording, rewriting, sending, and a tee on each body. See [`Forwarder::handle`].

use super::connection_context::ConnectionContext;
use super::continue_gate::ContinueGate;
use super::errors::{request_error, response_error};
use super::exchange_start::{ActiveExchange, propagate, request_head};
use super::forwarder::Forwarder;
use super::identity::check_named;
use super::interim::{Interim, listen_for_interims, with_interims};
use super::local_export::answer_locally;
use super::plain_request::PlainRequest;
use super::rewrite::UpgradeFields;
use super::target::{absolute, misdirected};
use super::tokens::stripped;
use super::{early_response, reply, rewrite, upgrade};
use crate::capture::{Absorb, EditedBytes, HeldBytes, MemoryUse, Recording, TeeBody, is_trace_export};
use crate::error::ProxyError;
use crate::llm::api::ends_stream;
use crate::llm::token_ids::may_reject;
use crate::net::interim::InterimSender;
use crate::net::received_body::ReceivedBody;
use crate::tls::Offer;
use crate::trace::exchange::{Direction, ExchangeKind, Injection, Outcome, RequestHead, ResponseHead};
use crate::upstream::{Body, BodyError, IdleLimited, Lease, Origin, Sent, body};
use crate::util::glob::any_matches;
use crate::wire::fields;
use crate::wire::framing::target::RawTarget;
use crate::wire::json_strip::Changes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use std::pin::pin;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// A request as it is sent to the endpoint.
struct OutgoingRequest {
    request: Request<Body>,
    /// The interim responses that come back for it.
    interims: mpsc::Receiver<Interim>,
    /// What its response loses: the effect of fields that were added.
    changes: Option<Changes>,
    /// The request as the agent sent it, if fields were added.
    plain: Option<PlainRequest>,
}

/// What a response must know of its request.
#[derive(Clone, Copy)]
struct RequestFacts {
    version: Version,
    is_head: bool,
}

impl Forwarder {
    /// Forwards a request to `origin` and returns the response, or an error response. `refusal` is the reason if the
    /// request must not be sent. Interim responses go to `interim`, if the agent's connection can carry them.
    pub(crate) async fn handle(
        &self,
        connection: &ConnectionContext,
        origin: Origin,
        request: Request<Incoming>,
        refusal: Option<ProxyError>,
        interim: Option<&InterimSender>,
    ) -> Response<Body> {
        let started = Instant::now();
        let refusal = refusal
            .or_else(|| misdirected(connection, &origin, &request))
            .or_else(|| check_named(connection, request.headers()).err());
        if let Some(interceptor) = self.interceptor.as_ref().filter(|_| refusal.is_none())
            && interceptor.intercepts(&origin, &request)
        {
            return interceptor.handle(connection, origin, request).await;
        }
        let head = request_head(&origin, &request);
        let is_local = self.is_answered_locally(&head);
        let exchange = self.start_exchange(connection, ExchangeKind::Http, head, started).await;
        let forwarded = match refusal {
            Some(error) => Err(error),
            None if is_local => answer_locally(&exchange, request).await,
            None => Box::pin(self.forward(connection, &exchange, origin, request, interim)).await,
        };
        forwarded.unwrap_or_else(|error| {
            tracing::warn!(rollout_id = %exchange.identity.rollout_id, %error, "exchange failed");
            exchange.recording.fail(&error);
            reply::error(&error)
        })
    }

    /// True for telemetry that must not leave the machine.
    fn is_answered_locally(&self, request: &RequestHead) -> bool {
        self.recorder.settings().absorb_telemetry == Absorb::Local && is_trace_export(request) && self.records(request)
    }

    async fn forward(
        &self,
        connection: &ConnectionContext,
        exchange: &ActiveExchange,
        origin: Origin,
        mut request: Request<Incoming>,
        interim: Option<&InterimSender>,
    ) -> Result<Response<Body>, ProxyError> {
        let facts = RequestFacts { version: request.version(), is_head: request.method() == Method::HEAD };
        let upgrading = upgrade::requested(&mut request);
        let offer = match facts.version {
            // A target that the HTTP library does not hold can only be written in HTTP/1.1.
            Version::HTTP_2 if origin.tls && request.extensions().get::<RawTarget>().is_some() => Offer::Http1,
            Version::HTTP_2 if origin.tls => Offer::Http2OrHttp1,
            // Without TLS nothing is negotiated. Inside a tunnel the agent knows the endpoint, outside it only knows us.
            Version::HTTP_2 if connection.tunnel.is_some() => Offer::Http2,
            _ => Offer::Http1,
        };
        let upgrade_fields = if upgrading.is_some() { UpgradeFields::Keep } else { UpgradeFields::Remove };
        let OutgoingRequest { request, interims, mut changes, plain } =
            Box::pin(self.outgoing(exchange, &origin, request, upgrade_fields)).await?;
        let pool_key = exchange.pool_key();
        let interim = interim.filter(|_| facts.version == Version::HTTP_11);
        let sending = pin!(self.upstream.send(request, &pool_key, &origin, offer));
        let mut sent = with_interims(sending, interims, interim, &exchange.recording).await?;
        if let Some(plain) = plain.filter(|_| may_reject(sent.response.status().as_u16())) {
            sent = self.send_plain(exchange, &origin, offer, sent, plain).await?;
            changes = None;
        }
        let (response, lease) = record_response(&exchange.recording, sent);
        let is_switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if is_switching || (upgrading.is_some() && upgrade::is_accepted(&response, facts.version)) {
            let guards = (connection.guard.clone(), lease);
            return upgrade::relay(response, upgrading, facts.version, &exchange.recording, guards);
        }
        Ok(self.respond(exchange, response, lease, facts, changes).await)
    }

    /// Rewrites a request for the endpoint.
    async fn outgoing(
        &self,
        exchange: &ActiveExchange,
        origin: &Origin,
        request: Request<Incoming>,
        upgrade_fields: UpgradeFields,
    ) -> Result<OutgoingRequest, ProxyError> {
        let (mut parts, body) = request.into_parts();
        parts.uri = absolute(origin, &parts.uri, &parts.headers)?;
        rewrite::request(&mut parts.headers, upgrade_fields);
        if any_matches(&self.trace.propagate_hosts, &origin.host, origin.port) {
            propagate(&mut parts.headers, &exchange.trace);
        }
        if exchange.recording.is_on() {
            self.look_at(origin, &parts).await;
        }
        let path = parts.uri.path();
        let (at, arrays) = ((origin.host.as_str(), origin.port), self.sampler_arrays());
        let plan = self.tokens.plan(at, &self.engines, &parts.method, path, &parts.headers, arrays);
        let plan = plan.filter(|_| exchange.recording.is_on());
        let tee = TeeBody::new(
            ReceivedBody::new(body, parts.version),
            exchange.recording.clone(),
            Direction::Request,
            request_error,
            |_| false,
        );
        let (go, opened) = oneshot::channel();
        let (mut changes, mut plain) = (None, None);
        let body = if let Some(plan) = plan {
            let whole = self.read_whole(tee).await?;
            let unchanged = parts.clone();
            let injected = plan.apply(&whole.to_vec()?, &mut parts.headers);
            let mut whole = EditedBytes::from(whole);
            exchange.recording.share_request(&whole);
            match injected {
                Ok(injected) => {
                    let added = injected.injection.fields.clone();
                    plain = Some(PlainRequest { parts: unchanged, body: whole.clone(), added });
                    exchange.recording.injected(injected.injection);
                    changes = Some(injected.changes).filter(|changes| *changes != Changes::default());
                    whole = whole.edited(&injected.edits);
                    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
                }
                Err(reason) => exchange.recording.injected(Injection::withheld(reason)),
            }
            body::boxed(whole.body())
        } else if parts.headers.contains_key(header::EXPECT) {
            ContinueGate::closed(tee.map_err(BodyError::Received), opened).boxed_unsync()
        } else {
            ContinueGate::open(tee.map_err(BodyError::Received)).boxed_unsync()
        };
        let mut request = Request::from_parts(parts, body);
        let interims = listen_for_interims(&mut request, go);
        Ok(OutgoingRequest { request, interims, changes, plain })
    }

    /// Reads a request to its end.
    async fn read_whole(&self, mut body: TeeBody<ReceivedBody>) -> Result<HeldBytes, ProxyError> {
        let mut held = HeldBytes::new(self.memory(), MemoryUse::Injection);
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|error| request_error(&error))?.into_data() {
                held.push_always(&data);
            }
        }
        Ok(held)
    }

    /// The response as the agent gets it.
    async fn respond(
        &self,
        exchange: &ActiveExchange,
        mut response: Response<ReceivedBody>,
        lease: Lease,
        request: RequestFacts,
        changes: Option<Changes>,
    ) -> Response<Body> {
        let recording = &exchange.recording;
        rewrite::response(response.headers_mut(), UpgradeFields::Remove);
        *response.version_mut() = request.version;
        let limit = self.upstream.body_idle_timeout();
        if response.body().is_end_stream() || request.is_head {
            recording.outcome(Outcome::Complete);
            recording.finish_and_wait().await;
            return response.map(|body| IdleLimited::new(body, lease, limit).boxed_unsync());
        }
        let (mut parts, body) = response.into_parts();
        let is_early = request.version == Version::HTTP_2 && parts.status.as_u16() >= 400 && lease.is_early();
        let body = IdleLimited::new(body, lease, limit);
        let tee = TeeBody::new(body, recording.clone(), Direction::Response, response_error, ends_stream);
        let body = match changes {
            Some(changes) => stripped(tee, changes, &mut parts.headers, recording, self.memory()).await,
            None => tee.boxed_unsync(),
        };
        let body = if is_early { early_response::gathered(body).await } else { body };
        Response::from_parts(parts, body)
    }
}

/// Records the head of a response, and the connection it came over.
pub(crate) fn record_response(recording: &Recording, sent: Sent) -> (Response<ReceivedBody>, Lease) {
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
        connection.upstream_cut = facts.cut;
        connection.upstream_reused = facts.reused;
    });
    (response, lease)
}
