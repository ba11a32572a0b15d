//! Orderly shutdown: tell every connection to finish, wait until all have, and end those that don't.
//!
//! It must not know what a connection does; a connection's task listens to its guard.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The owner's end: starts the drain and waits for it.
#[derive(Debug)]
pub struct Drain {
    stage: watch::Sender<Stage>,
    // Held only so that `finished` closes when the last guard is gone.
    guard: mpsc::Sender<()>,
    finished: mpsc::Receiver<()>,
}

/// A connection's end: while it lives, the drain isn't over.
#[derive(Clone, Debug)]
pub struct DrainGuard {
    stage: watch::Receiver<Stage>,
    _alive: mpsc::Sender<()>,
    held: Vec<Arc<dyn Any + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    Draining,
    Ending,
}

impl Drain {
    /// A drain that has not started.
    pub fn new() -> Self {
        let (stage, _) = watch::channel(Stage::Running);
        let (guard, finished) = mpsc::channel(1);
        Self { stage, guard, finished }
    }

    /// A guard for one more connection.
    pub fn guard(&self) -> DrainGuard {
        DrainGuard { stage: self.stage.subscribe(), _alive: self.guard.clone(), held: Vec::new() }
    }

    /// Starts the drain and waits until every guard is gone, at most for `deadline`; what is left then is ended. True if
    /// all went in time.
    pub async fn drain(self, deadline: Duration) -> bool {
        let Self { stage, guard, mut finished } = self;
        let _ = stage.send(Stage::Draining);
        drop(guard);
        if tokio::time::timeout(deadline, finished.recv()).await.is_ok() {
            return true;
        }
        let _ = stage.send(Stage::Ending);
        let _ = tokio::time::timeout(END_GRACE, finished.recv()).await;
        false
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl DrainGuard {
    /// Keeps `thing` until the connection, and all that it started, is over.
    #[must_use]
    pub fn holding(mut self, thing: impl Any + Send + Sync) -> Self {
        self.held.push(Arc::new(thing));
        self
    }

    /// Completes when the drain starts, or when its owner is gone.
    pub async fn started(&mut self) {
        let _ = self.stage.wait_for(|stage| *stage >= Stage::Draining).await;
    }

    /// Completes when the drain's deadline has passed: what is left is to end now.
    pub async fn ending(&mut self) {
        let _ = self.stage.wait_for(|stage| *stage == Stage::Ending).await;
    }

    /// Runs `task` until it is done, or until the drain's deadline has passed and it is dropped where it stands.
    pub fn run(self, task: impl Future<Output = ()> + Send) -> impl Future<Output = ()> + Send {
        // Boxed: a future that is an argument of another takes its room twice.
        let task = Box::pin(task);
        async move {
            // The whole guard, not only the field that is looked at.
            let mut guard = self;
            tokio::select! {
                () = task => {}
                _ = guard.stage.wait_for(|stage| *stage == Stage::Ending) => {}
            }
        }
    }
}

/// Dropping a task takes no time to speak of.
const END_GRACE: Duration = Duration::from_secs(1);

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
    async fn ends_what_is_left_at_the_deadline() {
        let drain = Drain::new();
        let task = tokio::spawn(drain.guard().run(std::future::pending()));
        assert!(!drain.drain(Duration::from_secs(5)).await);
        task.await.unwrap();
    }
}
