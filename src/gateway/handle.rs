//! One call of a model through the gateway: whose it is, whether it may go, and its answer, whatever happens.

use super::Gateway;
use super::backends::Backend;
use super::coalescing::CoalescingDecision;
use super::keepalive::kept_alive;
use super::pause::InFlightPermit;
use super::prepare::malformed;
use super::refusal::{Shape, pause_error};
use super::rollout_lookup::RolloutRegistration;
use super::rollout_state::RolloutGuard;
use super::routing::{ApiSurface, Mode, Route};
use super::settings::{Budget, PauseForm, Staleness};
use crate::error::{ErrorKind, ProxyError};
use crate::forward::{ActiveExchange, ConnectionContext, NamedRollout, RetentionOverride, request_head};
use crate::llm::operation::Operation;
use crate::net::drain::DrainGuard;
use crate::trace::exchange::ExchangeKind;
use crate::upstream::{Body, Origin};
use crate::wire::encoding::decode;
use crate::wire::json_edit::value;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::Notify;

/// A call that has been read.
pub(super) struct Call {
    pub(super) begun: ActiveExchange,
    pub(super) route: Route,
    pub(super) shape: Shape,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) rollout: Arc<RolloutGuard>,
    pub(super) registration: RolloutRegistration,
    pub(super) mode: Option<Mode>,
    pub(super) budget: Budget,
    /// The backends' name of the model.
    pub(super) model: String,
    /// True when the agent asked for a stream of events.
    pub(super) streams: bool,
    /// Completes when it has waited at the gate for as long as a client should hear nothing.
    pub(super) silent: Notify,
    pub(super) told: Arc<ResponseState>,
    guard: DrainGuard,
}

/// What an answer on its way needs of its call: not the request's body.
pub(super) struct ResponseState {
    pub(super) shape: Shape,
    is_incomplete: AtomicBool,
    // Held until it is over.
    _here: Option<InFlightPermit>,
}

impl ResponseState {
    /// The answer broke off in a way that its bytes don't show to others.
    pub(super) fn mark_incomplete(&self) {
        self.is_incomplete.store(true, Ordering::Relaxed);
    }

    /// True for an answer that must not be given again.
    pub(super) fn is_incomplete(&self) -> bool {
        self.is_incomplete.load(Ordering::Relaxed)
    }
}

/// Completes with why a call must end.
pub(super) type Over = Pin<Box<dyn Future<Output = ProxyError> + Send>>;

impl Call {
    /// Waits for a reason to end it: its rollout's end, its time, ours. It holds nothing of the call.
    pub(super) fn over(&self) -> Over {
        let (rollout, budget, guard) = (Arc::clone(&self.rollout), self.budget, self.guard.clone());
        Box::pin(async move {
            tokio::select! {
                error = rollout.until_over(&budget) => error,
                () = guard.ending() => ProxyError::new(ErrorKind::ShuttingDown, "", "the gateway is shutting down"),
            }
        })
    }
}

/// A call that passed the gate.
pub(super) struct Passed {
    pub(super) inside: InFlightPermit,
}

impl Gateway {
    /// Handles a call that came to the server door, or was taken from the proxy door; `host` is where the agent meant it
    /// to go. It is recorded, whatever happens.
    pub async fn serve<B>(
        &self,
        mut conversation: ConnectionContext,
        route: Result<Route, ProxyError>,
        host: Origin,
        request: Request<B>,
    ) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let started = Instant::now();
        super::count(&self.counters().calls);
        conversation.prefix = match &route {
            Ok(route) if !self.is_unknown(route).await => route.named.clone(),
            // A rollout that must be registered is not made by a call that is refused for it.
            Ok(_) => NamedRollout::default(),
            Err(_) => Route::owner(request.uri().path()),
        };
        let keyed = self.key_of(request.headers(), request.uri().query().unwrap_or_default());
        let refused = match keyed {
            Ok(key) => {
                conversation.key = key.unwrap_or_default();
                self.foreign_key(&conversation)
            }
            Err(error) => Some(error),
        };
        let read = route.as_ref().ok();
        let contract = read.map_or_else(|| ApiSurface::of(request.uri().path()), |route| route.contract);
        let shape = Shape::of(contract, read.map(|route| &route.api));
        // Trainers read these right after the call, in their own API's form.
        let is_trainers = read.is_some_and(|route| matches!(route.contract, ApiSurface::V1 | ApiSurface::Session));
        let keep = RetentionOverride { bodies: is_trainers && self.settings().keep_bodies, durably: is_trainers };
        let head = request_head(&host, &request);
        let called = format!("{}://{}{}", head.scheme, super::shown(&host), head.target);
        let begun = self.forwarder().record(&conversation, ExchangeKind::Http, head, started, keep).await;
        begun.recording.gateway(|facts| facts.called = Some(called));
        let answered = match (refused, route) {
            (Some(error), _) | (None, Err(error)) => Err(error),
            (None, Ok(route)) => {
                Box::pin(self.read(&begun, route, shape, (&host, conversation.guard.clone()), request)).await
            }
        };
        let call = match answered {
            Ok(Read::Call(call)) => Arc::new(*call),
            Ok(Read::Answered(response)) => return response,
            Err(error) => {
                super::count(&self.counters().refused);
                return refuse(&begun, shape, &error);
            }
        };
        self.joined(call).await
    }

    /// True for a call that only a registered rollout may make, and that names none.
    async fn is_unknown(&self, route: &Route) -> bool {
        match &route.named.rollout {
            Some(rollout) if route.contract == ApiSurface::V1 => {
                let registration = self.rollouts().enter(rollout).required_registration(self.registry()).await;
                registration.is_err_and(|error| error.kind == ErrorKind::RolloutUnknown)
            }
            _ => false,
        }
    }

    /// Why a signed key does not fit the URL, if it does not: it is for one rollout.
    fn foreign_key(&self, conversation: &ConnectionContext) -> Option<ProxyError> {
        let (url, key) = (conversation.prefix.rollout.as_ref()?, conversation.key.rollout.as_ref()?);
        let is_foreign = url != key && !self.settings().signing_key.is_empty();
        is_foreign.then(|| ProxyError::new(ErrorKind::KeyRefused, "", "the API key is for another rollout"))
    }

    /// The answer of the call that this one is a retry of, or its own.
    async fn joined(&self, call: Arc<Call>) -> Response<Body> {
        match self.answers().claim(self.settings(), &call).await {
            CoalescingDecision::Joins(first) => {
                super::count(&self.counters().joined);
                first.answer_to(&call).await
            }
            CoalescingDecision::First(publisher) => {
                let (gateway, answering) = (self.clone(), Arc::clone(&call));
                publisher.run(Arc::clone(&call.told), async move { gateway.patiently(answering).await }).await
            }
            CoalescingDecision::Alone => self.patiently(call).await,
        }
    }

    /// Responds; a client that waits for a stream while the gateway is paused hears something meanwhile.
    async fn patiently(&self, call: Arc<Call>) -> Response<Body> {
        let every = self.settings().keepalive;
        if !call.streams || every.is_zero() {
            return self.answer(call).await;
        }
        let (gateway, waiting) = (self.clone(), Arc::clone(&call));
        let mut answering = Box::pin(async move { gateway.answer(waiting).await });
        tokio::select! {
            biased;
            response = &mut answering => response,
            () = call.silent.notified() => kept_alive(answering, Arc::clone(&call.told), every),
        }
    }

    /// The call's own answer.
    pub(super) async fn answer(&self, call: Arc<Call>) -> Response<Body> {
        let ended = async {
            let passed = match self.pass(&call).await {
                Ok(passed) => passed,
                Err(Stopped::Paused(response)) => return Ok(response),
                Err(Stopped::Error(error)) => return Err(error),
            };
            self.send(&call, passed).await
        };
        let answered = tokio::select! {
            biased;
            answered = ended => answered,
            error = call.over() => Err(error),
        };
        answered.unwrap_or_else(|error| {
            super::count(&self.counters().refused);
            refuse(&call.begun, call.shape, &error)
        })
    }

    /// Reads a request: what can be known of it before it may go anywhere.
    async fn read<B>(
        &self,
        begun: &ActiveExchange,
        route: Route,
        shape: Shape,
        (host, guard): (&Origin, DrainGuard),
        request: Request<B>,
    ) -> Result<Read, ProxyError>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let rollout = route.named.rollout.as_ref().unwrap_or(&begun.identity.rollout_id);
        let state = self.rollouts().enter(rollout);
        let registration = match route.contract {
            ApiSurface::V1 => state.required_registration(self.registry()).await?,
            _ => state.registration(self.registry()).await.unwrap_or_default(),
        };
        if let Some(status) = registration.final_status {
            let cause = format!("rollout {rollout} has ended ({})", status.as_str());
            return Err(ProxyError::new(ErrorKind::RolloutEnded, "", cause));
        }
        let (parts, body) = request.into_parts();
        if route.api.operation() == Operation::ListModels {
            return self.models(begun, route.api.model.as_deref()).await.map(Read::Answered);
        }
        if parts.method != Method::POST {
            return Err(malformed(&format!("{} is called with POST", route.api.path())));
        }
        let body = self.whole(body, &parts.headers).await?;
        let body = if body.trim_ascii().is_empty() { Bytes::from_static(b"{}") } else { body };
        if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
            return Err(malformed("Invalid JSON in request body"));
        }
        let in_body = || value(&body, "model").and_then(|model| serde_json::from_slice::<String>(model).ok());
        let named = route.api.model.clone().or_else(in_body);
        let model = self.model_for(&route, named.as_deref(), host)?;
        let streams = route.api.streams_events(&route.query, || value(&body, "stream") == Some(b"true"));
        let mode = route.mode.or(registration.mode);
        begun.recording.gateway(|facts| {
            facts.mode = mode.map(|mode| mode.as_str().to_owned());
            facts.requested_model = named.filter(|named| *named != model);
        });
        let budget = registration.budget.unwrap_or(self.settings().budget);
        let begun = begun.clone();
        Ok(Read::Call(Box::new(Call {
            begun,
            route,
            shape,
            headers: parts.headers,
            body,
            rollout: Arc::new(state),
            registration,
            mode,
            budget,
            model,
            streams,
            silent: Notify::new(),
            told: Arc::new(ResponseState { shape, is_incomplete: AtomicBool::new(false), _here: self.here() }),
            guard,
        })))
    }

    /// The whole body, its coding undone.
    async fn whole<B>(&self, body: B, headers: &HeaderMap) -> Result<Bytes, ProxyError>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let most = self.settings().max_body_bytes;
        let too_large =
            || ProxyError::new(ErrorKind::CallTooLarge, "", format!("the body is longer than {most} bytes"));
        let whole = Limited::new(body, most).collect().await.map_err(|error| {
            if error.downcast_ref::<LengthLimitError>().is_some() {
                return too_large();
            }
            ProxyError::new(ErrorKind::HttpRequestIncomplete, "", error.to_string())
        })?;
        let coding = headers.get(header::CONTENT_ENCODING).and_then(|coding| coding.to_str().ok()).unwrap_or_default();
        let decoded = decode(coding, whole.to_bytes().into(), most);
        match (decoded.error, decoded.truncated) {
            (Some(error), _) => Err(malformed(&error.to_string())),
            (None, true) => Err(too_large()),
            (None, false) => Ok(decoded.bytes.into()),
        }
    }

    /// Waits until the call may go.
    async fn pass(&self, call: &Call) -> Result<Passed, Stopped> {
        // As Agent Lightning has it: no server is said before a pause.
        if self.backends().of(&call.model).is_empty() {
            return Err(self.no_backend(&call.model).into());
        }
        let inside = self.enter(call).await?;
        let spent = self.registry().tokens_spent(&call.begun.identity.rollout_id);
        call.rollout.count_call(&call.budget, spent)?;
        Ok(Passed { inside })
    }

    /// Goes through the gate, or waits before it.
    pub(super) async fn enter(&self, call: &Call) -> Result<InFlightPermit, Stopped> {
        let mut held: Option<Instant> = None;
        loop {
            let pause = match self.gate().enter() {
                Ok(inside) => {
                    if let Some(since) = held {
                        call.begun.recording.gateway(|facts| facts.held += since.elapsed());
                    }
                    return Ok(inside);
                }
                Err(pause) => pause,
            };
            if pause.form != Some(PauseForm::Hold) {
                call.begun.recording.fail(&pause_error(&pause));
                return Err(Stopped::Paused(call.shape.paused(&pause)));
            }
            let since = *held.get_or_insert_with(Instant::now);
            let limit = self.settings().hold_timeout;
            let quiet = self.settings().keepalive;
            let waited = since.elapsed();
            tokio::select! {
                () = self.gate().released() => {}
                () = tokio::time::sleep(limit.saturating_sub(waited)) => {
                    call.begun.recording.gateway(|facts| facts.held += since.elapsed());
                    let cause = format!("the gateway was paused for {} ms", since.elapsed().as_millis());
                    return Err(ProxyError::new(ErrorKind::HoldTimeout, "", cause).into());
                }
                () = tokio::time::sleep(quiet.saturating_sub(waited)), if !quiet.is_zero() && waited < quiet => {
                    call.silent.notify_one();
                }
            }
        }
    }

    /// How far a backend is ahead of what the rollout began with, if that is allowed.
    pub(super) fn check_staleness(&self, call: &Call, backend: &Backend) -> Result<(), ProxyError> {
        let ahead = call.rollout.versions_ahead(backend.version());
        call.begun.recording.gateway(|facts| facts.staleness = (ahead != 0).then_some(ahead));
        let rule = call.registration.staleness.unwrap_or(self.settings().staleness);
        let most = call.registration.max_staleness.unwrap_or(self.settings().max_staleness);
        if rule == Staleness::Refuse && ahead > most {
            let cause = format!("the policy is {ahead} versions ahead of the one that the rollout began with");
            return Err(ProxyError::new(ErrorKind::PolicyStale, "", cause));
        }
        Ok(())
    }
}

/// What reading a request came to.
enum Read {
    Call(Box<Call>),
    Answered(Response<Body>),
}

/// Why a call does not go on.
pub(super) enum Stopped {
    /// The gateway is paused, and that was said.
    Paused(Response<Body>),
    /// It can't.
    Error(ProxyError),
}

impl From<ProxyError> for Stopped {
    fn from(error: ProxyError) -> Self {
        Self::Error(error)
    }
}

/// Says no, and has that recorded.
pub(super) fn refuse(begun: &ActiveExchange, shape: Shape, error: &ProxyError) -> Response<Body> {
    tracing::warn!(rollout_id = %begun.identity.rollout_id, %error, "call failed");
    begun.recording.fail(error);
    shape.response(error)
}
