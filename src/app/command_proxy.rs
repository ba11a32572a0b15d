//! A proxy for one command or one trace: it listens on a free port of this machine, with a CA of its own that exists only in
//! memory, and records all traffic in one attempt.

use super::known_endpoints::EngineMemory;
use super::program::{App, Parts};
use super::secrets::fill_in_run_secrets;
use crate::config::Config;
use crate::run::RunFolder;
use crate::run::bundle::user_ca_files;
use crate::run::environment::{Environment, EnvironmentRequest, proxy_url};
use crate::store::SharedStore;
use crate::tls::CertAuthority;
use crate::trace::{AttemptId, RolloutId};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A running proxy, and the files for its clients.
pub(crate) struct CommandProxy {
    pub(crate) app: App,
    /// Removed when this is dropped.
    pub(crate) files: RunFolder,
    /// With credentials if it needs any.
    pub(crate) proxy_url: String,
    /// The certificate of its CA, as PEM.
    pub(crate) ca_pem: String,
    // Boxed: futures that hold it stay small.
    config: Box<Config>,
    working_directory: PathBuf,
}

/// The settings of a proxy for one command.
pub(crate) struct CommandProxySettings {
    config: Box<Config>,
    authority: CertAuthority,
    files: RunFolder,
    working_directory: PathBuf,
}

impl CommandProxySettings {
    /// Changes `config` for one command, and creates the CA and the folder.
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let mut config = Box::new(config.clone());
        config.proxy.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        fill_in_run_secrets(&mut config)?;
        // Processes that the command left behind get this time to finish their exchanges.
        config.shutdown.drain_timeout = config.shutdown.drain_timeout.min(DRAIN_AFTER_RUN);
        let authority = CertAuthority::ephemeral("Tracewire run")?;
        let working_directory = std::env::current_dir().context("the working directory no longer exists")?;
        let files = RunFolder::create().context("cannot create a temporary folder; check TMPDIR")?;
        // The proxy trusts every CA that the command would trust without it.
        config.tls.upstream_ca.extend(user_ca_files(&variable, &working_directory));
        Ok(Self { config, authority, files, working_directory })
    }

    /// The settings as they are used.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Starts the proxy. Spans go into `store`, which is closed with it.
    pub(crate) async fn start(
        self,
        store: SharedStore,
        rollout: RolloutId,
        attempt: AttemptId,
        engine_memory: EngineMemory,
    ) -> Result<CommandProxy> {
        let Self { config, authority, files, working_directory } = self;
        let ca_pem = authority.ca_pem().to_owned();
        let parts = Parts { authority, store, binding: Some((rollout, attempt)), with_server: false, engine_memory };
        let app = App::start(&config, parts).await?;
        let proxy_url = proxy_url(&app.proxy_address.to_string(), &config.proxy.token);
        Ok(CommandProxy { app, files, proxy_url, ca_pem, config, working_directory })
    }
}

impl CommandProxy {
    /// The environment that sends a command's traffic through the proxy. The command is empty if it is not known.
    pub(crate) fn environment(&self, command: &[OsString]) -> Result<Environment> {
        let request = EnvironmentRequest {
            folder: self.files.path(),
            proxy_url: &self.proxy_url,
            ca_pem: &self.ca_pem,
            settings: &self.config.run,
            bypass: &[],
            runtimes: &[],
            command,
            current: &variable,
            working_directory: &self.working_directory,
        };
        Ok(request.build()?)
    }
}

/// An environment variable of this process.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

const DRAIN_AFTER_RUN: Duration = Duration::from_secs(2);
