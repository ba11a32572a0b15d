//! CONNECT: policy, then the endpoint is dialled, and only then "200" is said.

use super::{Proxy, api_relay, refuse};
use crate::error::{ErrorKind, ProxyError};
use crate::forward::{ActiveExchange, ConnectionContext};
use crate::trace::exchange::{ConnectPolicy, ExchangeKind, RequestHead, ResponseHead};
use crate::upstream::{Body, Dialled, Isolation, Origin, Purpose, body};
use crate::wire::fields;
use http::{HeaderMap, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::time::Instant;

/// A CONNECT that may go on: where it leads, how it is treated, and its record.
pub(super) struct Established {
    pub(super) origin: Origin,
    /// `None` when a pooled connection to `origin` exists.
    pub(super) dialled: Option<Dialled>,
    pub(super) policy: ConnectPolicy,
    pub(super) begun: ActiveExchange,
}

impl Proxy {
    /// Answers a CONNECT, and runs its tunnel in a task of its own.
    pub(super) async fn connect(
        &self,
        conversation: &ConnectionContext,
        mut request: Request<Incoming>,
        refusal: Option<ProxyError>,
    ) -> Response<Body> {
        let started = Instant::now();
        let target = target_of(&request);
        let head = connect_head(&request, &target);
        if let (None, Ok((host, port))) = (&refusal, &target)
            && let Some(api) = self.api_behind(conversation.client, host, *port).await
        {
            return api_relay::connect(conversation, api, request).await;
        }
        let established = match self.establish(conversation, head, target, refusal, started).await {
            Ok(established) => established,
            Err(error) => return refuse(&error),
        };
        let user_agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let conversation = ConnectionContext { user_agent: user_agent.map(str::to_owned), ..conversation.clone() };
        let upgrade = hyper::upgrade::on(&mut request);
        let proxy = self.clone();
        let task = conversation.guard.clone().run(async move {
            // An agent that leaves before its tunnel opens drops the recording, which says so.
            let Ok(upgraded) = upgrade.await else { return };
            let io = Box::new(TokioIo::new(upgraded));
            proxy.tunnel(io, conversation, established).await;
        });
        tokio::spawn(task);
        Response::new(body::empty())
    }

    /// Decides on a CONNECT and reaches its endpoint. What is refused is recorded as such.
    pub(super) async fn establish(
        &self,
        conversation: &ConnectionContext,
        head: RequestHead,
        target: Result<(String, u16), ProxyError>,
        refusal: Option<ProxyError>,
        started: Instant,
    ) -> Result<Established, ProxyError> {
        let policy = self.policy(&head.host, head.port);
        let begun = self.inner.forwarder.begin(conversation, ExchangeKind::Connect(policy), head, started).await;
        let isolation = begun.isolation();
        let reached = match (refusal, target) {
            (Some(error), _) | (None, Err(error)) => Err(error),
            (None, Ok((host, port))) => match self.blocked(&host, port) {
                Some(error) => Err(error),
                None => self.reach(&isolation, host, port, policy).await,
            },
        };
        let (origin, dialled) = reached.inspect_err(|error| {
            tracing::warn!(rollout_id = %begun.identity.rollout_id, %error, "CONNECT refused");
            begun.recording.kind(ExchangeKind::Connect(ConnectPolicy::Reject));
            begun.recording.fail(error);
        })?;
        begun.recording.response(ResponseHead {
            status: StatusCode::OK,
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
        });
        if let Some(dialled) = &dialled {
            begun.recording.connected(Some(dialled.elapsed), None);
            begun.recording.connection(|connection| connection.upstream_peer = Some(dialled.peer));
        }
        Ok(Established { origin, dialled, policy, begun })
    }

    /// The endpoint, dialled unless a pooled connection to it will do.
    async fn reach(
        &self,
        isolation: &Isolation,
        host: String,
        port: u16,
        policy: ConnectPolicy,
    ) -> Result<(Origin, Option<Dialled>), ProxyError> {
        let origin = Origin::new(true, &host, port);
        let upstream = self.inner.forwarder.upstream();
        // What goes elsewhere must not fail because the endpoint it names can't be reached.
        let detours = || self.inner.forwarder.may_detour(&origin);
        if policy == ConnectPolicy::Intercept && (detours() || upstream.holds(isolation, &origin)) {
            return Ok((origin, None));
        }
        let dialled = upstream.dialler().dial(&origin.host, port, Purpose::Stream).await?;
        Ok((origin, Some(dialled)))
    }
}

/// Host and port; a CONNECT target is nothing else (RFC 9112 §3.2.3).
fn target_of(request: &Request<Incoming>) -> Result<(String, u16), ProxyError> {
    let written = request.uri().to_string();
    // Credentials that don't belong here must not get into logs either.
    let written = written.rsplit('@').next().unwrap_or_default().to_owned();
    let wrong = |cause: &str| ProxyError::new(ErrorKind::HttpRequestError, written.clone(), cause);
    let authority = request.uri().authority().ok_or_else(|| wrong("a CONNECT target is HOST:PORT"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("a CONNECT target must not hold credentials"));
    }
    match authority.port_u16() {
        Some(port) if port > 0 => Ok((authority.host().trim_matches(['[', ']']).to_owned(), port)),
        _ => Err(wrong("a CONNECT target needs a port, as in HOST:443")),
    }
}

fn connect_head(request: &Request<Incoming>, target: &Result<(String, u16), ProxyError>) -> RequestHead {
    let (host, port) = target.as_ref().map_or_else(
        |_| (request.uri().host().unwrap_or_default().trim_matches(['[', ']']).to_owned(), 0),
        |(host, port)| (host.clone(), *port),
    );
    RequestHead {
        method: request.method().clone(),
        scheme: "",
        host,
        port,
        target: String::new(),
        version: request.version(),
        headers: fields::copy(request.headers()),
    }
}
