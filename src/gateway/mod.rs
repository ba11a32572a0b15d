//! The LLM gateway: agents call it in place of a model's API, and it sends their calls to the model servers that a
//! trainer has registered.
//!
//! Start with [`Gateway::serve`]. It must never name a store, a dialect of the pipeline or an exporter; what it must know
//! of rollouts it asks a [`RolloutLookup`].

mod answer;
pub mod backends;
mod coalescing;
mod handle;
mod keepalive;
pub mod key;
pub mod pause;
mod prepare;
mod probe;
mod refusal;
mod response_cache;
mod retry;
pub mod rollout_lookup;
pub mod rollout_state;
pub mod routing;
mod select;
pub mod settings;

pub use backends::{Backend, BackendError, Backends};
pub use pause::{GateState, PauseGate};
pub use rollout_lookup::{RolloutLookup, RolloutLookupError, RolloutLookupFuture, RolloutRegistration};
pub use routing::Route;
pub use settings::{BackendSettings, GatewaySettings, PauseForm, Reroute};

use crate::error::{ErrorKind, ProxyError};
use crate::forward::identity::ROLLOUT_HEADER;
use crate::forward::{ActiveExchange, ConnectionContext, Forwarder, NamedRollout, RequestInterceptor};
use crate::llm::api::ApiCall;
use crate::llm::operation::Operation;
use crate::net::drain::DrainGuard;
use crate::trace::exchange::{Outcome, ResponseHead};
use crate::trace::{AttemptId, RolloutId};
use crate::upstream::authority;
use crate::upstream::{Body, Origin, body};
use crate::util::glob::{any_matches, text_matches};
use bytes::Bytes;
use coalescing::ResponseCache;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use hyper::body::Incoming;
use rollout_state::RolloutStates;
use routing::ApiSurface;
use serde_json::json;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;

/// The gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    settings: GatewaySettings,
    reroutes: RwLock<Arc<Vec<Reroute>>>,
    forwarder: Forwarder,
    registry: Arc<dyn RolloutLookup>,
    backends: Backends,
    gate: PauseGate,
    // Nobody pauses this one: it counts the calls that are here, those that wait for the other included.
    here: PauseGate,
    rollouts: RolloutStates,
    answers: ResponseCache,
    registered: Notify,
    counters: Counters,
}

/// What the gateway counts; every one is a metric.
#[derive(Debug, Default)]
pub struct Counters {
    /// Calls that came.
    pub calls: AtomicU64,
    /// Calls that were refused or failed here, whatever for.
    pub refused: AtomicU64,
    /// Tries that were followed by another.
    pub failed_tries: AtomicU64,
    /// Agents' retries that got the answer of their first try.
    pub joined: AtomicU64,
}

impl Gateway {
    /// By these settings, over `forwarder`'s way to endpoints.
    pub fn new(
        settings: GatewaySettings,
        reroutes: Vec<Reroute>,
        forwarder: Forwarder,
        registry: Arc<dyn RolloutLookup>,
    ) -> Result<Self, BackendError> {
        let backends = Backends::default();
        for backend in &settings.backends {
            backends.register(backend, None)?;
        }
        Ok(Self(Arc::new(Inner {
            settings,
            reroutes: RwLock::new(Arc::new(reroutes)),
            forwarder,
            registry,
            backends,
            gate: PauseGate::default(),
            here: PauseGate::default(),
            rollouts: RolloutStates::default(),
            answers: ResponseCache::default(),
            registered: Notify::new(),
            counters: Counters::default(),
        })))
    }

    /// The settings.
    pub fn settings(&self) -> &GatewaySettings {
        &self.0.settings
    }

    /// What it counts.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// The model servers.
    pub fn backends(&self) -> &Backends {
        &self.0.backends
    }

    /// Adds a model server, or changes it.
    pub fn register(&self, settings: &BackendSettings, id: Option<String>) -> Result<Arc<Backend>, BackendError> {
        let backend = self.0.backends.register(settings, id)?;
        self.0.registered.notify_one();
        Ok(backend)
    }

    /// What the proxy door takes for the gateway.
    pub fn reroutes(&self) -> Arc<Vec<Reroute>> {
        Arc::clone(&self.0.reroutes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has it take these from now on; connections that are open keep what they were opened for.
    pub fn set_reroutes(&self, reroutes: Vec<Reroute>) {
        *self.0.reroutes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(reroutes);
    }

    /// True for a path of the server door that agents call models by.
    pub fn is_call_path(path: &str) -> bool {
        let in_session = || path.strip_prefix("/sessions/").is_some_and(|rest| rest.contains("/v1"));
        path.starts_with("/rollout/")
            || path.starts_with("/proxy/rollout/")
            || in_session()
            || ApiCall::at_gateway(path).is_some()
    }

    /// Whose call a request to the server door is, if it says so.
    pub fn rollout_of<B>(&self, request: &Request<B>) -> Option<String> {
        let in_url =
            Route::read(request.uri().path()).map_or_else(|_| Route::owner(request.uri().path()), |route| route.named);
        let in_url = in_url.rollout;
        let in_header = || request.headers().get(ROLLOUT_HEADER).and_then(|id| id.to_str().ok()).map(Into::into);
        let in_key = || {
            let key = self.key_of(request.headers(), request.uri().query().unwrap_or_default());
            key.ok().flatten().and_then(|named| named.rollout)
        };
        let rollout: Option<RolloutId> = in_url.or_else(in_header).or_else(in_key);
        rollout.map(|rollout| rollout.to_string())
    }

    /// Handles a call that came to the server door.
    pub async fn at_server_door<B>(&self, client: SocketAddr, guard: DrainGuard, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let route = Route::read(target);
        let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()?.parse().ok());
        let named: Option<http::uri::Authority> = named.or_else(|| request.uri().authority().cloned());
        let host = named.map_or_else(
            || Origin::new(false, "localhost", 80),
            |named| Origin::new(false, named.host(), named.port_u16().unwrap_or(80)),
        );
        let mut conversation = ConnectionContext::new(client, None, guard);
        conversation.own = own_of(client);
        self.serve(conversation, route, host, request).await
    }

    /// The gate.
    pub fn gate(&self) -> &PauseGate {
        &self.0.gate
    }

    /// True when no call is here, not even one that waits.
    pub fn is_idle(&self) -> bool {
        self.0.here.state().inflight == 0
    }

    /// Completes when no call is here.
    pub async fn idle(&self) {
        self.0.here.drained(Duration::MAX).await;
    }

    /// A rollout has ended: its calls do too.
    pub fn rollout_ended(&self, rollout: &RolloutId) {
        self.0.rollouts.end(rollout);
    }

    /// Finds out now and then whether rollouts with calls on their way have ended elsewhere, for as long as it runs: others may
    /// share the store.
    pub async fn recheck(self) {
        loop {
            tokio::time::sleep(RECHECK_EVERY).await;
            for rollout in self.rollouts().with_calls() {
                let registration = self.registry().registered(&rollout).await;
                if registration.is_ok_and(|found| found.is_some_and(|found| found.final_status.is_some())) {
                    self.rollout_ended(&rollout);
                }
            }
        }
    }

    /// Whom the key of a request names, if it is one of ours.
    pub fn key_of(&self, headers: &HeaderMap, query: &str) -> Result<Option<NamedRollout>, ProxyError> {
        let Some(given) = given_key(headers, query) else { return Ok(None) };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        key::read(&given, &self.0.settings.signing_key, now)
    }

    fn here(&self) -> Option<pause::InFlightPermit> {
        self.0.here.enter().ok()
    }

    fn forwarder(&self) -> &Forwarder {
        &self.0.forwarder
    }

    fn registry(&self) -> &dyn RolloutLookup {
        &*self.0.registry
    }

    /// What is remembered about each rollout.
    pub fn rollouts(&self) -> &RolloutStates {
        &self.0.rollouts
    }

    fn answers(&self) -> &ResponseCache {
        &self.0.answers
    }

    fn registered(&self) -> &Notify {
        &self.0.registered
    }

    /// The backends' name of the model that a call means.
    fn model_for(&self, route: &Route, named: Option<&str>, host: &Origin) -> Result<String, ProxyError> {
        let settings = &self.0.settings;
        let rerouted = || {
            let reroutes = self.reroutes();
            let reroute = reroutes.iter().find(|reroute| any_matches(&reroute.hosts, &host.host, host.port))?;
            (route.contract == ApiSurface::Reroute && !reroute.model.is_empty()).then(|| reroute.model.clone())
        };
        let named = named.map(|named| settings.aliases.get(named).map_or(named, String::as_str));
        let all = self.0.backends.all();
        let is_served = |name: &str| all.iter().any(|backend| backend.serves(name));
        let default = || (!settings.model.is_empty()).then(|| settings.model.clone());
        let only = || {
            let first = all.first()?;
            let is_only = !first.model.is_empty() && all.iter().all(|backend| backend.model == first.model);
            is_only.then(|| first.model.clone())
        };
        // Agent Lightning 1.0 takes no notice of the agent's word.
        let by_agent = || named.filter(|named| is_served(named)).map(str::to_owned);
        let model = match route.contract {
            ApiSurface::V1 => default().or_else(only).or_else(by_agent),
            _ => rerouted().or_else(by_agent).or_else(default).or_else(only),
        };
        model.ok_or_else(|| self.no_backend(named.unwrap_or_default()))
    }

    fn no_backend(&self, model: &str) -> ProxyError {
        ProxyError::new(ErrorKind::NoBackend, "", format!("No servers available for model '{model}'"))
    }

    /// The models that are served, in a shape that the clients of OpenAI and of Anthropic both read.
    async fn models(&self, begun: &ActiveExchange, name: Option<&str>) -> Result<Response<Body>, ProxyError> {
        let mut names: Vec<String> = self.0.backends.all().iter().map(|backend| backend.model.clone()).collect();
        names.retain(|name| !name.is_empty());
        names.extend(self.0.settings.aliases.keys().cloned());
        names.sort();
        names.dedup();
        let entry = |name: &str| {
            json!({ "id": name, "object": "model", "type": "model", "display_name": name, "created": 0,
                    "created_at": "1970-01-01T00:00:00Z", "owned_by": "tracewire" })
        };
        let answer = match name {
            None => {
                let data: Vec<_> = names.iter().map(|name| entry(name)).collect();
                json!({ "object": "list", "data": data, "has_more": false, "first_id": names.first(), "last_id": names.last() })
            }
            Some(name) if names.iter().any(|known| known == name) => entry(name),
            Some(name) => {
                return Err(ProxyError::new(ErrorKind::RouteUnknown, "", format!("no model is called {name}")));
            }
        };
        let mut response = Response::new(body::full(answer.to_string()));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (status, headers) = (response.status(), response.headers().clone());
        begun.recording.response(ResponseHead { status, version: Version::HTTP_11, headers });
        begun.recording.outcome(Outcome::Complete);
        begun.recording.finish_and_wait().await;
        Ok(response)
    }
}

impl RequestInterceptor for Gateway {
    fn may_take(&self, origin: &Origin) -> bool {
        self.reroutes().iter().any(|reroute| any_matches(&reroute.hosts, &origin.host, origin.port))
    }

    fn takes(&self, origin: &Origin, request: &Request<Incoming>) -> bool {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let path = request.uri().path();
        let named = |reroute: &&Reroute| any_matches(&reroute.hosts, &origin.host, origin.port);
        let reroutes = self.reroutes();
        let Some(reroute) = reroutes.iter().find(named) else { return false };
        let takes = match reroute.paths.as_slice() {
            // The list of models is the endpoint's own, unless it is named.
            [] => Route::of_elsewhere(target).is_some_and(|route| route.api.operation() != Operation::ListModels),
            // What is named and can't be read is refused, rather than sent to whom it must not reach.
            paths => paths.iter().any(|pattern| text_matches(pattern, path)),
        };
        if !takes && request.method() == Method::POST {
            tracing::info!(
                host = origin.host,
                path,
                "this call of a rerouted host is none of a model's API; it goes there"
            );
        }
        takes
    }

    fn handle<'a>(
        &'a self,
        conversation: &'a ConnectionContext,
        origin: Origin,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send + 'a>> {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let unknown = || ProxyError::new(ErrorKind::RouteUnknown, "", "no API of models has this path");
        let route = Route::of_elsewhere(target).ok_or_else(unknown);
        Box::pin(self.serve(conversation.clone(), route, origin, request))
    }
}

/// A key as clients send it: OpenAI's, Anthropic's, Azure's and Google's.
pub fn given_key(headers: &HeaderMap, query: &str) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let given = bearer.or_else(|| text("x-api-key")).or_else(|| text("api-key")).or_else(|| text("x-goog-api-key"));
    let in_query = || query.split('&').find_map(|pair| pair.strip_prefix("key="));
    given.or_else(in_query).map(|key| key.trim().to_owned())
}

/// The rollout of calls that nobody names: one for all that come by a connection, which a client's address and port tell.
fn own_of(client: SocketAddr) -> (RolloutId, AttemptId) {
    static OF_THIS_PROCESS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let number = OF_THIS_PROCESS.hash_one(client);
    let short = (number >> 32) as u32;
    (RolloutId::from_random(number), AttemptId::from_random(short))
}

const RECHECK_EVERY: Duration = Duration::from_secs(2);

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn shown(origin: &Origin) -> String {
    match (origin.tls, origin.port) {
        (true, 443) | (false, 80) if !origin.host.contains(':') => origin.host.clone(),
        _ => authority(&origin.host, origin.port),
    }
}
