//! The gateways that are measured, and how each is started, told its backends, and called.

use crate::client::Way;
use crate::process::{self, Served};
use crate::service::Client;
use anyhow::{Context, Result};
use hyper::Method;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who is measured.
#[derive(Clone, Debug)]
pub enum Who {
    /// No gateway.
    Direct,
    /// With `registered` rollouts the end of an answer waits for its span's commit.
    Tracewire { binary: PathBuf, registered: bool },
    /// Agent Lightning 1.0's server, by its `agl-server`. It keeps events in memory.
    AgentLightning(PathBuf),
    /// `rllm-model-gateway`, to SQLite.
    Rllm(PathBuf),
    /// LiteLLM's proxy, with nothing that records but its log.
    LiteLlm(PathBuf),
}

/// One that runs.
pub struct Gateway {
    /// Its process.
    pub served: Option<Served>,
    /// How it is called.
    pub way: Way,
}

impl Who {
    /// True for what is compared with Tracewire.
    pub fn is_rival(&self) -> bool {
        matches!(self, Self::AgentLightning(_) | Self::Rllm(_) | Self::LiteLlm(_))
    }

    /// Starts it before these endpoints, with its files in `place`.
    pub async fn start(&self, endpoints: &[SocketAddr], place: &Path) -> Result<Gateway> {
        match self {
            Self::Direct => {
                let endpoint = *endpoints.first().context("no endpoint")?;
                Ok(Gateway { served: None, way: Way::plain(endpoint, "", ROLLOUT)? })
            }
            Self::Tracewire { binary, registered } => {
                let served = Served::start(&mut tracewire(binary, place)).context("tracewire")?;
                let address = served.server.context("tracewire has not said where its server door is")?;
                let way = Way::plain(address, "/rollout/{}/attempt/0", ROLLOUT)?;
                register(address, endpoints, &way, *registered).await?;
                Ok(Gateway { served: Some(served), way })
            }
            Self::AgentLightning(program) => {
                let address = process::free_address()?;
                let mut command = Command::new(program);
                command.current_dir(place).args(["host=127.0.0.1", "default_proxy.model_name=bench"]);
                command.arg(format!("port={}", address.port()));
                let served = Served::start_at(&mut command, address).context("agl-server")?;
                let way = Way::plain(address, "/proxy/rollout/{}/attempt/0/mode/train/openai", ROLLOUT)?;
                register(address, endpoints, &way, true).await?;
                Ok(Gateway { served: Some(served), way })
            }
            Self::Rllm(program) => {
                let address = process::free_address()?;
                let mut command = Command::new(program);
                command.args(["--host", "127.0.0.1", "--log-level", "warning", "--port"]);
                command.arg(address.port().to_string()).arg("--db-path").arg(place.join("traces.db"));
                for endpoint in endpoints {
                    command.arg("--worker").arg(url(*endpoint));
                }
                let served = Served::start_at(&mut command, address).context("rllm-model-gateway")?;
                Ok(Gateway { served: Some(served), way: Way::plain(address, "/sessions/{}", ROLLOUT)? })
            }
            Self::LiteLlm(program) => {
                let address = process::free_address()?;
                let mut command = litellm(program, endpoints, place)?;
                command.arg(address.port().to_string());
                let served = Served::start_at(&mut command, address).context("litellm")?;
                Ok(Gateway { served: Some(served), way: Way::plain(address, "", ROLLOUT)? })
            }
        }
    }
}

fn tracewire(binary: &Path, place: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env("TRACEWIRE_HOME", place).env("TRACEWIRE_LOG", "error").args(["serve", "--json"]);
    command.args(["--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0", "--store"]).arg(place.join("traces.db"));
    command
}

/// One worker, no key, and nothing fetched from elsewhere when it starts. The port is still to be added.
fn litellm(program: &Path, endpoints: &[SocketAddr], place: &Path) -> Result<Command> {
    let models = endpoints.iter().map(|endpoint| {
        let called = json!({ "model": "hosted_vllm/bench", "api_base": url(*endpoint), "api_key": "none" });
        json!({ "model_name": "bench", "litellm_params": called })
    });
    // JSON is YAML.
    let settings = json!({ "model_list": models.collect::<Vec<_>>() });
    std::fs::write(place.join("litellm.yaml"), settings.to_string())?;
    let mut command = Command::new(program);
    command.current_dir(place).env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
    command.env("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True");
    command.env("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true");
    command.arg("--config").arg(place.join("litellm.yaml"));
    command.args(["--host", "127.0.0.1", "--num_workers", "1", "--port"]);
    Ok(command)
}

/// Agent Lightning 1.0's way to say which backends there are, and which rollouts.
pub async fn register(address: SocketAddr, endpoints: &[SocketAddr], way: &Way, with_rollouts: bool) -> Result<()> {
    let model = |endpoint: &SocketAddr| json!({ "model": "bench", "endpoint": url(*endpoint), "version": 1 });
    post(address, "/api/models", &endpoints.iter().map(model).collect()).await?;
    if with_rollouts {
        let rollouts = way.rollouts().map(|rollout| json!({ "rollout_id": rollout, "input": "bench" }));
        post(address, "/api/rollouts", &rollouts.collect()).await?;
    }
    Ok(())
}

async fn post(address: SocketAddr, path: &str, body: &Value) -> Result<()> {
    let mut client = Client::connect(address).await?;
    client.send(Method::POST, path, "application/json", body.to_string().into()).await.map(drop)
}

/// What a path answers.
pub async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut client = Client::connect(address).await?;
    let answer = client.send(Method::GET, path, "application/json", bytes::Bytes::new()).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn url(endpoint: SocketAddr) -> String {
    format!("http://{endpoint}/v1")
}

/// What rollouts are called, before a number.
const ROLLOUT: &str = "ro-bench";
