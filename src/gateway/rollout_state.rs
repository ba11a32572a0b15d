//! What the gateway remembers of rollouts: what they have spent, which policy they began with, and whether they have
//! ended, which ends their calls.

use super::settings::{Budget, Staleness};
use crate::error::{ErrorKind, ProxyError};
use crate::trace::RolloutId;
use serde_json::{Map, Value as JsonValue};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A question to a [`RolloutLookup`].
pub type RolloutLookupFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Option<RolloutRegistration>, String>> + Send + 'a>>;

/// What is known of registered rollouts. `gateway` may not name the store, so `app` passes this in.
pub trait RolloutLookup: Send + Sync {
    /// A rollout, if somebody registered it. `Err`: that can't be said now.
    fn registered<'a>(&'a self, rollout: &'a RolloutId) -> RolloutLookupFuture<'a>;

    /// Tokens that a rollout's calls have taken, as far as they are counted.
    fn tokens_spent(&self, rollout: &RolloutId) -> u64;
}

/// A registered rollout, as far as calls depend on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RolloutRegistration {
    /// The final state it is in.
    pub ended: Option<String>,
    /// What it is for.
    pub mode: Option<String>,
    /// `metadata.budget`
    pub budget: Option<Budget>,
    /// `metadata.staleness`
    pub staleness: Option<Staleness>,
    /// `metadata.max_staleness`
    pub max_staleness: Option<i64>,
    /// `metadata.sampling_params`: fields that calls are made with, whatever the agent says.
    pub sampling: Map<String, JsonValue>,
}

/// A rollout's page.
#[derive(Debug)]
pub struct RolloutState {
    rollout: RolloutId,
    began: Instant,
    calls: AtomicU64,
    first_version: OnceLock<i64>,
    ended: watch::Sender<bool>,
    known: Mutex<Option<(Instant, Option<RolloutRegistration>)>>,
}

/// All pages. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RolloutStates(Arc<Mutex<HashMap<RolloutId, Arc<RolloutState>>>>);

impl RolloutStates {
    /// A rollout's page; a new one if there is none.
    pub fn page(&self, rollout: &RolloutId) -> Arc<RolloutState> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.len() >= MAX_PAGES && !pages.contains_key(rollout) {
            // Those that nobody is reading, and that have ended or are old.
            pages.retain(|_, page| {
                Arc::strong_count(page) > 1 || (!*page.ended.borrow() && page.began.elapsed() < KEPT)
            });
        }
        let new = || {
            Arc::new(RolloutState {
                rollout: rollout.clone(),
                began: Instant::now(),
                calls: AtomicU64::new(0),
                first_version: OnceLock::new(),
                ended: watch::Sender::new(false),
                known: Mutex::new(None),
            })
        };
        Arc::clone(pages.entry(rollout.clone()).or_insert_with(new))
    }

    /// The rollouts that have calls now.
    pub fn busy(&self) -> Vec<Arc<RolloutState>> {
        let pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.values().filter(|page| Arc::strong_count(page) > 1).cloned().collect()
    }

    /// A rollout has ended: its calls do too. One that goes on later begins a new page.
    pub fn ended(&self, rollout: &RolloutId) {
        let page = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(rollout);
        if let Some(page) = page {
            page.ended.send_replace(true);
        }
    }
}

impl RolloutState {
    /// Whose it is.
    pub fn rollout(&self) -> &RolloutId {
        &self.rollout
    }

    /// What is registered of the rollout; asked for anew now and then, since others may change it. While nothing can be
    /// said, what was known last is believed. `must_be`: that it is not registered is asked for each time.
    pub async fn registered(
        &self,
        registry: &dyn RolloutLookup,
        must_be: bool,
    ) -> Result<Option<RolloutRegistration>, ProxyError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, registered)) = &known
            && at.elapsed() < FRESH
            && (registered.is_some() || !must_be)
        {
            return Ok(registered.clone());
        }
        match registry.registered(&self.rollout).await {
            Ok(registered) => {
                let fresh = Some((Instant::now(), registered.clone()));
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
                Ok(registered)
            }
            Err(cause) => match known {
                Some((_, registered)) => Ok(registered),
                None if must_be => Err(ProxyError::new(ErrorKind::StoreSilent, "", cause)),
                None => Ok(None),
            },
        }
    }

    /// One call more, if the rollout may make it.
    pub fn spend(&self, budget: &Budget, tokens_spent: u64) -> Result<(), ProxyError> {
        let refused = |cause: String| Err(ProxyError::new(ErrorKind::BudgetSpent, "", cause));
        let rollout = &self.rollout;
        if budget.tokens > 0 && tokens_spent >= budget.tokens {
            return refused(format!("rollout {rollout} has taken {tokens_spent} of {} tokens", budget.tokens));
        }
        if budget.seconds > 0 && self.began.elapsed() >= Duration::from_secs(budget.seconds) {
            return refused(format!("rollout {rollout} began more than {} s ago", budget.seconds));
        }
        let made = self.calls.fetch_add(1, Ordering::Relaxed);
        if budget.calls > 0 && made >= budget.calls {
            self.calls.fetch_sub(1, Ordering::Relaxed);
            return refused(format!("rollout {rollout} has made its {} calls", budget.calls));
        }
        Ok(())
    }

    /// By how many versions the policy is ahead of the one that the rollout began with.
    pub fn staleness(&self, version: i64) -> i64 {
        version.saturating_sub(*self.first_version.get_or_init(|| version))
    }

    /// Completes when the rollout's calls must end, with why.
    pub async fn over(&self, budget: &Budget) -> ProxyError {
        let mut ended = self.ended.subscribe();
        let ended = async {
            // The sender is ours.
            let _ = ended.wait_for(|ended| *ended).await;
        };
        let deadline = async {
            match budget.seconds {
                0 => std::future::pending().await,
                seconds => match self.began.checked_add(Duration::from_secs(seconds)) {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                },
            }
        };
        let rollout = &self.rollout;
        tokio::select! {
            () = ended => ProxyError::new(ErrorKind::RolloutEnded, "", format!("rollout {rollout} has ended")),
            () = deadline => {
                let cause = format!("rollout {rollout} began more than {} s ago", budget.seconds);
                ProxyError::new(ErrorKind::BudgetSpent, "", cause)
            }
        }
    }
}

/// How long what is registered of a rollout is believed; its end is told at once by this process.
const FRESH: Duration = Duration::from_secs(1);
const KEPT: Duration = Duration::from_secs(3600);
const MAX_PAGES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_rollout_spends_what_it_may() {
        let book = RolloutStates::default();
        let page = book.page(&"ro".into());
        let budget = Budget { calls: 2, tokens: 100, seconds: 0 };
        assert!(page.spend(&budget, 0).is_ok() && page.spend(&budget, 99).is_ok());
        assert_eq!(page.spend(&budget, 99).unwrap_err().cause, "rollout ro has made its 2 calls");
        assert_eq!(page.spend(&budget, 100).unwrap_err().cause, "rollout ro has taken 100 of 100 tokens");
        assert_eq!((page.staleness(3), page.staleness(5), page.staleness(2)), (0, 2, -1));
        book.ended(&"ro".into());
        assert_eq!(page.over(&budget).await.kind, ErrorKind::RolloutEnded);
        assert!(!*book.page(&"ro".into()).ended.borrow(), "another page");
    }
}
