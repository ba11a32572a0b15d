//! Orderly shutdown: tell every connection to finish, then wait until all have.
//!
//! It must not end anything itself; the owner decides what happens at the deadline.

use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The owner's end: starts the drain and waits for it.
#[derive(Debug)]
pub struct Drain {
    start: watch::Sender<bool>,
    // Held only so that `finished` closes when the last guard is gone.
    guard: mpsc::Sender<()>,
    finished: mpsc::Receiver<()>,
}

/// A connection's end: while it lives, the drain isn't over.
#[derive(Clone, Debug)]
pub struct DrainGuard {
    start: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
}

impl Drain {
    /// A drain that has not started.
    pub fn new() -> Self {
        let (start, _) = watch::channel(false);
        let (guard, finished) = mpsc::channel(1);
        Self { start, guard, finished }
    }

    /// A guard for one more connection.
    pub fn guard(&self) -> DrainGuard {
        DrainGuard { start: self.start.subscribe(), _alive: self.guard.clone() }
    }

    /// Starts the drain and waits until every guard is gone, at most for `deadline`. True if all went in time.
    pub async fn drain(self, deadline: Duration) -> bool {
        let Self { start, guard, mut finished } = self;
        let _ = start.send(true);
        drop(guard);
        tokio::time::timeout(deadline, finished.recv()).await.is_ok()
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl DrainGuard {
    /// Completes when the drain starts, or when its owner is gone.
    pub async fn started(&mut self) {
        let _ = self.start.wait_for(|started| *started).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_every_guard() {
        let drain = Drain::new();
        let mut guard = drain.guard();
        let task = tokio::spawn(async move {
            guard.started().await;
        });
        assert!(drain.drain(Duration::from_secs(5)).await);
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_at_the_deadline() {
        let drain = Drain::new();
        let _guard = drain.guard();
        assert!(!drain.drain(Duration::from_secs(5)).await);
    }
}
