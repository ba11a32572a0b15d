//! `tracewire env`: prints the variables that send a shell's commands through the proxy of `serve`.

use super::client::HttpAddress;
use super::settings::{read_config, variable};
use super::show;
use crate::app::{ca_folder, fill_in_env_secrets};
use crate::config::Config;
use crate::files::{Owner, allow_reading, check_unchangeable, create_private_folder};
use crate::run::Loopback;
use crate::run::environment::{Environment, EnvironmentRequest, proxy_url};
use crate::run::render::{EnvFormat, render};
use crate::run::runtime::{Runtime, is_about_hosts};
use crate::tls::CertAuthority;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Arguments of `env`.
#[derive(Args)]
#[command(after_help = "Examples:
  eval \"$(tracewire env)\"
  eval \"$(tracewire env --unset)\"")]
pub(super) struct EnvArgs {
    /// The output format
    #[arg(long, value_enum, default_value_t = EnvFormat::Sh)]
    format: EnvFormat,
    /// Print only the variables of these runtimes (comma-separated) [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    runtime: Vec<Runtime>,
    /// Print what takes the variables back in this shell
    #[arg(long, conflicts_with_all = ["runtime", "proxy", "ca", "loopback"])]
    unset: bool,
    /// The proxy's URL; may contain ROLLOUT.ATTEMPT:TOKEN@ [default: proxy.listen and proxy.token of the settings]
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Whether to trace requests to this machine itself [default: auto]
    #[arg(long, value_enum)]
    loopback: Option<Loopback>,
    /// File with the CA certificate [default: the CA of the settings; created if there is none]
    #[arg(long, value_name = "PEM")]
    ca: Option<PathBuf>,
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) async fn run(args: &EnvArgs) -> Result<ExitCode> {
    let mut config = read_config(args.config.as_deref())?;
    config.run.loopback = args.loopback.unwrap_or(config.run.loopback);
    let folder = ca_folder(&config).join("env");
    let environment = if args.unset {
        undone(args.format)?
    } else {
        fill_in_env_secrets(&mut config)?;
        environment(args, &config).await?
    };
    for note in &environment.notes {
        show::note(&format!("tracewire: {note}"));
    }
    show::out(render(&environment, args.format, &folder))?;
    Ok(ExitCode::SUCCESS)
}

fn undone(format: EnvFormat) -> Result<Environment> {
    if format.is_for_containers() {
        bail!("--unset is for shells and programs; use --format sh, fish or json");
    }
    let environment = Environment::undone(&variable);
    Ok(environment.unwrap_or_else(|| Environment {
        notes: vec!["this shell does not have the variables of `tracewire env`; there is nothing to unset".to_owned()],
        ..Environment::default()
    }))
}

async fn environment(args: &EnvArgs, config: &Config) -> Result<Environment> {
    let folder = ca_folder(config);
    let proxy_url = proxy_of(args, config)?;
    let ca_pem = match &args.ca {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {} (--ca)", path.display()))?
        }
        None => CertAuthority::open_or_create(&folder).context("cannot open or create the CA")?.ca_pem().to_owned(),
    };
    if args.ca.is_some() && !ca_pem.contains("BEGIN CERTIFICATE") {
        bail!("--ca is not a PEM file with a certificate; `tracewire ca export` prints one");
    }
    let bundle_folder = folder.join("env");
    create_private_folder(&bundle_folder)
        .with_context(|| format!("cannot create the folder {}", bundle_folder.display()))?;
    check_unchangeable(&bundle_folder, Owner::ThisUser)?;
    let working_directory = std::env::current_dir().context("the working directory no longer exists")?;
    let is_container = args.format.is_for_containers();
    let request = EnvironmentRequest {
        folder: &bundle_folder,
        proxy_url: &proxy_url,
        ca_pem: &ca_pem,
        settings: &config.run,
        // The proxy relays requests to its own API server.
        bypass: &[],
        runtimes: &args.runtime,
        command: &[],
        current: if is_container { &variable_of_containers } else { &variable },
        working_directory: &working_directory,
    };
    let mut environment = request.build()?;
    if is_container {
        environment.remove_originals();
        allow_reading(&bundle_folder)
            .with_context(|| format!("cannot let containers read the folder {}", bundle_folder.display()))?;
    }
    let is_default = args.proxy.is_none();
    if is_container && is_default {
        if config.proxy.listen.ip().is_loopback() {
            environment.notes.push(format!(
                "the proxy listens on {}, which containers cannot reach; set proxy.listen and proxy.token, or pass --proxy",
                config.proxy.listen
            ));
        }
    } else {
        let address = HttpAddress::of_proxy(&proxy_url)?.authority();
        if !is_listening(&address).await {
            environment.notes.push(format!("nothing listens on {address}; start `tracewire serve`, or pass --proxy"));
        }
    }
    Ok(environment)
}

/// The proxy's URL, with the token of the settings unless `--proxy` has credentials.
fn proxy_of(args: &EnvArgs, config: &Config) -> Result<String> {
    let token = &config.proxy.token;
    match &args.proxy {
        Some(url) => {
            let address = HttpAddress::of_proxy(url)?;
            match url.rsplit_once('@') {
                Some((credentials, _)) => {
                    let user = credentials.rsplit("://").next().unwrap_or_default();
                    Ok(format!("http://{user}@{}", address.authority()))
                }
                None => Ok(proxy_url(&address.authority(), token)),
            }
        }
        None if args.format.is_for_containers() => {
            Ok(proxy_url(&format!("host.docker.internal:{}", config.proxy.listen.port()), token))
        }
        None => Ok(proxy_url(&reachable(config).to_string(), token)),
    }
}

/// A variable of this process that means something in a container, which has its own programs and folders.
fn variable_of_containers(name: &str) -> Option<OsString> {
    if is_about_hosts(name) { variable(name) } else { None }
}

/// The address at which clients on this machine reach the proxy.
fn reachable(config: &Config) -> SocketAddr {
    let mut address = config.proxy.listen;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}

/// True unless connections are refused. A proxy that was started a moment ago gets the time to start.
async fn is_listening(address: &str) -> bool {
    let started = Instant::now();
    loop {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused && started.elapsed() < START_TIMEOUT => {
                tokio::time::sleep(RETRY_DELAY).await;
            }
            connected => return matches!(connected, Ok(Ok(_))),
        }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const START_TIMEOUT: Duration = Duration::from_secs(1);
const RETRY_DELAY: Duration = Duration::from_millis(50);
