//! Where tasks come from and results go: one interface to both protocols of Agent Lightning.
//!
//! It starts no commands and prints nothing.

use super::args::ApiVersion;
use super::process::TaskOutcome;
use super::task::{TakeError, Task};
use super::{v03, v10};
use crate::cli::client::ServerClient;
use anyhow::{Result, bail};
use http::{Method, StatusCode};
use serde_json::Value as JsonValue;

/// A server and the protocol it speaks.
pub(super) struct TaskSource {
    pub(super) server: ServerClient,
    protocol: Protocol,
}

#[derive(Clone, Copy)]
enum Protocol {
    /// Agent Lightning 0.3.
    V03,
    /// Agent Lightning 1.0.
    V10,
}

impl TaskSource {
    /// Detects the server's protocol, unless `api` sets it.
    pub(super) async fn connect(server: ServerClient, api: ApiVersion) -> Result<Self> {
        let protocol = match api {
            ApiVersion::V03 => Protocol::V03,
            ApiVersion::V10 => Protocol::V10,
            ApiVersion::Auto => Protocol::detect(&server).await?,
        };
        Ok(Self { server, protocol })
    }

    /// The protocol's version, for messages.
    pub(super) fn version(&self) -> &'static str {
        match self.protocol {
            Protocol::V03 => "0.3",
            Protocol::V10 => "1.0",
        }
    }

    /// Takes the next rollout, if one is waiting. The server then lists it as running.
    pub(super) async fn take(&self, worker: &str) -> Result<Option<Task>, TakeError> {
        match self.protocol {
            Protocol::V03 => v03::take(&self.server, worker).await,
            Protocol::V10 => v10::take(&self.server).await,
        }
    }

    /// Reports that a task is still running. Returns the reason if the server has ended the rollout.
    pub(super) async fn heartbeat(&self, worker: &str, task: &Task, stats: &JsonValue) -> Option<String> {
        match self.protocol {
            Protocol::V03 => v03::heartbeat(&self.server, worker, task, stats).await,
            Protocol::V10 => v10::heartbeat(&self.server, task).await,
        }
    }

    /// Sends rewards, the primary one first.
    pub(super) async fn send_rewards(&self, task: &Task, rewards: &[(String, f64)]) -> Result<()> {
        match self.protocol {
            Protocol::V03 => v03::send_rewards(&self.server, task, rewards).await,
            Protocol::V10 => v10::send_rewards(&self.server, task, rewards).await,
        }
    }

    /// Reports how a task ended. A rollout that the server ended itself keeps the server's status.
    pub(super) async fn finish(&self, worker: &str, task: &Task, outcome: &TaskOutcome) -> Result<()> {
        let Some(status) = outcome.attempt_status() else { return Ok(()) };
        match self.protocol {
            Protocol::V03 => v03::finish(&self.server, worker, task, status).await,
            Protocol::V10 => v10::finish(&self.server, task, outcome).await,
        }
    }
}

impl Protocol {
    async fn detect(server: &ServerClient) -> Result<Self> {
        for (path, protocol) in [("/v1/agl/health", Self::V03), ("/healthz", Self::V10)] {
            if server.call(Method::GET, path, None).await?.status == StatusCode::OK {
                return Ok(protocol);
            }
        }
        let url = server.address.url();
        bail!("{url} speaks no known protocol of Agent Lightning; check --server, or set the protocol with --api")
    }
}
