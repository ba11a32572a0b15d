//! Backends: the model servers that calls are sent to. They are registered, changed and removed at any time, while calls are
//! in flight.
//!
//! A call keeps the backend that it was sent to: registering it again changes its state, and removing it does not end its
//! calls. Bound: [`MAX_BACKENDS`] at a time; registering more is an error. This file sends nothing.

use super::settings::{BackendEngine, BackendSettings};
use crate::llm::api::ApiSpec;
use crate::llm::engine::{Credential, Engine};
use crate::trace::{InvalidId, check_id};
use crate::upstream::{Origin, Scheme};
use crate::util::in_flight::{InFlightCounter, InFlightPermit};
use crate::util::secret::Secret;
use crate::wire::redact::Redactor;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use http::{HeaderName, HeaderValue, header};
use std::fmt::Display;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// A model server. What can change after its registration, such as the version, is behind atomics and a lock.
#[derive(Debug)]
pub(crate) struct Backend {
    /// The model that it serves; empty: any model.
    pub(crate) model: String,
    /// The base URL, as it was registered.
    pub(crate) url: String,
    /// The name by which the admin APIs remove it.
    pub(crate) id: String,
    /// The host and port of the base URL.
    pub(crate) origin: Origin,
    /// The path of the base URL, without a slash at its end.
    pub(crate) base_path: String,
    version: AtomicI64,
    in_flight: InFlightCounter,
    first_probe: OnceCell<()>,
    state: Mutex<BackendState>,
}

#[derive(Debug)]
struct BackendState {
    engine: BackendEngine,
    /// The engine that its list of models shows, or OpenAI once it rejected a field; used if `engine` is `auto`.
    detected_engine: Option<Engine>,
    /// The most tokens of prompt and answer together (`max_model_len`). `None` if its list of models does not say.
    context_tokens: Option<u64>,
    /// Fields that only Tracewire asks for, and that it rejects.
    rejected_fields: Vec<&'static str>,
    weight: f64,
    key: Secret,
    /// Until this time, calls go to other backends if there are any. `None` if the last call succeeded.
    ejected_until: Option<Instant>,
    /// The durations of the next ejections. Starts again with the first success.
    ejections: ExponentialBackoff,
    /// Probes without a response since the last response.
    missed_probes: u32,
    /// True once there was a response to a call or a probe.
    has_answered: bool,
    /// Since when it can't be connected to. `None` if it responded since, or never did.
    unreachable_since: Option<Instant>,
}

/// Why a backend can't be registered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BackendError {
    /// The URL is not that of an HTTP server, or contains credentials or a query. They are not repeated here.
    #[error(
        "{0:?} is not the URL of a model server; write it as http://HOST:PORT/v1, without credentials or a query, and its key \
         as `key`"
    )]
    Url(String),
    /// The name of the model can't be one.
    #[error("the model's name is invalid: {0}")]
    Model(InvalidId),
    /// The weight is not a positive number.
    #[error("the weight of {0} must be a number above 0")]
    Weight(String),
    /// [`MAX_BACKENDS`] backends are registered. They stay; this one is not added.
    #[error("{MAX_BACKENDS} backends are registered, which is the limit; remove those that are gone")]
    TooMany,
}

/// What a probe of a backend found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeResult {
    /// It answered, with any status below 500.
    Answered,
    /// It could not be reached, did not answer in time, or answered 5xx.
    Missed,
}

impl Backend {
    fn new(settings: &BackendSettings, id: Option<String>) -> Result<Self, BackendError> {
        let invalid = || BackendError::Url(Redactor::default().url(&settings.url).into_owned());
        // A name that is empty stands for every model.
        if !settings.model.is_empty() {
            check_id(&settings.model).map_err(BackendError::Model)?;
        }
        let url = settings.url.trim().trim_end_matches('/');
        let uri: http::Uri = url.parse().map_err(|_| invalid())?;
        let scheme = uri.scheme_str().and_then(Scheme::parse).ok_or_else(invalid)?;
        let has_credentials = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let host = uri
            .host()
            .filter(|host| !host.is_empty() && !has_credentials && uri.query().is_none())
            .ok_or_else(invalid)?;
        if !settings.weight.is_finite() || settings.weight <= 0.0 {
            return Err(BackendError::Weight(settings.url.clone()));
        }
        let origin = Origin::new(scheme, host, uri.port_u16());
        Ok(Self {
            model: settings.model.clone(),
            url: settings.url.clone(),
            id: id.unwrap_or_else(|| format!("{}@{url}", settings.model)),
            origin,
            base_path: uri.path().trim_end_matches('/').to_owned(),
            version: AtomicI64::new(settings.version),
            in_flight: InFlightCounter::default(),
            first_probe: OnceCell::new(),
            state: Mutex::new(BackendState {
                engine: settings.engine,
                detected_engine: None,
                context_tokens: None,
                rejected_fields: Vec::new(),
                weight: settings.weight,
                key: settings.key.clone(),
                ejected_until: None,
                ejections: EJECTIONS.build(),
                missed_probes: 0,
                has_answered: false,
                unreachable_since: None,
            }),
        })
    }

    /// The version of the weights that it serves.
    pub(crate) fn version(&self) -> i64 {
        self.version.load(Ordering::Acquire)
    }

    /// The engine: as registered, or else as detected.
    pub(crate) fn engine(&self) -> BackendEngine {
        let state = self.state();
        match state.engine {
            BackendEngine::Auto => state.detected_engine.map_or(BackendEngine::Auto, BackendEngine::Known),
            engine => engine,
        }
    }

    /// True if it serves a model.
    pub(super) fn serves(&self, model: &str) -> bool {
        self.model.is_empty() || self.model == model
    }

    /// True if it takes calls of an API without translation.
    pub(super) fn speaks(&self, api: &ApiSpec) -> bool {
        self.engine().assumed().serves(api)
    }

    /// Set when its first call has waited for a probe.
    pub(super) fn first_probe(&self) -> &OnceCell<()> {
        &self.first_probe
    }

    /// Sets the engine that a probe or a rejection shows. A registered engine takes precedence over it.
    pub(super) fn set_detected_engine(&self, engine: Engine) {
        let before = self.state().detected_engine.replace(engine);
        if before != Some(engine) {
            tracing::info!(url = self.url, engine = engine.as_str(), "the engine of a backend was detected");
        }
    }

    /// The fields that only Tracewire asks for, and that it rejects.
    pub(super) fn rejected_fields(&self) -> Vec<&'static str> {
        self.state().rejected_fields.clone()
    }

    /// It rejected these fields and took the call without them. One of unknown engine then counts as one without token ids.
    pub(super) fn reject_fields(&self, fields: &[&'static str]) {
        tracing::warn!(url = self.url, ?fields, "this backend rejects fields for token ids; it gets them no more");
        if self.engine() == BackendEngine::Auto {
            return self.set_detected_engine(Engine::OPENAI);
        }
        let mut state = self.state();
        let new: Vec<_> = fields.iter().copied().filter(|field| !state.rejected_fields.contains(field)).collect();
        state.rejected_fields.extend(new);
    }

    /// How many tokens prompt and answer may have together; `None` if that is not known.
    pub(super) fn context_tokens(&self) -> Option<u64> {
        self.state().context_tokens
    }

    /// Sets how many tokens prompt and answer may have together.
    pub(super) fn set_context_tokens(&self, tokens: u64) {
        self.state().context_tokens = Some(tokens);
    }

    /// Its share of the rollouts, relative to the other backends of its model.
    pub(crate) fn weight(&self) -> f64 {
        self.state().weight
    }

    /// The header that authenticates requests to it, in the form that its engine takes. `None`: it has no key, or one
    /// that no header can hold.
    pub(super) fn credential(&self) -> Option<(HeaderName, HeaderValue)> {
        let key = self.state().key.clone();
        if key.is_empty() {
            return None;
        }
        let (name, text) = match self.engine().assumed().spec().credential {
            Credential::Header(name) => (HeaderName::from_static(name), key.expose().to_owned()),
            Credential::Bearer => (header::AUTHORIZATION, format!("Bearer {}", key.expose())),
        };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    }

    /// Calls in flight to it.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.count()
    }

    /// Counts a call to it, until the permit is dropped.
    pub(super) fn enter(&self) -> InFlightPermit {
        self.in_flight.enter()
    }

    /// True if calls are sent to it before others: it is not ejected, and answers probes.
    pub(crate) fn is_healthy(&self) -> bool {
        let state = self.state();
        state.missed_probes < MAX_MISSED_PROBES && state.ejected_until.is_none_or(|until| Instant::now() >= until)
    }

    /// It responded to a call, in whatever way.
    pub(super) fn on_response(&self) {
        let mut state = self.state();
        (state.has_answered, state.unreachable_since) = (true, None);
    }

    /// No connection could be made. The time counts from here: what a try waited for a connection shows nothing of other calls,
    /// which may have been answered meanwhile.
    pub(super) fn on_unreachable(&self) {
        let mut state = self.state();
        if state.has_answered {
            state.unreachable_since.get_or_insert_with(Instant::now);
        }
    }

    /// For how long it can't be connected to. `None` if nothing shows that, and for a backend that never responded.
    pub(super) fn unreachable_for(&self) -> Option<Duration> {
        self.state().unreachable_since.map(|since| since.elapsed())
    }

    /// A call succeeded: the backend is healthy, whatever it answers to probes.
    pub(super) fn on_success(&self) {
        let mut state = self.state();
        state.missed_probes = 0;
        if state.ejected_until.take().is_some() {
            state.ejections = EJECTIONS.build();
        }
    }

    /// A call failed: the backend is ejected for a time that doubles with each ejection in a row. Calls that fail while it is
    /// ejected were sent before, or for want of another backend, and tell nothing new.
    pub(super) fn on_failure(&self, cause: &dyn Display) {
        let mut state = self.state();
        if state.ejected_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        if state.ejected_until.is_none() {
            tracing::warn!(url = self.url, %cause, "calls to a backend fail; they are tried again");
        }
        let ejection = state.ejections.next().unwrap_or(MAX_EJECTION);
        state.ejected_until = Some(Instant::now() + ejection);
    }

    /// False for a backend that has not responded yet: its URL may be wrong.
    pub(super) fn has_answered(&self) -> bool {
        self.state().has_answered
    }

    pub(super) fn on_probe(&self, result: ProbeResult) {
        let mut state = self.state();
        if result == ProbeResult::Answered {
            (state.has_answered, state.unreachable_since) = (true, None);
        }
        let missed = match result {
            ProbeResult::Answered => 0,
            ProbeResult::Missed => state.missed_probes.saturating_add(1),
        };
        if (missed < MAX_MISSED_PROBES) != (state.missed_probes < MAX_MISSED_PROBES) {
            match result {
                ProbeResult::Answered => tracing::info!(url = self.url, "a backend answers again"),
                ProbeResult::Missed => tracing::warn!(url = self.url, "a backend does not answer"),
            }
        }
        state.missed_probes = missed;
    }

    /// Takes over what changes when the same backend is registered again.
    fn update_from(&self, new: &Self) {
        self.version.store(new.version(), Ordering::Release);
        let mut new = new.state();
        let mut state = self.state();
        (state.engine, state.detected_engine, state.weight) = (new.engine, None, new.weight);
        state.key = std::mem::take(&mut new.key);
        state.rejected_fields.clear();
        state.unreachable_since = None;
    }

    fn state(&self) -> MutexGuard<'_, BackendState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The registered backends. Cheap to clone; clones are the same set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backends {
    /// In the order of their registration.
    all: Arc<RwLock<Arc<Vec<Arc<Backend>>>>>,
    /// The version that was last set for all backends; `None` if none was.
    common_version: Arc<Mutex<Option<i64>>>,
}

impl Backends {
    /// All backends that are registered now.
    pub(crate) fn all(&self) -> Arc<Vec<Arc<Backend>>> {
        Arc::clone(&self.all.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The backends of a model.
    pub(super) fn of(&self, model: &str) -> Vec<Arc<Backend>> {
        self.all().iter().filter(|backend| backend.serves(model)).cloned().collect()
    }

    /// Registers a backend, or changes the one with this model and URL.
    pub(super) fn register(
        &self,
        settings: &BackendSettings,
        id: Option<String>,
    ) -> Result<Arc<Backend>, BackendError> {
        let new = Arc::new(Backend::new(settings, id)?);
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let is_same = |backend: &&Arc<Backend>| {
            backend.model == new.model && (&backend.origin, &backend.base_path) == (&new.origin, &new.base_path)
        };
        if let Some(registered) = all.iter().find(is_same) {
            registered.update_from(&new);
            return Ok(Arc::clone(registered));
        }
        if all.len() >= MAX_BACKENDS {
            return Err(BackendError::TooMany);
        }
        let mut list = Vec::clone(&all);
        list.push(Arc::clone(&new));
        *all = Arc::new(list);
        Ok(new)
    }

    /// Removes the backends for which `is_removed` is true; their calls go on. Returns how many were removed.
    pub(crate) fn remove(&self, is_removed: impl Fn(&Backend) -> bool) -> usize {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let rest: Vec<_> = all.iter().filter(|backend| !is_removed(backend)).cloned().collect();
        let removed = all.len() - rest.len();
        *all = Arc::new(rest);
        removed
    }

    /// The version that was last set for all backends.
    pub(crate) fn common_version(&self) -> Option<i64> {
        *self.common_version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the version of all backends.
    pub(crate) fn set_version(&self, version: i64) {
        *self.common_version.lock().unwrap_or_else(PoisonError::into_inner) = Some(version);
        for backend in self.all().iter() {
            backend.version.store(version, Ordering::Release);
        }
    }
}

const MAX_BACKENDS: usize = 4096;
/// After so many probes in a row without an answer a backend is unhealthy. A single one may be late.
const MAX_MISSED_PROBES: u32 = 3;
const MAX_EJECTION: Duration = Duration::from_secs(32);
/// How long a backend is ejected after its first, second … failure in a row.
const EJECTIONS: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_secs(1))
    .with_max_delay(MAX_EJECTION)
    .with_factor(2.0)
    .without_max_times();

#[cfg(test)]
mod tests;
