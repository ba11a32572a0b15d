//! `tracewire env`: prints the variables that send a shell's commands through the proxy of `serve`.

use super::settings::{read_config, variable};
use super::show;
use crate::app::ca_folder;
use crate::run::Loopback;
use crate::run::environment::EnvironmentRequest;
use crate::run::render::{EnvFormat, render};
use crate::run::runtime::Runtime;
use crate::tls::CertAuthority;
use anyhow::{Context, Result};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `env`.
#[derive(Args)]
#[command(after_help = "Example:\n  eval \"$(tracewire env)\"")]
pub(super) struct EnvArgs {
    /// The output format
    #[arg(long, value_enum, default_value_t = EnvFormat::Sh)]
    format: EnvFormat,
    /// Print only the variables of these runtimes (comma-separated) [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    runtime: Vec<Runtime>,
    /// The proxy's URL; may contain ROLLOUT.ATTEMPT:TOKEN@ [default: proxy.listen of the settings]
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// File with the CA certificate [default: the CA of the settings; created if there is none]
    #[arg(long, value_name = "PEM")]
    ca: Option<PathBuf>,
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &EnvArgs) -> Result<ExitCode> {
    let config = read_config(args.config.as_deref())?;
    let folder = ca_folder(&config);
    let ca_pem = match &args.ca {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {} (--ca)", path.display()))?
        }
        None => CertAuthority::open_or_create(&folder).context("cannot open or create the CA")?.ca_pem().to_owned(),
    };
    let for_container = matches!(args.format, EnvFormat::Docker | EnvFormat::K8s);
    let proxy_url = args.proxy.clone().unwrap_or_else(|| match for_container {
        true => format!("http://host.docker.internal:{}", config.proxy.listen.port()),
        false => format!("http://{}", config.proxy.listen),
    });
    if for_container && args.proxy.is_none() && config.proxy.listen.ip().is_loopback() {
        show::note(&format!(
            "tracewire: the proxy listens on {}, which containers cannot reach; set proxy.listen and proxy.token, or \
             pass --proxy",
            config.proxy.listen
        ));
    }
    let bundle_folder = folder.join("env");
    std::fs::create_dir_all(&bundle_folder)
        .with_context(|| format!("cannot create the folder {}", bundle_folder.display()))?;
    let working_directory = std::env::current_dir().context("the working directory no longer exists")?;
    let mut settings = config.run;
    let is_remote =
        |url: &str| !["127.0.0.1", "localhost", "[::1]"].iter().any(|host| url.contains(&format!("{host}:")));
    if settings.loopback == Loopback::Auto && is_remote(&proxy_url) {
        // The proxy runs on another machine: its localhost is not the client's.
        settings.loopback = Loopback::Leave;
    }
    let request = EnvironmentRequest {
        folder: &bundle_folder,
        proxy_url: &proxy_url,
        ca_pem: &ca_pem,
        settings: &settings,
        // The proxy relays requests to its own API server.
        bypass: &[],
        runtimes: &args.runtime,
        current: &variable,
        working_directory: &working_directory,
    };
    let environment = request.build()?;
    for note in &environment.notes {
        show::note(&format!("tracewire: {note}"));
    }
    show::out(&render(&environment, args.format, &bundle_folder));
    Ok(ExitCode::SUCCESS)
}
