//! `tracewire serve`: runs the proxy and the API server until SIGTERM or SIGINT, then drains them.

use super::args::StoreArgs;
use super::settings::{add_export_of_environment, read_config};
use super::show::{self, OutputFormat};
use crate::app::{App, EngineMemory, Parts, SecretFiles, WhenUnreachable, ca_folder, fill_in_secrets, open_store};
use crate::live_export::JsonLinesPlace;
use crate::net::listener::raise_descriptor_limit;
use crate::run::signals::stop_requests;
use crate::tls::CertAuthority;
use crate::tls::certificate_path;
use crate::util::listen_address;
use crate::util::secret::Secret;
use anyhow::{Context, Result};
use clap::Args;
use rustix::process::Signal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `serve`. They override the settings file.
#[derive(Args)]
#[command(after_help = "Example:\n  tracewire serve --proxy 127.0.0.1:8080 --store traces.db")]
pub(super) struct ServeArgs {
    /// The settings file; proxy.toml lists every setting
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The proxy's address (port 0: any free port)
    #[arg(long, value_name = "ADDR", value_parser = listen_address::parse)]
    proxy: Option<SocketAddr>,
    /// The API server's address (port 0: any free port)
    #[arg(long, value_name = "ADDR", value_parser = listen_address::parse)]
    server: Option<SocketAddr>,
    /// The address for OTLP over gRPC [default: off]
    #[arg(long, value_name = "ADDR", value_parser = listen_address::parse)]
    otlp_grpc: Option<SocketAddr>,
    /// An origin of web pages that may call the API; `*` allows any (repeatable)
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// The CA's folder; DIR/ca.pem is the public certificate
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// Want tokens at both listeners, made on first use in the data folder, and block the metadata services of clouds
    #[arg(long)]
    secure: bool,
    /// PEM file with further root certificates for endpoints (repeatable)
    #[arg(long, value_name = "PEM")]
    upstream_ca: Vec<PathBuf>,
    /// Connect to another address for a host and port, as in curl (repeatable)
    #[arg(long, value_name = "HOST:PORT:HOST:PORT")]
    connect_to: Vec<String>,
    /// Record headers, redacted
    #[arg(long)]
    include_headers: bool,
    /// Record bodies, redacted
    #[arg(long)]
    include_bodies: bool,
    /// Write each stored span as a line of JSON to stdout, or to the end of a file
    #[arg(long, value_name = "jsonl[:FILE]")]
    emit: Option<JsonLinesPlace>,
    /// Print the addresses as one JSON line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ServeArgs) -> Result<ExitCode> {
    // The handlers come first: a signal during the start must not be lost.
    let mut stop = stop_requests(&[Signal::TERM, Signal::INT])?;
    let mut config = read_config(args.config.as_deref())?;
    config.proxy.listen = args.proxy.unwrap_or(config.proxy.listen);
    config.server.listen = args.server.unwrap_or(config.server.listen);
    config.server.otlp_grpc_listen = args.otlp_grpc.or(config.server.otlp_grpc_listen);
    config.server.cors_origins.extend(args.cors_origin);
    config.tls.ca_dir = args.ca_dir.or(config.tls.ca_dir);
    config.tls.upstream_ca.extend(args.upstream_ca);
    config.upstream.connect_to.extend(args.connect_to);
    config.capture.include_headers |= args.include_headers;
    config.capture.include_bodies |= args.include_bodies;
    args.store.apply(&mut config.store);
    config.server.secure |= args.secure;
    add_export_of_environment(&mut config);
    let secrets = fill_in_secrets(&mut config)?;
    config.check()?;
    raise_descriptor_limit();
    let folder = ca_folder(&config);
    let authority = CertAuthority::open_or_create(&folder).context("cannot open or create the CA")?;
    let store = open_store(&config, WhenUnreachable::Wait).await?;
    let parts = Parts { authority, store, binding: None, with_server: true, engine_memory: EngineMemory::Process };
    let mut app = App::start(&config, parts).await?;
    if let Some(place) = &args.emit {
        app.emit(place).await?;
    }
    let announcement = announcement(&app, &certificate_path(&folder), &secrets, &config.proxy.token, args.json.into());
    if args.emit == Some(JsonLinesPlace::Stdout) {
        show::note(announcement.trim_end());
    } else {
        show::out(announcement)?;
    }
    stop.recv().await;
    tracing::info!("draining");
    let ended = app.stop().await;
    tracing::info!(drained = ended.drained, lost = ended.lost, dropped = ended.dropped, "stopped");
    Ok(if ended.lost == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The addresses, and how to use the proxy.
fn announcement(app: &App, ca: &Path, secrets: &SecretFiles, token: &Secret, format: OutputFormat) -> String {
    let (proxy, server) = (app.proxy_address, app.server_address);
    let server = server.map(|address| address.to_string()).unwrap_or_default();
    if format == OutputFormat::Json {
        let grpc = app.otlp_grpc_address.map(|address| address.to_string());
        let line = serde_json::json!({ "proxy": proxy.to_string(), "server": server, "otlp_grpc": grpc, "ca": ca,
            "server_token_file": secrets.server_token, "proxy_token_file": secrets.proxy_token });
        return format!("{line}\n");
    }
    let named = [("API", &secrets.server_token), ("proxy", &secrets.proxy_token)];
    let files: String = named
        .iter()
        .filter_map(|(name, path)| Some(format!("token   of the {name}: {}\n", path.as_ref()?.display())))
        .collect();
    let user = if token.is_empty() { "" } else { "ROLLOUT.ATTEMPT:TOKEN@" };
    format!(
        "proxy   http://{proxy}\nserver  http://{server}\npage    http://{server}/ui/\nca      {}\n{files}\nTo send a shell's commands through the proxy:\n  \
         export HTTPS_PROXY=http://{user}{proxy} HTTP_PROXY=http://{user}{proxy}\n  \
         eval \"$(tracewire env --proxy http://{user}{proxy} --ca {})\"\n",
        ca.display(),
        ca.display()
    )
}
