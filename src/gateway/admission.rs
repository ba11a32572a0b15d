//! Whether a call may be sent now: the pause gate, the budget of its rollout, and the staleness of its policy.

use super::backends::Backend;
use super::call::GatewayCall;
use super::error_response::pause_error;
use super::models::no_backend;
use super::service::Gateway;
use super::settings::{PauseForm, Staleness};
use crate::error::{ErrorKind, ProxyError};
use crate::upstream::Body;
use crate::util::in_flight::InFlightPermit;
use http::Response;
use std::time::Instant;

/// Why a call has no response of a backend.
pub(super) enum NotAdmitted {
    /// The gateway is paused and refuses calls. The refusal is recorded; this is the response to the agent.
    Paused(Response<Body>),
    /// Any other error. The caller records it.
    Failed(ProxyError),
}

impl From<ProxyError> for NotAdmitted {
    fn from(error: ProxyError) -> Self {
        Self::Failed(error)
    }
}

impl Gateway {
    /// Waits until a call may be sent, and counts it against its budget.
    pub(super) async fn admit(&self, call: &GatewayCall) -> Result<InFlightPermit, NotAdmitted> {
        // Before the pause, as in Agent Lightning 1.0: a call without a backend is an error, paused or not.
        if self.backends().of(&call.model).is_empty() {
            return Err(no_backend(&call.model).into());
        }
        let permit = self.pass_gate(call).await?;
        let tokens_spent = self.lookup().tokens_spent(&call.exchange.identity.rollout_id);
        call.rollout.count_call(&call.budget, tokens_spent)?;
        Ok(permit)
    }

    /// Passes the pause gate. While it holds calls, waits for up to `hold_timeout_ms`.
    pub(super) async fn pass_gate(&self, call: &GatewayCall) -> Result<InFlightPermit, NotAdmitted> {
        let mut held_since: Option<Instant> = None;
        loop {
            let pause = match self.gate().admit() {
                Ok(permit) => {
                    record_held(call, held_since);
                    return Ok(permit);
                }
                Err(pause) => pause,
            };
            if pause.form != Some(PauseForm::Hold) {
                call.record_unsent();
                call.exchange.recording.fail(&pause_error(&pause));
                return Err(NotAdmitted::Paused(call.error_format.paused(&pause)));
            }
            let since = *held_since.get_or_insert_with(Instant::now);
            let (timeout, keepalive) = (self.settings().hold_timeout, self.settings().keepalive);
            let held = since.elapsed();
            tokio::select! {
                () = self.gate().released() => {}
                () = tokio::time::sleep(timeout.saturating_sub(held)) => {
                    record_held(call, held_since);
                    let held_ms = since.elapsed().as_millis();
                    let cause = format!("the gateway was paused for {held_ms} ms (gateway.hold_timeout_ms)");
                    return Err(ProxyError::new(ErrorKind::HoldTimeout, "", cause).into());
                }
                () = tokio::time::sleep(keepalive.saturating_sub(held)), if held < keepalive => {
                    call.keepalive_due.notify_one();
                }
            }
        }
    }

    /// Records by how many versions a backend is ahead of the rollout's first call; an error if that is too many.
    pub(super) fn check_staleness(&self, call: &GatewayCall, backend: &Backend) -> Result<(), ProxyError> {
        let ahead = call.rollout.versions_ahead(backend.version());
        call.exchange.recording.gateway(|facts| facts.staleness = (ahead != 0).then_some(ahead));
        let rule = call.registration.staleness.unwrap_or(self.settings().staleness);
        let max_ahead = call.registration.max_staleness.unwrap_or(self.settings().max_staleness);
        if rule == Staleness::Refuse && ahead > max_ahead {
            let cause = format!(
                "the policy is {ahead} versions ahead of the rollout's first call, and {max_ahead} are allowed \
                 (gateway.max_staleness)"
            );
            return Err(ProxyError::new(ErrorKind::PolicyStale, "", cause));
        }
        Ok(())
    }
}

fn record_held(call: &GatewayCall, since: Option<Instant>) {
    if let Some(since) = since {
        call.exchange.recording.gateway(|facts| facts.paused_for += since.elapsed());
    }
}
