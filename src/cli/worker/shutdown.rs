//! How the worker stops: each signal (SIGTERM, SIGINT, SIGHUP) advances the shutdown by one stage.

use crate::cli::show;
use crate::run::signals::stop_requests;
use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio::sync::watch;

/// How far the shutdown has progressed. A later stage includes all earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ShutdownStage {
    /// Rollouts are taken and run.
    #[default]
    Running,
    /// No further rollouts are taken; running commands finish.
    Draining,
    /// Running commands are stopped.
    StoppingCommands,
    /// The worker exits and leaves running commands behind.
    Exiting,
}

impl ShutdownStage {
    fn next(self) -> Self {
        match self {
            Self::Running => Self::Draining,
            Self::Draining => Self::StoppingCommands,
            Self::StoppingCommands | Self::Exiting => Self::Exiting,
        }
    }
}

/// The stage, shared by all jobs. It never goes back.
#[derive(Debug, Default)]
pub(super) struct Shutdown {
    stage: watch::Sender<ShutdownStage>,
}

impl Shutdown {
    /// Starts in [`ShutdownStage::Running`] and advances with each signal to this process.
    pub(super) fn on_signals() -> Result<Self> {
        let shutdown = Self::default();
        let mut requests =
            stop_requests(&[Signal::TERM, Signal::INT, Signal::HUP]).context("cannot install a signal handler")?;
        let stage = shutdown.stage.clone();
        tokio::spawn(async move {
            while requests.recv().await.is_some() {
                stage.send_modify(|stage| *stage = stage.next());
                let reached = *stage.borrow();
                match reached {
                    ShutdownStage::Draining => {
                        show::note("tracewire: waiting for running commands; a second signal stops them");
                    }
                    ShutdownStage::StoppingCommands => {
                        show::note("tracewire: stopping running commands; a third signal exits at once");
                    }
                    ShutdownStage::Running | ShutdownStage::Exiting => {}
                }
            }
        });
        Ok(shutdown)
    }

    pub(super) fn stage(&self) -> ShutdownStage {
        *self.stage.borrow()
    }

    /// Advances to `stage`, unless the shutdown is already there or further.
    pub(super) fn advance_to(&self, stage: ShutdownStage) {
        self.stage.send_modify(|current| *current = (*current).max(stage));
    }

    /// Waits until the shutdown is at `stage` or further.
    pub(super) async fn reached(&self, stage: ShutdownStage) {
        let mut stages = self.stage.subscribe();
        // An error means that the sender is gone; `self` owns it.
        let _ = stages.wait_for(|current| *current >= stage).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_advance_in_order_and_never_go_back() {
        let shutdown = Shutdown::default();
        shutdown.advance_to(ShutdownStage::StoppingCommands);
        shutdown.advance_to(ShutdownStage::Draining);
        assert_eq!(shutdown.stage(), ShutdownStage::StoppingCommands);
        shutdown.reached(ShutdownStage::Draining).await;
        assert_eq!(ShutdownStage::Running.next().next().next().next(), ShutdownStage::Exiting);
    }
}
