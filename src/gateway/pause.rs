//! The pause gate: calls pass it before they are sent, unless the gateway is paused while weights change. It counts the
//! calls in flight, so that a trainer can wait until there are none.

use super::settings::PauseForm;
use crate::util::in_flight::{InFlightCounter, InFlightPermit};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use utoipa::ToSchema;

/// The gate. Cheap to clone; clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct PauseGate(Arc<Gate>);

#[derive(Debug)]
struct Gate {
    pause: watch::Sender<Pause>,
    calls: InFlightCounter,
}

/// Whether the gate is paused, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    /// What happens to calls meanwhile; `None`: the gate is open.
    pub(super) form: Option<PauseForm>,
    /// `Retry-After` of refused calls, in seconds.
    pub(super) retry_after_seconds: u64,
    /// Why the trainer paused the gateway, if it said so.
    pub(super) reason: Option<String>,
}

impl Pause {
    fn holds_calls(&self) -> bool {
        self.form == Some(PauseForm::Hold)
    }
}

/// The response of `GET /proxy/state` (Agent Lightning 1.0).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct GateState {
    /// Whether the gate is paused.
    pub(crate) paused: bool,
    /// `Retry-After` of refused calls, in seconds. While the gate is open: that of the last pause.
    pub(crate) retry_after_seconds: u64,
    /// Why the gate is paused; `None` while it is open.
    pub(crate) reason: Option<String>,
    /// Calls that passed the gate, until the end of their responses. Calls that wait for the gate are not counted.
    pub(crate) inflight: usize,
}

impl Default for PauseGate {
    fn default() -> Self {
        let open = Pause { form: None, retry_after_seconds: 5, reason: None };
        Self(Arc::new(Gate { pause: watch::Sender::new(open), calls: InFlightCounter::default() }))
    }
}

impl PauseGate {
    /// Lets a call pass, or says how the gate is paused.
    pub(super) fn admit(&self) -> Result<InFlightPermit, Pause> {
        // Counted before the pause is read: a trainer that pauses and then reads zero calls is right.
        let permit = self.0.calls.enter();
        let pause = self.0.pause.borrow();
        if pause.form.is_none() { Ok(permit) } else { Err(pause.clone()) }
    }

    /// Completes when calls no longer wait: the gate is open, or refuses them.
    pub(super) async fn released(&self) {
        let mut pause = self.0.pause.subscribe();
        // The sender is ours.
        let _ = pause.wait_for(|pause| !pause.holds_calls()).await;
    }

    /// True while calls wait.
    pub(super) fn holds_calls(&self) -> bool {
        self.0.pause.borrow().holds_calls()
    }

    /// Pauses the gate. Calls in flight go on.
    pub(crate) fn pause(&self, form: PauseForm, retry_after_seconds: u64, reason: Option<String>) {
        self.0.pause.send_replace(Pause { form: Some(form), retry_after_seconds, reason });
    }

    /// Opens the gate. Does nothing if it is open.
    pub(crate) fn resume(&self) {
        self.0.pause.send_modify(|pause| (pause.form, pause.reason) = (None, None));
    }

    /// Waits until no call is in flight. Returns false if that takes longer than `limit`.
    pub(crate) async fn drained(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.0.calls.zero()).await.is_ok()
    }

    /// The state of the gate.
    pub(crate) fn state(&self) -> GateState {
        let pause = self.0.pause.borrow().clone();
        GateState {
            paused: pause.form.is_some(),
            retry_after_seconds: pause.retry_after_seconds,
            reason: pause.reason,
            inflight: self.0.calls.count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_in_flight_go_on_and_no_other_passes() {
        let gate = PauseGate::default();
        let permit = gate.admit().unwrap();
        gate.pause(PauseForm::Hold, 7, Some("weights".to_owned()));
        assert_eq!(gate.admit().unwrap_err().form, Some(PauseForm::Hold));
        assert_eq!(gate.state().inflight, 1);
        assert!(!gate.drained(Duration::from_millis(1)).await);
        let draining = tokio::spawn({
            let gate = gate.clone();
            async move { gate.drained(Duration::from_secs(60)).await }
        });
        drop(permit);
        assert!(draining.await.unwrap());
        gate.resume();
        gate.resume();
        gate.released().await;
        let state = gate.state();
        assert_eq!((state.paused, state.retry_after_seconds, state.reason, state.inflight), (false, 7, None, 0));
    }
}
