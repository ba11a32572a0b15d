//! `tracewire ui`: serves the web page for a store until SIGTERM or SIGINT, without `serve`.
//!
//! The page gets a token of its own in the part of the address that browsers do not send; other users of the machine, who can
//! reach the port, have none.

use super::args::StoreArgs;
use super::find::{find_rollout, open_for_reading};
use super::show;
use crate::app::{App, EngineMemory, Parts, WhenUnreachable, fill_in_ui_secrets, open_store};
use crate::config::{Config, StoreSettings};
use crate::run::signals::stop_requests;
use crate::tls::CertAuthority;
use crate::trace::RolloutId;
use anyhow::{Result, bail};
use clap::Args;
use rustix::process::Signal;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};

/// Arguments of `ui`.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  tracewire ui\n  tracewire ui latest\n  tracewire ui --store traces.db --no-browser"
)]
pub(super) struct UiArgs {
    /// The rollout to open: its id, the beginning of it, or `latest` [default: the list]
    rollout: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// Print the address only
    #[arg(long)]
    no_browser: bool,
}

/// What happens with the page's address besides being printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Browser {
    /// The user's browser opens it, if the output goes to a terminal.
    Opened,
    /// Nothing.
    NotOpened,
}

pub(super) async fn run(args: UiArgs) -> Result<ExitCode> {
    let (store, place) = open_for_reading(&args.store).await?;
    let rollout = match &args.rollout {
        Some(wanted) => Some(find_rollout(&store, wanted, &place).await?),
        None => None,
    };
    store.close().await?;
    let browser = if args.no_browser { Browser::NotOpened } else { Browser::Opened };
    serve_page(args.store.settings(), rollout.as_ref(), browser).await
}

/// Serves the page of a store, at this rollout if one is named.
pub(super) async fn serve_page(
    store: StoreSettings,
    rollout: Option<&RolloutId>,
    browser: Browser,
) -> Result<ExitCode> {
    let mut stop = stop_requests(&[Signal::TERM, Signal::INT])?;
    let mut config = Config { store, ..Config::default() };
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    (config.proxy.listen, config.server.listen) = (any_port, any_port);
    let token = fill_in_ui_secrets(&mut config)?;
    let store = open_store(&config, WhenUnreachable::Fail).await?;
    let authority = CertAuthority::ephemeral("Tracewire ui")?;
    let parts = Parts { authority, store, binding: None, with_server: true, engine_memory: EngineMemory::Process };
    let app = App::start(&config, parts).await?;
    let Some(server) = app.server_address else { bail!("the API server did not start") };
    let place = rollout.map_or_else(|| "rollouts".to_owned(), |rollout| format!("rollout/{rollout}"));
    let url = format!("http://{server}/ui/#/{place}?token={}", token.expose());
    show::out(format!("{url}\n"))?;
    show::note("tracewire: this is the web page of the store; press Ctrl-C to end it");
    if browser == Browser::Opened && std::io::stdout().is_terminal() {
        open(&url);
    }
    stop.recv().await;
    app.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Opens an address in the user's browser. Where that fails, the address was printed.
fn open(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    drop(command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn());
}
