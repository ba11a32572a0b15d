//! What the gateway remembers about each rollout: calls made, start time, first policy version, registration, and
//! whether it has ended.
//!
//! Bound: the state of a rollout is kept while it has a call in flight (as many as there are connections), and after
//! that while it is among the [`MAX_IDLE`] most recently used. Each call does a constant amount of work, however many
//! rollouts there are. A rollout beyond the bound is forgotten: its next call starts a new state, with an unused budget
//! of calls and seconds and a new first policy version. [`RolloutStates::forgotten`] counts that, and `/metrics` shows
//! it as `tracewire_gateway_rollouts_forgotten_total`.

use super::rollout_lookup::{RolloutLookup, RolloutRegistration};
use super::settings::Budget;
use crate::error::{ErrorKind, ProxyError};
use crate::trace::RolloutId;
use lru::LruCache;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The states of all rollouts. Cheap to clone; clones are the same states.
#[derive(Clone, Debug)]
pub(crate) struct RolloutStates(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    states: Mutex<States>,
    forgotten: AtomicU64,
}

/// A rollout is in one of the two maps, or in none if it is new, forgotten or has ended.
#[derive(Debug)]
struct States {
    in_use: HashMap<RolloutId, InUse>,
    idle: LruCache<RolloutId, Arc<RolloutState>>,
}

#[derive(Debug)]
struct InUse {
    state: Arc<RolloutState>,
    /// The number of [`RolloutGuard`]s; at 0 the rollout becomes idle.
    guards: usize,
}

/// Keeps the state of a rollout from being forgotten. A call holds it until the end of its response.
#[derive(Debug)]
pub(crate) struct RolloutGuard {
    states: RolloutStates,
    state: Arc<RolloutState>,
}

/// The state of one rollout.
#[derive(Debug)]
pub(crate) struct RolloutState {
    rollout: RolloutId,
    first_call: Instant,
    calls: AtomicU64,
    first_version: OnceLock<i64>,
    ended: watch::Sender<bool>,
    /// What the last successful lookup returned; `None` before the first.
    registration: Mutex<Option<CachedRegistration>>,
}

#[derive(Clone, Debug)]
struct CachedRegistration {
    read_at: Instant,
    registration: Option<RolloutRegistration>,
}

impl Default for RolloutStates {
    fn default() -> Self {
        Self::with_max_idle(MAX_IDLE)
    }
}

impl RolloutStates {
    fn with_max_idle(max_idle: NonZeroUsize) -> Self {
        let states = States { in_use: HashMap::new(), idle: LruCache::new(max_idle) };
        Self(Arc::new(Shared { states: Mutex::new(states), forgotten: AtomicU64::new(0) }))
    }

    /// The state of a rollout, for as long as the guard lives; a new one if there is none.
    pub(crate) fn enter(&self, rollout: &RolloutId) -> RolloutGuard {
        let mut states = self.lock();
        let state = if let Some(in_use) = states.in_use.get_mut(rollout) {
            in_use.guards += 1;
            Arc::clone(&in_use.state)
        } else {
            let idle = states.idle.pop(rollout);
            let state = idle.unwrap_or_else(|| Arc::new(RolloutState::new(rollout.clone())));
            states.in_use.insert(rollout.clone(), InUse { state: Arc::clone(&state), guards: 1 });
            state
        };
        drop(states);
        RolloutGuard { states: self.clone(), state }
    }

    /// The rollouts that have calls in flight.
    pub(crate) fn in_use(&self) -> Vec<RolloutId> {
        self.lock().in_use.keys().cloned().collect()
    }

    /// Ends the calls of a rollout that has ended. If it is called again later, it starts with a new state.
    pub(crate) fn end(&self, rollout: &RolloutId) {
        let mut states = self.lock();
        let in_use = states.in_use.remove(rollout).map(|in_use| in_use.state);
        let state = in_use.or_else(|| states.idle.pop(rollout));
        drop(states);
        if let Some(state) = state {
            state.ended.send_replace(true);
        }
    }

    /// Rollouts that were forgotten because more than [`MAX_IDLE`] were idle.
    pub(crate) fn forgotten(&self) -> &AtomicU64 {
        &self.0.forgotten
    }

    fn leave(&self, state: &Arc<RolloutState>) {
        let mut states = self.lock();
        let Some(in_use) = states.in_use.get_mut(&state.rollout) else { return };
        if !Arc::ptr_eq(&in_use.state, state) {
            // The rollout ended, and a later call started a new state.
            return;
        }
        in_use.guards -= 1;
        if in_use.guards > 0 {
            return;
        }
        if let Some((rollout, in_use)) = states.in_use.remove_entry(&state.rollout)
            && states.idle.push(rollout, in_use.state).is_some()
        {
            self.0.forgotten.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, States> {
        self.0.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for RolloutGuard {
    type Target = RolloutState;

    fn deref(&self) -> &RolloutState {
        &self.state
    }
}

impl Drop for RolloutGuard {
    fn drop(&mut self) {
        self.states.leave(&self.state);
    }
}

impl RolloutState {
    fn new(rollout: RolloutId) -> Self {
        Self {
            rollout,
            first_call: Instant::now(),
            calls: AtomicU64::new(0),
            first_version: OnceLock::new(),
            ended: watch::Sender::new(false),
            registration: Mutex::new(None),
        }
    }

    /// The registration of the rollout; `None` if it is not registered, also if the store can't be read and never could.
    /// An answer of the store is reused for [`REGISTRATION_TTL`], and for as long as the store can't be read.
    pub(crate) async fn registration(&self, lookup: &dyn RolloutLookup) -> Option<RolloutRegistration> {
        let cached = self.cached_registration();
        if let Some(cached) = &cached
            && cached.is_fresh()
        {
            return cached.registration.clone();
        }
        match lookup.registered(&self.rollout).await {
            Ok(registration) => self.cache_registration(registration),
            Err(_) => cached.and_then(|cached| cached.registration),
        }
    }

    /// The registration of a rollout that must have one. As [`Self::registration`], but the store is read each time
    /// while the rollout is not registered, so that a new registration counts at once.
    pub(crate) async fn required_registration(
        &self,
        lookup: &dyn RolloutLookup,
    ) -> Result<RolloutRegistration, ProxyError> {
        let cached = self.cached_registration();
        if let Some(CachedRegistration { registration: Some(registration), .. }) =
            cached.as_ref().filter(|cached| cached.is_fresh())
        {
            return Ok(registration.clone());
        }
        match lookup.registered(&self.rollout).await {
            Ok(registration) => self.cache_registration(registration).ok_or_else(|| {
                let cause = format!("Rollout not found: {}", self.rollout);
                ProxyError::new(ErrorKind::RolloutUnknown, "", cause)
            }),
            Err(error) => cached
                .and_then(|cached| cached.registration)
                .ok_or_else(|| ProxyError::new(ErrorKind::StoreSilent, "", error.to_string())),
        }
    }

    fn cached_registration(&self) -> Option<CachedRegistration> {
        self.registration.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cache_registration(&self, registration: Option<RolloutRegistration>) -> Option<RolloutRegistration> {
        let cached = CachedRegistration { read_at: Instant::now(), registration: registration.clone() };
        *self.registration.lock().unwrap_or_else(PoisonError::into_inner) = Some(cached);
        registration
    }

    /// Counts one call, or says which part of the budget is used up.
    pub(crate) fn count_call(&self, budget: &Budget, tokens_spent: u64) -> Result<(), ProxyError> {
        let refused = |cause: String| Err(ProxyError::new(ErrorKind::BudgetSpent, "", cause));
        let rollout = &self.rollout;
        if budget.tokens > 0 && tokens_spent >= budget.tokens {
            return refused(format!("rollout {rollout} has used {tokens_spent} of its {} tokens", budget.tokens));
        }
        if budget.seconds > 0 && self.first_call.elapsed() >= Duration::from_secs(budget.seconds) {
            return refused(self.out_of_time(budget));
        }
        let earlier = self.calls.fetch_add(1, Ordering::Relaxed);
        if budget.calls > 0 && earlier >= budget.calls {
            self.calls.fetch_sub(1, Ordering::Relaxed);
            return refused(format!("rollout {rollout} has made all of its {} calls", budget.calls));
        }
        Ok(())
    }

    /// By how many versions `version` is ahead of the version of the rollout's first call; negative if it is behind.
    pub(crate) fn versions_ahead(&self, version: i64) -> i64 {
        version.saturating_sub(*self.first_version.get_or_init(|| version))
    }

    /// Completes when the rollout has ended or has used up its seconds, with the error for its calls.
    pub(crate) async fn until_over(&self, budget: &Budget) -> ProxyError {
        let mut ended = self.ended.subscribe();
        let ended = async {
            // The sender is ours.
            let _ = ended.wait_for(|ended| *ended).await;
        };
        let deadline = (budget.seconds > 0).then(|| self.first_call.checked_add(Duration::from_secs(budget.seconds)));
        let out_of_time = async {
            match deadline.flatten() {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let rollout = &self.rollout;
        tokio::select! {
            () = ended => ProxyError::new(ErrorKind::RolloutEnded, "", format!("rollout {rollout} has ended")),
            () = out_of_time => ProxyError::new(ErrorKind::BudgetSpent, "", self.out_of_time(budget)),
        }
    }

    fn out_of_time(&self, budget: &Budget) -> String {
        format!("rollout {} has used its {} s: they count from its first call", self.rollout, budget.seconds)
    }
}

impl CachedRegistration {
    fn is_fresh(&self) -> bool {
        self.read_at.elapsed() < REGISTRATION_TTL
    }
}

/// How long a registration is used before the store is read again. The end of a rollout is known sooner if this process
/// ends it.
const REGISTRATION_TTL: Duration = Duration::from_secs(1);
/// The most rollouts without a call in flight that are remembered.
const MAX_IDLE: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();

#[cfg(test)]
mod tests {
    use super::*;

    fn known(states: &RolloutStates) -> (usize, usize) {
        let states = states.lock();
        (states.in_use.len(), states.idle.len())
    }

    #[tokio::test]
    async fn a_rollout_is_held_to_its_budget() {
        let states = RolloutStates::default();
        let rollout = states.enter(&"ro".into());
        let budget = Budget { calls: 2, tokens: 100, seconds: 0 };
        assert!(rollout.count_call(&budget, 0).is_ok() && rollout.count_call(&budget, 99).is_ok());
        assert_eq!(rollout.count_call(&budget, 99).unwrap_err().cause, "rollout ro has made all of its 2 calls");
        assert_eq!(rollout.count_call(&budget, 100).unwrap_err().cause, "rollout ro has used 100 of its 100 tokens");
        assert_eq!((rollout.versions_ahead(3), rollout.versions_ahead(5), rollout.versions_ahead(2)), (0, 2, -1));
    }

    #[tokio::test]
    async fn the_end_of_a_rollout_ends_its_calls_and_its_state() {
        let states = RolloutStates::default();
        let (first, second) = (states.enter(&"ro".into()), states.enter(&"ro".into()));
        first.versions_ahead(3);
        states.end(&"ro".into());
        assert_eq!(first.until_over(&Budget::default()).await.kind, ErrorKind::RolloutEnded);
        assert_eq!(second.until_over(&Budget::default()).await.kind, ErrorKind::RolloutEnded);
        let later = states.enter(&"ro".into());
        drop((first, second));
        assert_eq!(known(&states), (1, 0), "the guards of the old state don't count for the new one");
        assert!(!*later.ended.borrow() && later.versions_ahead(7) == 0);
        drop(later);
        states.end(&"ro".into());
        assert_eq!(known(&states), (0, 0));
    }

    #[test]
    fn many_rollouts_are_bounded_and_each_evicts_at_most_one() {
        const MAX: usize = 1000;
        let states = RolloutStates::with_max_idle(NonZeroUsize::new(MAX).unwrap());
        let long_call = states.enter(&"long".into());
        long_call.versions_ahead(3);
        let mut forgotten = 0;
        for at in 0..200_000_usize {
            drop(states.enter(&format!("ro-{at}").as_str().into()));
            // The rollout that is called again and again is always among the last used.
            drop(states.enter(&"busy".into()));
            let now = states.forgotten().load(Ordering::Relaxed);
            assert!(now - forgotten <= 1, "one call evicts one rollout: {}", now - forgotten);
            forgotten = now;
            let (in_use, idle) = known(&states);
            assert!(in_use == 1 && idle <= MAX, "{in_use} in use, {idle} idle");
        }
        assert_eq!(forgotten, 200_001 - MAX as u64, "all but the last are forgotten");
        let again = states.enter(&"long".into());
        assert_eq!(again.versions_ahead(5), 2, "a rollout with a call in flight is remembered");
        drop(long_call);
        drop(again);
        assert_eq!(states.enter(&"ro-0".into()).versions_ahead(5), 0, "a forgotten rollout starts anew");
    }
}
