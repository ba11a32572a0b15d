//! Handles a request to the gateway, from its arrival to its response. Every call is recorded, however it ends.

use super::admission::NotAdmitted;
use super::call::GatewayCall;
use super::caller::fallback_identity;
use super::coalescing::CoalescingDecision;
use super::error_response::ErrorFormat;
use super::keepalive::with_keepalive;
use super::read_call::ReadResult;
use super::routing::{ApiSurface, Route, is_base_url};
use super::service::{Gateway, increment};
use crate::error::{ErrorKind, ProxyError};
use crate::forward::identity::check_named;
use crate::forward::{ActiveExchange, ConnectionContext, NamedRollout, RetentionOverride, request_head};
use crate::net::drain::DrainGuard;
use crate::trace::exchange::ExchangeKind;
use crate::upstream::{Body, Origin, Scheme, body};
use crate::util::panics::caught;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

impl Gateway {
    /// Handles a call that an agent made to the API listener.
    pub(crate) async fn serve_api<B>(
        &self,
        client: SocketAddr,
        drain: DrainGuard,
        request: Request<B>,
    ) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if [Method::GET, Method::HEAD].contains(request.method()) && is_base_url(request.uri().path()) {
            return Response::new(body::empty());
        }
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let route = Route::parse(target);
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()?.parse().ok());
        let authority: Option<http::uri::Authority> = host.or_else(|| request.uri().authority().cloned());
        let host = authority.map_or_else(
            || Origin::new(Scheme::Http, "localhost", None),
            |authority| Origin::new(Scheme::Http, authority.host(), authority.port_u16()),
        );
        let mut connection = ConnectionContext::new(client, None, drain);
        connection.fallback_identity = fallback_identity(client);
        self.serve(connection, route, host, request).await
    }

    /// The response to a call that its caller may not make, in the format of the API that it calls. Nothing is recorded.
    pub(crate) fn refusal(target: &str, status: StatusCode, cause: &str) -> Response<Body> {
        let route = Route::parse(target).ok();
        let path = target.split('?').next().unwrap_or_default();
        let surface = route.as_ref().map_or_else(|| ApiSurface::of(path), |route| route.surface);
        ErrorFormat::of(surface, route.as_ref().map(|route| &route.api)).refusal(status, cause)
    }

    /// Handles a call from either listener; `host` is the host that the agent called.
    pub(super) async fn serve<B>(
        &self,
        connection: ConnectionContext,
        route: Result<Route, ProxyError>,
        host: Origin,
        request: Request<B>,
    ) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let error_format = match &route {
            Ok(route) => ErrorFormat::of(route.surface, Some(&route.api)),
            Err(_) => {
                let path = request.uri().path();
                ErrorFormat::of_unknown(ApiSurface::of(path), &host.host, path)
            }
        };
        let served = caught(Box::pin(self.serve_recorded(connection, route, error_format, host, request))).await;
        served.unwrap_or_else(|panicked| error_format.response(&panicked.into()))
    }

    async fn serve_recorded<B>(
        &self,
        mut connection: ConnectionContext,
        route: Result<Route, ProxyError>,
        error_format: ErrorFormat,
        host: Origin,
        request: Request<B>,
    ) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let started = Instant::now();
        increment(&self.counters().calls);
        connection.prefix = match &route {
            Ok(route) if !self.is_unregistered(route).await => route.identity.clone(),
            // A call that is refused because its rollout is not registered must not create the rollout.
            Ok(_) => NamedRollout::default(),
            Err(_) => Route::identity_in(request.uri().path()),
        };
        let key = self.key_of(request.headers(), request.uri().query().unwrap_or_default());
        let named = key.and_then(|key| {
            self.apply_key(key, &mut connection);
            check_named(&connection, request.headers())
        });
        let parsed = route.as_ref().ok();
        // Trainers read these calls right after the response, through APIs that return whole bodies.
        let is_read_back = parsed.is_some_and(|route| matches!(route.surface, ApiSurface::V1 | ApiSurface::Session));
        let retention =
            RetentionOverride { bodies: is_read_back && self.settings().keep_bodies, required: is_read_back };
        let head = request_head(&host, &request);
        let called_url = format!("{}://{}{}", head.scheme, host.url_authority(), head.target);
        let exchange = self.forwarder().start_recorded(&connection, ExchangeKind::Http, head, started, retention).await;
        exchange.recording.gateway(|facts| facts.called = Some(called_url));
        let read = match named.and(route) {
            Ok(route) => {
                let drain = connection.guard.clone();
                Box::pin(self.read_call(&exchange, route, error_format, (&host, drain), request)).await
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(ReadResult::Call(call)) => self.coalesce(Arc::new(*call)).await,
            Ok(ReadResult::Answered(response)) => response,
            Err(error) => self.refuse(&exchange, error_format, &error),
        }
    }

    /// True for a call on a route that needs a registered rollout, if its rollout is not registered.
    async fn is_unregistered(&self, route: &Route) -> bool {
        match &route.identity.rollout {
            Some(rollout) if route.surface == ApiSurface::V1 => {
                let registration = self.rollouts().enter(rollout).required_registration(self.lookup()).await;
                registration.is_err_and(|error| error.kind == ErrorKind::RolloutUnknown)
            }
            _ => false,
        }
    }

    /// Responds with the response of an earlier call if this is a retry of it, and otherwise sends the call.
    async fn coalesce(&self, call: Arc<GatewayCall>) -> Response<Body> {
        match self.responses().decide(self.settings(), &call).await {
            CoalescingDecision::Join(earlier) => {
                increment(&self.counters().joined);
                earlier.respond_to(&call).await
            }
            CoalescingDecision::Publish(publisher) => {
                let (gateway, state) = (self.clone(), Arc::clone(&call.response_state));
                publisher.run(state, async move { gateway.respond_or_keep_alive(call).await }).await
            }
            CoalescingDecision::SendAlone => self.respond_or_keep_alive(call).await,
        }
    }

    /// Responds to a call. If it asks for a stream and waits at the pause gate, the response starts with keepalive comments.
    async fn respond_or_keep_alive(&self, call: Arc<GatewayCall>) -> Response<Body> {
        let interval = self.settings().keepalive;
        if !call.wants_events || interval.is_zero() {
            return self.respond(&call).await;
        }
        let (gateway, responding) = (self.clone(), Arc::clone(&call));
        let mut response = Box::pin(async move { gateway.respond(&responding).await });
        tokio::select! {
            biased;
            response = &mut response => response,
            () = call.keepalive_due.notified() => {
                with_keepalive(response, Arc::clone(&call.response_state), interval)
            }
        }
    }

    /// Responds to a call: with the response of a backend, or an error.
    async fn respond(&self, call: &Arc<GatewayCall>) -> Response<Body> {
        let sent = async {
            match self.admit(call).await {
                Ok(permit) => self.send(call, permit).await,
                Err(not_admitted) => Err(not_admitted),
            }
        };
        let response = tokio::select! {
            biased;
            response = sent => response,
            error = call.must_end() => Err(error.into()),
        };
        if response.is_err() {
            call.record_unsent();
        }
        match response {
            Ok(response) | Err(NotAdmitted::Paused(response)) => response,
            Err(NotAdmitted::Failed(error)) => self.refuse(&call.exchange, call.error_format, &error),
        }
    }

    /// Responds with an error of the gateway itself.
    fn refuse(&self, exchange: &ActiveExchange, format: ErrorFormat, error: &ProxyError) -> Response<Body> {
        increment(&self.counters().refused);
        tracing::warn!(rollout_id = %exchange.identity.rollout_id, %error, "an LLM call failed");
        exchange.recording.fail(error);
        format.response(error)
    }
}
