//! What long calls go through: a relay or Tracewire, with TLS as a proxy and without it as a gateway.

use crate::client::Way;
use crate::gateways;
use crate::process::Served;
use crate::tls::Ca;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How calls are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To an endpoint with TLS, through a proxy.
    Proxy,
    /// To a base URL without TLS, which stands for an endpoint without TLS.
    Gateway,
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name in the tables.
    pub label: String,
    /// How it is called.
    pub mode: Mode,
    /// Its binary. `None`: the relay.
    pub binary: Option<PathBuf>,
}

/// What Tracewire is started with.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Lines of its settings, with dotted keys.
    pub lines: Vec<String>,
    /// Further settings, after those lines.
    pub text: String,
    /// Variables of its environment.
    pub variables: Vec<(String, String)>,
}

/// One that runs.
pub struct Running {
    /// Its process.
    pub served: Served,
    /// How it is called.
    pub way: Way,
}

/// The relay and every binary, in both modes.
pub fn candidates(binaries: &[PathBuf]) -> Vec<Candidate> {
    let mut all = Vec::new();
    for mode in [Mode::Proxy, Mode::Gateway] {
        all.push(Candidate { label: floor(mode).to_owned(), mode, binary: None });
        for (number, binary) in binaries.iter().enumerate() {
            let name = match number {
                0 => "tracewire".to_owned(),
                1 => "other".to_owned(),
                _ => format!("other-{number}"),
            };
            let label = if mode == Mode::Proxy { name } else { format!("{name}-gateway") };
            all.push(Candidate { label, mode, binary: Some(binary.clone()) });
        }
    }
    all
}

/// The name of the relay that a mode is compared with.
pub fn floor(mode: Mode) -> &'static str {
    match mode {
        Mode::Proxy => "floor",
        Mode::Gateway => "floor-gateway",
    }
}

impl Candidate {
    /// Starts it before an endpoint, with its data in `place`.
    pub async fn start(
        &self,
        ca_folder: &Path,
        endpoint: SocketAddr,
        place: &Path,
        with: &Overrides,
    ) -> Result<Running> {
        let Some(binary) = &self.binary else { return self.start_relay(ca_folder, endpoint) };
        let served = Served::start(&mut tracewire(binary, ca_folder, place, with)?).context("tracewire")?;
        let server = served.server.context("tracewire has not said where its API server is")?;
        let way = match self.mode {
            Mode::Proxy => Way::new(endpoint, Some(served.address), SMALL_CALLS)?,
            Mode::Gateway => {
                let way = Way::plain(server, "/rollout/{}/attempt/0", SMALL_CALLS)?;
                gateways::register(server, &[endpoint], &way, false).await?;
                way
            }
        };
        Ok(Running { served, way })
    }

    fn start_relay(&self, ca_folder: &Path, endpoint: SocketAddr) -> Result<Running> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("relay").arg(ca_folder);
        if self.mode == Mode::Gateway {
            command.arg("--to").arg(endpoint.to_string());
        }
        let served = Served::start(&mut command).context("the relay")?;
        let way = match self.mode {
            Mode::Proxy => Way::new(endpoint, Some(served.address), SMALL_CALLS)?,
            Mode::Gateway => Way::plain(served.address, "", SMALL_CALLS)?,
        };
        Ok(Running { served, way })
    }
}

fn tracewire(binary: &Path, ca_folder: &Path, place: &Path, with: &Overrides) -> Result<Command> {
    // Dotted keys: further settings may add to the same tables.
    let mut settings = "tokens.engines = [{ hosts = [\"127.0.0.1\"], engine = \"vllm\" }]\n".to_owned();
    for line in &with.lines {
        settings.push_str(line);
        settings.push('\n');
    }
    settings.push_str(&with.text);
    let file = place.join("proxy.toml");
    std::fs::write(&file, settings)?;
    let mut command = Command::new(binary);
    command.env("TRACEWIRE_HOME", place).env("TRACEWIRE_LOG", "error").envs(with.variables.iter().cloned());
    command.args(["serve", "--json", "--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0"]);
    command.arg("--upstream-ca").arg(Ca::open(ca_folder).path()).arg("--config").arg(file);
    Ok(command)
}

/// What the rollouts of small calls are called, before a number.
const SMALL_CALLS: &str = "ro-small";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binary_is_measured_in_both_modes_beside_a_relay() {
        let labels: Vec<_> =
            candidates(&["a".into(), "b".into(), "c".into()]).into_iter().map(|one| one.label).collect();
        let proxies = ["floor", "tracewire", "other", "other-2"];
        let gateways = ["floor-gateway", "tracewire-gateway", "other-gateway", "other-2-gateway"];
        assert_eq!(labels, [proxies, gateways].concat());
    }
}
