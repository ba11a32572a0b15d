//! [`Gateway`]: what all calls share. The steps of a call are in the other files of this folder, most of them as methods of
//! this type: `handle` first, then `read_call`, `admission` and `retry`.

use super::backends::{Backend, BackendError, Backends};
use super::coalescing::ResponseCache;
use super::pause::PauseGate;
use super::rollout_lookup::RolloutLookup;
use super::rollout_state::RolloutStates;
use super::settings::{BackendSettings, GatewaySettings, Reroute};
use super::stored_responses::StoredResponses;
use crate::forward::Forwarder;
use crate::trace::RolloutId;
use crate::util::in_flight::InFlightCounter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Notify;

/// The gateway. Cheap to clone; clones are the same gateway.
#[derive(Clone)]
pub(crate) struct Gateway(Arc<Parts>);

struct Parts {
    settings: GatewaySettings,
    reroutes: RwLock<Arc<Vec<Reroute>>>,
    forwarder: Forwarder,
    lookup: Arc<dyn RolloutLookup>,
    rerouted_callers: ReroutedCallers,
    backends: Backends,
    gate: PauseGate,
    /// Counts all calls until the end of their response, also those that wait at the gate.
    open_calls: InFlightCounter,
    rollouts: RolloutStates,
    responses: ResponseCache,
    stored_responses: StoredResponses,
    /// Notified when a backend is registered, so that it is probed at once.
    registered: Notify,
    counters: GatewayCounters,
}

/// Event counts; each is a metric.
#[derive(Debug, Default)]
pub(crate) struct GatewayCounters {
    /// Calls received, also those that are refused.
    pub(crate) calls: AtomicU64,
    /// Calls that the gateway itself answered with an error.
    pub(crate) refused: AtomicU64,
    /// Requests to a backend that were followed by another.
    pub(crate) failed_tries: AtomicU64,
    /// Calls of which a translation left something out.
    pub(crate) reduced: AtomicU64,
    /// Retries by agents that got the response of the call that they repeat.
    pub(crate) joined: AtomicU64,
}

/// Who may make calls to hosts that the proxy reroutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReroutedCallers {
    /// Every client of the proxy.
    All,
    /// Clients with proxy credentials, or with a signed key as their API key: the API listener wants a token, too.
    Authenticated,
}

impl Gateway {
    /// A gateway that sends through `forwarder`. Fails if a backend in the settings is invalid.
    pub(crate) fn new(
        settings: GatewaySettings,
        reroutes: Vec<Reroute>,
        forwarder: Forwarder,
        lookup: Arc<dyn RolloutLookup>,
        rerouted_callers: ReroutedCallers,
    ) -> Result<Self, BackendError> {
        let backends = Backends::default();
        for backend in &settings.backends {
            backends.register(backend, None)?;
        }
        let responses = ResponseCache::new(forwarder.memory().clone());
        let stored_responses = StoredResponses::new(&settings);
        Ok(Self(Arc::new(Parts {
            settings,
            reroutes: RwLock::new(Arc::new(reroutes)),
            forwarder,
            lookup,
            rerouted_callers,
            backends,
            gate: PauseGate::default(),
            open_calls: InFlightCounter::default(),
            rollouts: RolloutStates::default(),
            responses,
            stored_responses,
            registered: Notify::new(),
            counters: GatewayCounters::default(),
        })))
    }

    /// `[gateway]` of the settings, as read at the start.
    pub(crate) fn settings(&self) -> &GatewaySettings {
        &self.0.settings
    }

    /// The event counts, for `/metrics`.
    pub(crate) fn counters(&self) -> &GatewayCounters {
        &self.0.counters
    }

    /// Calls that could not be coalesced with a later retry because too many responses are cached.
    pub(crate) fn uncoalesced(&self) -> &AtomicU64 {
        self.0.responses.uncoalesced()
    }

    /// Responses that can no longer be continued because too many are stored.
    pub(crate) fn forgotten_responses(&self) -> &AtomicU64 {
        self.0.stored_responses.forgotten()
    }

    /// The registered backends. The set changes while calls are in flight.
    pub(crate) fn backends(&self) -> &Backends {
        &self.0.backends
    }

    /// Registers a backend, or changes the one with this model and URL, and probes it at once.
    pub(crate) fn register(
        &self,
        settings: &BackendSettings,
        id: Option<String>,
    ) -> Result<Arc<Backend>, BackendError> {
        let backend = self.0.backends.register(settings, id)?;
        self.0.registered.notify_one();
        Ok(backend)
    }

    /// The hosts with a reroute: the proxy hands their LLM calls to the gateway.
    pub(crate) fn reroutes(&self) -> Arc<Vec<Reroute>> {
        Arc::clone(&self.0.reroutes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the reroutes. A connection through the proxy is intercepted, or not, as it was when it was opened.
    pub(crate) fn set_reroutes(&self, reroutes: Vec<Reroute>) {
        *self.0.reroutes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(reroutes);
    }

    /// The pause gate, which every call passes before it is sent.
    pub(crate) fn gate(&self) -> &PauseGate {
        &self.0.gate
    }

    /// What is remembered about each rollout.
    pub(crate) fn rollouts(&self) -> &RolloutStates {
        &self.0.rollouts
    }

    /// Completes when no call is open, also none that waits at the gate.
    pub(crate) async fn idle(&self) {
        self.0.open_calls.zero().await;
    }

    /// Ends the calls of a rollout that has ended.
    pub(crate) fn rollout_ended(&self, rollout: &RolloutId) {
        self.0.rollouts.end(rollout);
    }

    /// Every [`RECHECK_INTERVAL`], for as long as it runs, ends the calls of rollouts that another process has ended in a shared
    /// store.
    pub(crate) async fn recheck_rollouts(self) {
        loop {
            tokio::time::sleep(RECHECK_INTERVAL).await;
            for rollout in self.rollouts().in_use() {
                let registration = self.lookup().registered(&rollout).await;
                if registration.is_ok_and(|found| found.is_some_and(|found| found.final_status.is_some())) {
                    self.rollout_ended(&rollout);
                }
            }
        }
    }

    pub(super) fn rerouted_callers(&self) -> ReroutedCallers {
        self.0.rerouted_callers
    }

    pub(crate) fn forwarder(&self) -> &Forwarder {
        &self.0.forwarder
    }

    pub(super) fn lookup(&self) -> &dyn RolloutLookup {
        &*self.0.lookup
    }

    pub(super) fn open_calls(&self) -> &InFlightCounter {
        &self.0.open_calls
    }

    pub(super) fn responses(&self) -> &ResponseCache {
        &self.0.responses
    }

    pub(super) fn stored_responses(&self) -> &StoredResponses {
        &self.0.stored_responses
    }

    pub(super) fn registered(&self) -> &Notify {
        &self.0.registered
    }
}

pub(super) fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

const RECHECK_INTERVAL: Duration = Duration::from_secs(2);
