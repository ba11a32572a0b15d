//! `tracewire demo`: runs a small agent behind a proxy against the mock endpoint, and prints its timeline.

use super::args::StoreArgs;
use super::recorded::Recorded;
use super::run::{Report, record_and_show};
use super::show;
use super::ui::{Browser, serve_page};
use crate::config::Config;
use crate::files::write_private;
use crate::mock::{Mock, MockOptions};
use crate::run::RunFolder;
use anyhow::{Context, Result};
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;

/// Arguments of `demo`.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  tracewire demo\n  tracewire demo --ui\n\nWithout --store the trace is kept in memory only."
)]
pub(super) struct DemoArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Serve the web page of what was recorded, and open it
    #[arg(long)]
    ui: bool,
}

pub(super) async fn run(args: DemoArgs) -> Result<ExitCode> {
    let https = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on a free port of 127.0.0.1")?;
    // Delays make the bars of the timeline visible.
    let options = MockOptions {
        delay: Duration::from_millis(120),
        chunk_delay: Duration::from_millis(40),
        ..MockOptions::default()
    };
    let mock = Mock::start(None, Some(https), options, None).await?;
    let endpoint = mock.https_addr().context("the mock endpoint has no address")?;
    let folder = RunFolder::create().context("cannot create a temporary folder; check TMPDIR")?;
    let ca = folder.path().join("endpoint.pem");
    write_private(&ca, mock.ca_pem()).context("cannot write a temporary file; check TMPDIR")?;
    let mut config = Config::default();
    config.tls.upstream_ca.push(ca);
    args.store.apply(&mut config.store);
    if args.store.is_default() {
        // The demo leaves nothing on disk unless --store is given.
        let path = if args.ui { folder.path().join("demo.db") } else { "memory:".into() };
        config.store.path = Some(path);
    }
    show::note("tracewire: starting a mock LLM endpoint and a small agent behind the proxy\n");
    let program = std::env::current_exe().context("cannot find the path of this executable")?;
    let endpoint = format!("https://{endpoint}");
    let command = vec![program.into(), "demo-agent".into(), "--endpoint".into(), endpoint.into()];
    let recorded = Recorded { timeout: Some(Duration::from_secs(60)), ..Recorded::new("demo agent", command) };
    let code = Box::pin(record_and_show(&recorded, &config, Report::Timeline)).await?;
    if args.ui {
        return serve_page(config.store, Some(&recorded.rollout), Browser::Opened).await;
    }
    show::note("\nTo see it in a browser: tracewire demo --ui\nTo trace your own agent: tracewire run -- CMD");
    Ok(code)
}
