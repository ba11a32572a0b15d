//! The model servers that calls go to: registered, changed and removed at any time, while calls are on their way.
//!
//! A call holds the backend it was given; that it is registered anew changes its state, not its calls. It must not send
//! anything: that is for `call` and `probe`.

use super::settings::{BackendEngine, BackendSettings};
use crate::llm::api::ApiSpec;
use crate::llm::engine::Engine;
use crate::upstream::Origin;
use crate::util::secret::Secret;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// A model server.
#[derive(Debug)]
pub struct Backend {
    /// The model it serves; empty: whatever an agent names.
    pub model: String,
    /// Its base URL as it was registered.
    pub url: String,
    /// How admin APIs call it.
    pub id: String,
    /// Where it is.
    pub origin: Origin,
    /// The path of its base URL, without a slash at its end.
    pub base_path: String,
    version: AtomicI64,
    in_flight: AtomicUsize,
    faults: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    engine: BackendEngine,
    // What asking it showed, where `engine` is auto.
    learned: Option<Engine>,
    weight: f64,
    key: Secret,
    // While this lasts it is asked only if there is no other.
    ejected_until: Option<Instant>,
    missed_probes: u32,
}

/// A call on its way to a backend.
#[derive(Debug)]
pub struct InFlight(Arc<Backend>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a backend can't be registered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The URL is none.
    #[error("{0} is no http(s) URL of a model server; write it as http://HOST:PORT/v1")]
    Url(String),
    /// The weight is no share.
    #[error("the weight of {0} must be a number above 0")]
    Weight(String),
}

impl Backend {
    fn new(settings: &BackendSettings, id: Option<String>) -> Result<Self, BackendError> {
        let wrong = || BackendError::Url(settings.url.clone());
        let url = settings.url.trim().trim_end_matches('/');
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let host = uri.host().filter(|host| !host.is_empty() && !has_user).ok_or_else(wrong)?;
        if !settings.weight.is_finite() || settings.weight <= 0.0 {
            return Err(BackendError::Weight(settings.url.clone()));
        }
        let origin = Origin::new(tls, host, uri.port_u16().unwrap_or(if tls { 443 } else { 80 }));
        Ok(Self {
            model: settings.model.clone(),
            url: settings.url.clone(),
            id: id.unwrap_or_else(|| format!("{}@{url}", settings.model)),
            origin,
            base_path: uri.path().trim_end_matches('/').to_owned(),
            version: AtomicI64::new(settings.version),
            in_flight: AtomicUsize::new(0),
            faults: AtomicU32::new(0),
            state: Mutex::new(State {
                engine: settings.engine,
                learned: None,
                weight: settings.weight,
                key: settings.key.clone(),
                ejected_until: None,
                missed_probes: 0,
            }),
        })
    }

    /// The version of its weights.
    pub fn version(&self) -> i64 {
        self.version.load(Ordering::Acquire)
    }

    /// What it is, as far as it is known.
    pub fn engine(&self) -> BackendEngine {
        let state = self.state();
        match state.engine {
            BackendEngine::Auto => state.learned.map_or(BackendEngine::Auto, BackendEngine::Known),
            engine => engine,
        }
    }

    /// True when it serves a model.
    pub fn serves(&self, model: &str) -> bool {
        self.model.is_empty() || self.model == model
    }

    /// True when it takes calls of an API as they are.
    pub(crate) fn speaks(&self, api: &ApiSpec) -> bool {
        self.engine().assumed().serves(api)
    }

    /// RolloutLookupFuture it showed what it is; it counts where nobody has said.
    pub fn learned(&self, engine: Engine) {
        let known = self.state().learned.replace(engine);
        if known != Some(engine) {
            tracing::info!(url = self.url, engine = engine.as_str(), "a backend has shown what it is");
        }
    }

    /// Its share.
    pub fn weight(&self) -> f64 {
        self.state().weight
    }

    /// What it is shown.
    pub fn key(&self) -> Secret {
        self.state().key.clone()
    }

    /// Calls on their way to it.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// One call more.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// True when it is asked before others.
    pub fn is_healthy(&self) -> bool {
        let state = self.state();
        state.missed_probes < MAX_MISSED && state.ejected_until.is_none_or(|until| Instant::now() >= until)
    }

    /// It answered a call: it is there, whatever it says to probes.
    pub fn answered(&self) {
        let had_faults = self.faults.swap(0, Ordering::Relaxed) > 0;
        let mut state = self.state();
        state.missed_probes = 0;
        if had_faults {
            state.ejected_until = None;
        }
    }

    /// It could not be reached, or broke off. It is left out for a while, the longer the more often it happens.
    pub fn failed(&self) {
        let faults = self.faults.fetch_add(1, Ordering::Relaxed).min(5);
        self.state().ejected_until = Some(Instant::now() + EJECTED_FIRST * 2u32.pow(faults));
    }

    /// What came of asking whether it is there.
    pub fn probed(&self, is_there: bool) {
        let mut state = self.state();
        let missed = if is_there { 0 } else { state.missed_probes.saturating_add(1) };
        if (missed < MAX_MISSED) != (state.missed_probes < MAX_MISSED) {
            tracing::info!(url = self.url, is_there, "a backend's health has changed");
        }
        state.missed_probes = missed;
    }

    fn change(&self, to: &Self) {
        self.version.store(to.version(), Ordering::Release);
        let mut to = to.state();
        let mut state = self.state();
        (state.engine, state.learned, state.weight) = (to.engine, None, to.weight);
        state.key = std::mem::take(&mut to.key);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Backends {
    all: Arc<RwLock<Arc<Vec<Arc<Backend>>>>>,
    // What was said to be the version of them all, those to come included.
    version: Arc<Mutex<Option<i64>>>,
}

impl Backends {
    /// Those that are registered now.
    pub fn all(&self) -> Arc<Vec<Arc<Backend>>> {
        Arc::clone(&self.all.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those of a model.
    pub fn of(&self, model: &str) -> Vec<Arc<Backend>> {
        self.all().iter().filter(|backend| backend.serves(model)).cloned().collect()
    }

    /// Adds one, or changes the one with its model and URL: its calls go on.
    pub fn register(&self, settings: &BackendSettings, id: Option<String>) -> Result<Arc<Backend>, BackendError> {
        let new = Arc::new(Backend::new(settings, id)?);
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let same = all.iter().find(|known| {
            known.model == new.model && (&known.origin, &known.base_path) == (&new.origin, &new.base_path)
        });
        if let Some(known) = same {
            known.change(&new);
            return Ok(Arc::clone(known));
        }
        let mut list = Vec::clone(&all);
        list.push(Arc::clone(&new));
        *all = Arc::new(list);
        Ok(new)
    }

    /// Takes those away that `goes` names; their calls go on. Gives how many.
    pub fn remove(&self, goes: impl Fn(&Backend) -> bool) -> usize {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let kept: Vec<_> = all.iter().filter(|backend| !goes(backend)).cloned().collect();
        let gone = all.len() - kept.len();
        *all = Arc::new(kept);
        gone
    }

    /// What was said to be the version of them all.
    pub fn common_version(&self) -> Option<i64> {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All have new weights.
    pub fn set_version(&self, version: i64) {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(version);
        for backend in self.all().iter() {
            backend.version.store(version, Ordering::Release);
        }
    }
}

/// So many probes in a row without an answer, and it is not asked before others. One may just be late.
const MAX_MISSED: u32 = 3;
/// How long a backend is left out after its first failure.
const EJECTED_FIRST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> BackendSettings {
        let (version, weight, engine, key) = (0, 1.0, BackendEngine::Auto, Secret::default());
        BackendSettings { model: "m".into(), url: url.into(), version, weight, engine, key }
    }

    #[test]
    fn registering_anew_changes_the_same_backend() {
        let backends = Backends::default();
        let first = backends.register(&settings("http://gpu:8000/v1/"), None).unwrap();
        let call = first.enter();
        let again = BackendSettings { version: 7, weight: 2.0, ..settings("http://GPU:8000/v1") };
        let second = backends.register(&again, None).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!((first.version(), first.weight(), first.in_flight()), (7, 2.0, 1));
        drop(call);
        assert_eq!((first.in_flight(), backends.remove(|_| true), backends.all().len()), (0, 1, 0));
    }

    #[test]
    fn what_is_no_server_is_refused() {
        let backends = Backends::default();
        for url in ["gpu:8000", "ftp://gpu/v1", "http://", "http://user:secret@gpu/v1", ""] {
            assert!(backends.register(&settings(url), None).is_err(), "{url}");
        }
        let weightless = BackendSettings { weight: 0.0, ..settings("http://gpu/v1") };
        assert!(backends.register(&weightless, None).is_err());
    }

    #[test]
    fn one_that_fails_is_left_out_until_it_answers() {
        let backends = Backends::default();
        let backend = backends.register(&settings("http://gpu/v1"), None).unwrap();
        backend.failed();
        assert!(!backend.is_healthy());
        backend.answered();
        assert!(backend.is_healthy());
        backend.probed(false);
        assert!(backend.is_healthy(), "one probe may be late");
        (0..2).for_each(|_| backend.probed(false));
        assert!(!backend.is_healthy());
        backend.probed(true);
        assert!(backend.is_healthy());
    }
}
