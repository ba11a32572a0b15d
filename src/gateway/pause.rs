//! The gate that calls pass: open, or paused while weights change. It counts who is inside, so that a trainer can wait
//! until nobody is.
//!
//! It must not know what a call is.

use super::settings::PauseForm;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The gate. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PauseGate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pause: watch::Sender<Pause>,
    inside: AtomicUsize,
    left: Notify,
}

/// Whether it is paused, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// What callers meet; `None` while it is open.
    pub form: Option<PauseForm>,
    /// What callers that are refused are told to wait.
    pub retry_after_seconds: u64,
    /// Why it is paused.
    pub reason: Option<String>,
}

impl Pause {
    fn holds(&self) -> bool {
        self.form == Some(PauseForm::Hold)
    }
}

/// What `GET /proxy/state` says (Agent Lightning 1.0).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GateState {
    /// Whether it is paused.
    pub paused: bool,
    /// Seconds.
    pub retry_after_seconds: u64,
    /// Why.
    pub reason: Option<String>,
    /// Calls from their acceptance to the end of their answers.
    pub inflight: usize,
}

/// One caller inside.
#[derive(Debug)]
pub struct InFlightPermit(Arc<Inner>);

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        if self.0.inside.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.left.notify_waiters();
        }
    }
}

impl Default for PauseGate {
    fn default() -> Self {
        let pause = Pause { form: None, retry_after_seconds: 5, reason: None };
        Self(Arc::new(Inner { pause: watch::Sender::new(pause), inside: AtomicUsize::new(0), left: Notify::new() }))
    }
}

impl PauseGate {
    /// Goes in, unless it is paused.
    pub fn enter(&self) -> Result<InFlightPermit, Pause> {
        // Counted first: whoever pauses and then sees nobody inside is right.
        self.0.inside.fetch_add(1, Ordering::AcqRel);
        let inside = InFlightPermit(Arc::clone(&self.0));
        let pause = self.0.pause.borrow();
        if pause.form.is_none() { Ok(inside) } else { Err(pause.clone()) }
    }

    /// Completes when callers need not wait any more: it is open, or refuses them.
    pub async fn released(&self) {
        let mut pause = self.0.pause.subscribe();
        // The sender lives as long as we do.
        let _ = pause.wait_for(|pause| !pause.holds()).await;
    }

    /// True while callers wait.
    pub fn holds(&self) -> bool {
        self.0.pause.borrow().holds()
    }

    /// Pauses it. Who is inside stays.
    pub fn pause(&self, form: PauseForm, retry_after_seconds: u64, reason: Option<String>) {
        self.0.pause.send_replace(Pause { form: Some(form), retry_after_seconds, reason });
    }

    /// Opens it. Opening it twice is as good as once.
    pub fn resume(&self) {
        self.0.pause.send_modify(|pause| (pause.form, pause.reason) = (None, None));
    }

    /// Completes when nobody is inside: true; false when that took too long.
    pub async fn drained(&self, limit: Duration) -> bool {
        let empty = async {
            loop {
                let left = self.0.left.notified();
                tokio::pin!(left);
                left.as_mut().enable();
                if self.inside() == 0 {
                    return;
                }
                left.await;
            }
        };
        tokio::time::timeout(limit, empty).await.is_ok()
    }

    /// How it stands.
    pub fn state(&self) -> GateState {
        let pause = self.0.pause.borrow().clone();
        GateState {
            paused: pause.form.is_some(),
            retry_after_seconds: pause.retry_after_seconds,
            reason: pause.reason,
            inflight: self.inside(),
        }
    }

    fn inside(&self) -> usize {
        self.0.inside.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_is_inside_stays_and_nobody_else_comes_in() {
        let gate = PauseGate::default();
        let inside = gate.enter().unwrap();
        gate.pause(PauseForm::Hold, 7, Some("weights".to_owned()));
        assert_eq!(gate.enter().unwrap_err().form, Some(PauseForm::Hold));
        assert_eq!(gate.state().inflight, 1);
        assert!(!gate.drained(Duration::from_millis(1)).await);
        let draining = tokio::spawn({
            let gate = gate.clone();
            async move { gate.drained(Duration::from_secs(60)).await }
        });
        drop(inside);
        assert!(draining.await.unwrap());
        gate.resume();
        gate.resume();
        gate.released().await;
        let state = gate.state();
        assert_eq!((state.paused, state.retry_after_seconds, state.reason, state.inflight), (false, 7, None, 0));
    }
}
