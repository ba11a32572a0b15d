//! CONNECT: the policy is applied and the endpoint is dialled before the client gets its 200.

use super::api_relay;
use super::state::Proxy;
use crate::error::{ErrorKind, ProxyError};
use crate::forward::{ActiveExchange, ConnectionContext, reply};
use crate::net::task::spawn;
use crate::trace::exchange::{ConnectPolicy, ExchangeKind, RequestHead, ResponseHead};
use crate::upstream::{Body, DialPurpose, Dialled, Origin, PoolKey, Scheme, body};
use crate::wire::fields;
use http::{HeaderMap, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::time::Instant;

/// A CONNECT that was accepted, before its tunnel opens.
pub(super) struct Established {
    /// The endpoint that the CONNECT names, as an `https` origin.
    pub(super) origin: Origin,
    /// The new connection to the endpoint; `None` when a pooled connection exists, or when nothing is dialled.
    pub(super) dialled: Option<Dialled>,
    /// How the tunnel's bytes are treated.
    pub(super) policy: ConnectPolicy,
    /// The record of the CONNECT itself. Exchanges inside of the tunnel have records of their own.
    pub(super) exchange: ActiveExchange,
}

impl Proxy {
    /// Answers a CONNECT, and runs its tunnel in a task of its own.
    pub(super) async fn connect(
        &self,
        connection: &ConnectionContext,
        mut request: Request<Incoming>,
        refusal: Option<ProxyError>,
    ) -> Response<Body> {
        let started = Instant::now();
        let target = target_of(&request);
        let head = connect_head(&request, &target);
        if let (None, Ok((host, port))) = (&refusal, &target)
            && let Some(api) = self.api_listener_for(connection.client, host, *port).await
        {
            return api_relay::connect(connection, api, request).await;
        }
        let established = match self.establish(connection, head, target, refusal, started).await {
            Ok(established) => established,
            Err(error) => return reply::error(&error),
        };
        let user_agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let connection = ConnectionContext { user_agent: user_agent.map(str::to_owned), ..connection.clone() };
        let upgrade = hyper::upgrade::on(&mut request);
        let proxy = self.clone();
        let task = connection.guard.clone().run(async move {
            // A client that leaves before its tunnel opens drops the recording, which ends the exchange as aborted.
            let Ok(upgraded) = upgrade.await else { return };
            let io = Box::new(TokioIo::new(upgraded));
            proxy.tunnel(io, connection, established).await;
        });
        drop(spawn(task));
        Response::new(body::empty())
    }

    /// Decides on a CONNECT and connects to its endpoint. Rejections are recorded.
    pub(super) async fn establish(
        &self,
        connection: &ConnectionContext,
        head: RequestHead,
        target: Result<(String, u16), ProxyError>,
        refusal: Option<ProxyError>,
        started: Instant,
    ) -> Result<Established, ProxyError> {
        let policy = self.policy(&head.host, head.port);
        let exchange =
            self.inner.forwarder.start_exchange(connection, ExchangeKind::Connect(policy), head, started).await;
        let pool_key = exchange.pool_key();
        let connected = match (refusal, target) {
            (Some(error), _) | (None, Err(error)) => Err(error),
            (None, Ok((host, port))) => match self.blocked(&host, port) {
                Some(error) => Err(error),
                None => self.connect_to_endpoint(&pool_key, host, port, policy).await,
            },
        };
        let (origin, dialled) = connected.inspect_err(|error| {
            tracing::warn!(rollout_id = %exchange.identity.rollout_id, %error, "CONNECT rejected");
            exchange.recording.kind(ExchangeKind::Connect(ConnectPolicy::Reject));
            exchange.recording.fail(error);
        })?;
        exchange.recording.response(ResponseHead {
            status: StatusCode::OK,
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
        });
        if let Some(dialled) = &dialled {
            exchange.recording.connected(Some(dialled.elapsed), None);
            exchange.recording.connection(|connection| connection.upstream_peer = Some(dialled.peer));
        }
        Ok(Established { origin, dialled, policy, exchange })
    }

    /// Dials the endpoint unless a pooled connection can serve the tunnel.
    async fn connect_to_endpoint(
        &self,
        pool_key: &PoolKey,
        host: String,
        port: u16,
        policy: ConnectPolicy,
    ) -> Result<(Origin, Option<Dialled>), ProxyError> {
        let origin = Origin::new(Scheme::Https, &host, Some(port));
        let upstream = self.inner.forwarder.upstream();
        // A request that may be sent elsewhere must not fail because the endpoint it names can't be reached.
        let may_intercept = || self.inner.forwarder.may_intercept(&origin);
        let has_connection = || {
            let plain = Origin { tls: false, ..origin.clone() };
            [&origin, &plain].into_iter().any(|origin| upstream.has_connection(pool_key, origin))
        };
        if policy == ConnectPolicy::Intercept && (may_intercept() || has_connection()) {
            return Ok((origin, None));
        }
        let dialled = upstream.dialler().dial(&origin.host, port, DialPurpose::Stream).await?;
        Ok((origin, Some(dialled)))
    }
}

/// Host and port of the target, which has no other form (RFC 9112 §3.2.3).
fn target_of(request: &Request<Incoming>) -> Result<(String, u16), ProxyError> {
    let written = request.uri().to_string();
    // Misplaced credentials must not get into the log.
    let written = written.rsplit('@').next().unwrap_or_default().to_owned();
    let wrong = |cause: &str| ProxyError::new(ErrorKind::HttpRequestError, written.clone(), cause);
    let authority = request.uri().authority().filter(|_| request.uri().scheme().is_none());
    let authority = authority.ok_or_else(|| wrong("a CONNECT target is HOST:PORT"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("a CONNECT target must not contain credentials"));
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
