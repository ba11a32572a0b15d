//! Orderly shutdown in two stages: connections are asked to finish, and those left at the deadline are ended.
//!
//! Built from tokio-util's `CancellationToken` (one for each stage) and `TaskTracker` (which counts the guards). It must
//! not know what a connection does; a connection's task observes the stages through its guard.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Starts the drain and waits for it. Dropping it without a drain starts both stages at once.
#[derive(Debug)]
pub(crate) struct Drain {
    draining: DropGuard,
    ending: DropGuard,
    guards: TaskTracker,
}

/// Held by each connection and by what the connection starts: the drain is complete when the last guard is dropped.
/// Clones are cheap, and share no lock with other connections.
#[derive(Clone, Debug)]
pub(crate) struct DrainGuard {
    stages: Arc<Stages>,
    held: Option<Arc<Held>>,
}

#[derive(Debug)]
struct Stages {
    draining: CancellationToken,
    ending: CancellationToken,
    alive: TaskTrackerToken,
}

/// A list of the values that a guard keeps alive.
#[derive(Debug)]
struct Held {
    _value: Box<dyn Any + Send + Sync>,
    _rest: Option<Arc<Self>>,
}

/// The result of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// All connections finished before the deadline.
    InTime,
    /// Connections were ended at the deadline.
    CutOff,
}

impl Drain {
    /// A drain that has not started.
    pub(crate) fn new() -> Self {
        let [draining, ending] = [(); 2].map(|()| CancellationToken::new().drop_guard());
        Self { draining, ending, guards: TaskTracker::new() }
    }

    /// A guard for a task, such as that of a listener.
    pub(crate) fn guard(&self) -> DrainGuard {
        let [draining, ending] = [&self.draining, &self.ending].map(|stage| stage.token().child_token());
        DrainGuard { stages: Arc::new(Stages { draining, ending, alive: self.guards.token() }), held: None }
    }

    /// Starts the drain and waits until every guard is dropped, for at most `deadline`. Connections that are left then
    /// are ended.
    pub(crate) async fn drain(self, deadline: Duration) -> Drained {
        let Self { draining, ending, guards } = self;
        drop(draining);
        guards.close();
        if tokio::time::timeout(deadline, guards.wait()).await.is_ok() {
            return Drained::InTime;
        }
        drop(ending);
        let _ = tokio::time::timeout(END_GRACE, guards.wait()).await;
        Drained::CutOff
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl DrainGuard {
    /// A guard for one connection of a listener. It follows the same drain, with locks of its own.
    #[must_use]
    pub(crate) fn for_connection(&self) -> Self {
        let Stages { draining, ending, alive } = &*self.stages;
        let stages = Stages { draining: draining.child_token(), ending: ending.child_token(), alive: alive.clone() };
        Self { stages: Arc::new(stages), held: self.held.clone() }
    }

    /// Keeps `value` alive until this guard and all its clones are dropped.
    #[must_use]
    pub(crate) fn holding(self, value: impl Any + Send + Sync) -> Self {
        let held = Held { _value: Box::new(value), _rest: self.held };
        Self { stages: self.stages, held: Some(Arc::new(held)) }
    }

    /// Completes when the drain starts, or when its [`Drain`] is dropped.
    pub(crate) async fn started(&self) {
        self.stages.draining.cancelled().await;
    }

    /// Completes when the drain's deadline has passed, or when its [`Drain`] is dropped.
    pub(crate) async fn ending(&self) {
        self.stages.ending.cancelled().await;
    }

    /// Runs `task` until it completes. [`FLUSH_GRACE`] after the drain's deadline the task is dropped: what ends at the deadline
    /// can still be told to the client.
    pub(crate) fn run(self, task: impl Future<Output = ()> + Send) -> impl Future<Output = ()> + Send {
        // Boxed: a future that is an argument of another takes its room twice.
        let task = Box::pin(task);
        async move {
            // Moves the whole guard into the task, not only the field in use.
            let guard = self;
            let deadline = async {
                guard.ending().await;
                tokio::time::sleep(FLUSH_GRACE).await;
            };
            tokio::select! {
                biased;
                () = task => {}
                () = deadline => {}
            }
        }
    }
}

/// The time that tasks get after the deadline to send what ends them.
const FLUSH_GRACE: Duration = Duration::from_millis(200);
/// The time that tasks get after the deadline, [`FLUSH_GRACE`] included, to release their guards.
const END_GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_every_guard() {
        let drain = Drain::new();
        let guard = drain.guard();
        let task = tokio::spawn(async move { guard.started().await });
        assert_eq!(drain.drain(Duration::from_secs(5)).await, Drained::InTime);
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn ends_what_is_left_at_the_deadline() {
        let drain = Drain::new();
        let task = tokio::spawn(drain.guard().run(std::future::pending()));
        assert_eq!(drain.drain(Duration::from_secs(5)).await, Drained::CutOff);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_dropped_drain_ends_its_tasks() {
        let drain = Drain::new();
        let task = tokio::spawn(drain.guard().for_connection().run(std::future::pending()));
        drop(drain);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_held_value_lives_as_long_as_any_clone() {
        let (drain, value) = (Drain::new(), Arc::new(()));
        let guard = drain.guard().for_connection().holding(Arc::clone(&value)).holding("another");
        let clone = guard.clone();
        drop(guard);
        assert_eq!(Arc::strong_count(&value), 2);
        drop(clone);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
