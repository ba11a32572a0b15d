//! What the gateway has to know about registered rollouts, and the trait it reads that through.
//!
//! The gateway must not import the store: `app` implements [`RolloutLookup`] and passes it in.

use super::routing::CallMode;
use super::settings::{Budget, Staleness};
use crate::trace::{RolloutId, RolloutStatus};
use serde_json::{Map, Value as JsonValue};
use std::error::Error;
use std::pin::Pin;

/// The result of [`RolloutLookup::registered`]; `Ok(None)` means that the rollout is not registered.
pub(crate) type RolloutLookupFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Option<RolloutRegistration>, RolloutLookupError>> + Send + 'a>>;

/// Reads what the store knows about rollouts.
pub(crate) trait RolloutLookup: Send + Sync {
    /// Reads the registration of a rollout from the store.
    fn registered<'a>(&'a self, rollout: &'a RolloutId) -> RolloutLookupFuture<'a>;

    /// Tokens (prompts and answers) that the recorded calls of a rollout have used so far.
    fn tokens_spent(&self, rollout: &RolloutId) -> u64;
}

/// The store could not be read. Displays the store's own error.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct RolloutLookupError(Box<dyn Error + Send + Sync>);

impl RolloutLookupError {
    /// Wraps the store's error.
    pub(crate) fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// The properties of a registered rollout that affect its calls. The default is that of an unregistered rollout.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RolloutRegistration {
    /// The state in which the rollout ended; `None` while it is not in a final state.
    pub(crate) final_status: Option<RolloutStatus>,
    /// What the rollout is for; `None` if it has no mode, or one without settings of its own (`test`).
    pub(crate) mode: Option<CallMode>,
    /// `metadata.budget`; replaces the setting `gateway.budget`.
    pub(crate) budget: Option<Budget>,
    /// `metadata.staleness`; replaces the setting `gateway.staleness`.
    pub(crate) staleness: Option<Staleness>,
    /// `metadata.max_staleness`; replaces the setting `gateway.max_staleness`.
    pub(crate) max_staleness: Option<i64>,
    /// `metadata.sampling_params`: request fields that replace those of the agent and those of the settings.
    pub(crate) sampling: Map<String, JsonValue>,
}
