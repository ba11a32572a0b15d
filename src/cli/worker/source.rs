//! Where tasks come from and their results go: one front for both of Agent Lightning's protocols.
//!
//! It must not start anything, nor print.

use super::process::End;
use super::{v03, v10};
use crate::cli::client::{Answer, Server};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use http::{Method, StatusCode};
use serde_json::Value as JsonValue;
use std::time::Duration;

/// Which protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Api {
    /// The queue of Agent Lightning 0.3, under /v1/agl
    #[value(name = "v0.3")]
    V03,
    /// The rollouts of Agent Lightning 1.0, under /api
    #[value(name = "v1.0")]
    V10,
    /// v0.3 if it is there, else v1.0
    Auto,
}

/// A rollout that is ours to run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Task {
    pub(super) rollout: String,
    pub(super) attempt: String,
    pub(super) input: JsonValue,
    /// `train`, `val`, `test`, or nobody said.
    pub(super) mode: Option<String>,
    /// What its creator gave it.
    pub(super) timeout: Option<Duration>,
}

/// Why there is no answer about tasks.
pub(super) enum NoAnswer {
    /// There may be one later.
    Later(anyhow::Error),
    /// There won't be.
    Never(anyhow::Error),
    /// There may be one later, but a rollout was taken that can't be run.
    Lost(anyhow::Error),
}

/// A server and its protocol.
pub(super) struct Source {
    pub(super) server: Server,
    old: bool,
}

impl Source {
    /// Finds out what the server speaks, unless `api` says.
    pub(super) async fn find(server: Server, api: Api) -> Result<Self> {
        let old = match api {
            Api::V03 => true,
            Api::V10 => false,
            Api::Auto => speaks_old(&server).await?,
        };
        Ok(Self { server, old })
    }

    /// The protocol's version.
    pub(super) fn version(&self) -> &'static str {
        if self.old { "0.3" } else { "1.0" }
    }

    /// The next rollout, if one waits. It is running then.
    pub(super) async fn take(&self, worker: &str) -> Result<Option<Task>, NoAnswer> {
        if self.old { v03::take(&self.server, worker).await } else { v10::take(&self.server).await }
    }

    /// Says that a task is still worked on. Gives the reason if it should not be any more.
    pub(super) async fn beat(&self, worker: &str, task: &Task, stats: &JsonValue) -> Option<String> {
        match self.old {
            true => v03::beat(&self.server, worker, task, stats).await,
            false => v10::beat(&self.server, task).await,
        }
    }

    /// Rewards, the main one first.
    pub(super) async fn reward(&self, task: &Task, rewards: &[(String, f64)]) -> Result<()> {
        match self.old {
            true => v03::reward(&self.server, task, rewards).await,
            false => v10::reward(&self.server, task, rewards).await,
        }
    }

    /// Tells how a task ended. What the server ended itself it is told nothing about.
    pub(super) async fn finish(&self, worker: &str, task: &Task, end: &End) -> Result<()> {
        match end {
            End::Gone(_) => Ok(()),
            _ if self.old => v03::finish(&self.server, worker, task, end).await,
            _ => v10::finish(&self.server, task, end).await,
        }
    }
}

async fn speaks_old(server: &Server) -> Result<bool> {
    for (path, old) in [("/v1/agl/health", true), ("/healthz", false)] {
        if server.call(Method::GET, path, None).await?.status == StatusCode::OK {
            return Ok(old);
        }
    }
    let url = server.address.url();
    bail!("{url} speaks neither protocol of Agent Lightning; check --server, or say which it is with --api")
}

/// Tells what will pass from what will not.
pub(super) fn judge(answer: Answer) -> Result<Answer, NoAnswer> {
    if answer.may_change() {
        return Err(NoAnswer::Later(anyhow::Error::msg(answer.said())));
    }
    answer.success().context("no rollout can be taken").map_err(NoAnswer::Never)
}

/// A number of seconds that is a time.
pub(super) fn seconds(json: &JsonValue) -> Option<Duration> {
    let length = Duration::try_from_secs_f64(json.as_f64()?).ok()?;
    (!length.is_zero()).then_some(length)
}
