//! A call: an LLM request that was read and may be sent to backends.

use super::error_response::ErrorFormat;
use super::rollout_lookup::RolloutRegistration;
use super::rollout_state::RolloutGuard;
use super::routing::{CallMode, Route};
use super::settings::Budget;
use super::stored_responses::StoredResponses;
use crate::capture::{EditedBytes, HeldBytes};
use crate::error::{ErrorKind, ProxyError};
use crate::forward::ActiveExchange;
use crate::net::drain::DrainGuard;
use crate::util::in_flight::InFlightPermit;
use http::HeaderMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// An LLM request that was read, with everything that is known before it is sent.
pub(super) struct GatewayCall {
    pub(super) exchange: ActiveExchange,
    pub(super) route: Route,
    pub(super) error_format: ErrorFormat,
    /// The headers of the agent's request.
    pub(super) headers: HeaderMap,
    /// The body of the agent's request, without its content coding: a JSON value.
    pub(super) body: Arc<HeldBytes>,
    pub(super) rollout: Arc<RolloutGuard>,
    pub(super) registration: RolloutRegistration,
    /// What the call is for, by its URL or else by the registration of its rollout.
    pub(super) mode: Option<CallMode>,
    pub(super) budget: Budget,
    /// The model, by the name under which backends are registered.
    pub(super) model: String,
    /// True if the agent asked for a stream of events.
    pub(super) wants_events: bool,
    /// The responses that it may continue.
    pub(super) stored_responses: StoredResponses,
    /// Notified when the call has waited at the pause gate for `keepalive_ms`.
    pub(super) keepalive_due: Notify,
    pub(super) response_state: Arc<ResponseState>,
    pub(super) drain: DrainGuard,
}

/// The part of a call that its response needs until its end. It does not hold the body of the request.
pub(super) struct ResponseState {
    pub(super) error_format: ErrorFormat,
    is_incomplete: AtomicBool,
    /// Counts the call as open, so that a shutdown waits for it.
    _open: InFlightPermit,
}

impl ResponseState {
    pub(super) fn new(error_format: ErrorFormat, open: InFlightPermit) -> Self {
        Self { error_format, is_incomplete: AtomicBool::new(false), _open: open }
    }

    /// The response ended early, in a form that looks complete to HTTP: with an error event.
    pub(super) fn mark_incomplete(&self) {
        self.is_incomplete.store(true, Ordering::Relaxed);
    }

    /// True for a response that a retry must not get.
    pub(super) fn is_incomplete(&self) -> bool {
        self.is_incomplete.load(Ordering::Relaxed)
    }
}

/// Completes with the error that ends a call.
pub(super) type CallEnd = Pin<Box<dyn Future<Output = ProxyError> + Send>>;

impl GatewayCall {
    /// Records the agent's body, if the call was sent to no backend.
    pub(super) fn record_unsent(&self) {
        let recording = &self.exchange.recording;
        let mut was_sent = false;
        recording.gateway(|facts| was_sent = facts.backend.is_some());
        if !was_sent {
            recording.request_body(&EditedBytes::from(Arc::clone(&self.body)));
        }
    }

    /// Waits until the call must end: its rollout has ended or has used up its time, or the gateway shuts down. Does not
    /// keep the call in memory.
    pub(super) fn must_end(&self) -> CallEnd {
        let (rollout, budget, drain) = (Arc::clone(&self.rollout), self.budget, self.drain.clone());
        Box::pin(async move {
            tokio::select! {
                error = rollout.until_over(&budget) => error,
                () = drain.ending() => ProxyError::new(ErrorKind::ShuttingDown, "", "the gateway is shutting down"),
            }
        })
    }
}
