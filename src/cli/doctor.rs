//! `tracewire doctor`: tests the HTTP clients of this machine through the proxy, or watches one command.

use super::args::{ProxyArgs, TimeLimit};
use super::recorded::{Recorded, RunResult, command_name};
use super::show::{self, OutputFormat};
use crate::config::Config;
use crate::doctor::diagnosis::{Bypass, Check, Diagnosis, FailedCalls, RejectedHost, Verdict, judge};
use crate::doctor::monitor::ScanRate;
use crate::doctor::probes::{PROBES, Probe};
use crate::files::{create_private_file, write_private};
use crate::mock::{Mock, MockOptions};
use crate::run::child::Streams;
use crate::run::{ChildError, RunFolder};
use crate::upstream::UpstreamProxy;
use crate::util::panics::{self, PanicPlace};
use anyhow::{Context, Result};
use clap::Args;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::IsTerminal;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Arguments of `doctor`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire doctor
  tracewire doctor --json | jq '.checks[] | select(.verdict != \"works\")'
  tracewire doctor -- python3 agent.py

The exit code is 0 if everything was traced, otherwise 1.")]
pub(super) struct DoctorArgs {
    /// Print JSON to stdout; the command's stdout goes to stderr
    #[arg(long)]
    json: bool,
    /// Stop the command and all processes that it started after this time; 0 means no limit
    #[arg(long, value_name = "SECS")]
    timeout: Option<TimeLimit>,
    #[command(flatten)]
    proxy_args: ProxyArgs,
    /// The command to watch, and its arguments [default: test the clients of this machine]
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) async fn run(args: DoctorArgs) -> Result<ExitCode> {
    let mut config = args.proxy_args.config()?;
    // A diagnosis stores nothing on disk.
    config.store.path = Some("memory:".into());
    let healthy = match args.command.is_empty() {
        true => test_clients(config, args.json.into()).await?,
        false => watch_command(config, args).await?,
    };
    Ok(ExitCode::from(u8::from(!healthy)))
}

/// Tests the clients of this machine, one after the other. True if all installed ones work.
async fn test_clients(mut config: Config, format: OutputFormat) -> Result<bool> {
    let folder = RunFolder::create().context("cannot create a temporary folder; check TMPDIR")?;
    let https = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on a free port of 127.0.0.1")?;
    let mock = Mock::start(None, Some(https), MockOptions::default(), None).await?;
    let endpoint = mock.https_addr().context("the mock endpoint has no address")?;
    let ca = folder.path().join("endpoint.pem");
    write_private(&ca, mock.ca_pem()).context("cannot write a temporary file; check TMPDIR")?;
    config.tls.upstream_ca.push(ca);
    // The name does not resolve: a client that bypasses the proxy fails.
    config.upstream.connect_to = vec![format!("{HOST}:443:{endpoint}")];
    config.upstream.proxy = UpstreamProxy::None;
    let mut checks = Vec::new();
    for (number, probe) in PROBES.iter().enumerate() {
        show_progress(format, &format!("testing {} ({} of {})", probe.client, number + 1, PROBES.len()));
        checks.push(check(probe, &config, folder.path()).await?);
    }
    show_progress(format, "");
    let panics = panics::places();
    let works = |check: &Check| matches!(check.verdict, Verdict::Works | Verdict::NotInstalled);
    let healthy = checks.iter().all(works) && panics.is_empty();
    show::out(match format {
        OutputFormat::Json => {
            format!("{:#}\n", serde_json::json!({ "healthy": healthy, "checks": checks, "panics": panics }))
        }
        OutputFormat::Text => table(&checks, &panics),
    })?;
    Ok(healthy)
}

async fn check(probe: &Probe, config: &Config, folder: &Path) -> Result<Check> {
    let Some(version) = version(probe).await else {
        return Ok(Check { client: probe.client, version: None, verdict: Verdict::NotInstalled, advice: None });
    };
    if let Some((name, text)) = probe.source {
        write_private(&folder.join(name), text).context("cannot write a temporary file; check TMPDIR")?;
    }
    let command = probe.command(&format!("https://{HOST}/"), folder);
    let output = folder.join("output");
    let recorded = Recorded {
        timeout: Some(TIMEOUT),
        streams: Streams::Captured(Arc::new(
            create_private_file(&output).context("cannot write a temporary file; check TMPDIR")?,
        )),
        ..Recorded::new(probe.client, command.into_iter().map(OsString::from).collect())
    };
    let run = recorded.run(config).await?;
    let (verdict, advice) = judge(probe.version[0], &run.spans?, &read(&output));
    Ok(Check { client: probe.client, version: Some(version), verdict, advice })
}

/// The version that a client reports; `None` if it is not installed.
async fn version(probe: &Probe) -> Option<String> {
    let mut command = tokio::process::Command::new(probe.version[0]);
    command.args(&probe.version[1..]).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_TIMEOUT, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbered =
        |word: &&str| word.trim_start_matches("go").trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit());
    let version = text.split_whitespace().find(numbered).unwrap_or_default();
    output.status.success().then(|| version.trim_start_matches("go").trim_start_matches('v').to_owned())
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn table(checks: &[Check], panics: &[PanicPlace]) -> String {
    let (missing, installed): (Vec<_>, Vec<_>) =
        checks.iter().partition(|check| check.verdict == Verdict::NotInstalled);
    let width = installed.iter().map(|check| check.client.len()).max().unwrap_or_default();
    let versions =
        installed.iter().filter_map(|check| check.version.as_deref()).map(str::len).max().unwrap_or_default();
    let mut text = String::new();
    for check in &installed {
        let mark = if check.verdict == Verdict::Works { '✓' } else { '✗' };
        let (version, advice) = (check.version.as_deref().unwrap_or_default(), check.advice.as_deref());
        let _ = writeln!(text, "{mark} {:width$}  {version:versions$}  {}", check.client, advice.unwrap_or("works"));
    }
    panics.iter().for_each(|place| text.extend(["✗ ", &place.to_string(), "\n"]));
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|check| check.client).collect();
        let _ = writeln!(text, "\nnot installed: {}", names.join(", "));
    }
    text
}

/// Runs a command, observes its connections, and prints a diagnosis. True if everything was traced.
async fn watch_command(config: Config, args: DoctorArgs) -> Result<bool> {
    let name = command_name(&args.command);
    let recorded = Recorded {
        timeout: args.timeout.and_then(TimeLimit::duration),
        streams: if args.json { Streams::ToStderr } else { Streams::Inherited },
        scan_rate: ScanRate::Diagnosis,
        ..Recorded::new(&name, args.command)
    };
    let RunResult { result, spans, notes, observed, unproxied, .. } = recorded.run(&config).await?;
    if let Err(error) = &result {
        show::note(&format!("tracewire: {error}"));
        if !args.json {
            return Ok(false);
        }
    }
    let exit_code = result.as_ref().map_or_else(ChildError::exit_code, |end| end.exit_code);
    let diagnosis = Diagnosis::new(exit_code, &spans?, observed, &unproxied, (notes, panics::places()));
    show::out(match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&diagnosis)?),
        false => format_diagnosis(&name, &diagnosis),
    })?;
    Ok(diagnosis.is_healthy())
}

fn format_diagnosis(name: &str, diagnosis: &Diagnosis) -> String {
    let mut text = format!("\n{name} ended with exit code {}\n", diagnosis.exit_code);
    let mut line = |mark: char, what: &str| text.extend([mark.to_string().as_str(), " ", what, "\n"]);
    match diagnosis.exchanges {
        0 => line('✗', "no exchange was recorded"),
        some => {
            let hosts: Vec<_> = diagnosis.hosts.iter().map(String::as_str).collect();
            line('✓', &format!("{} recorded, with {}", show::count(some as u64, "exchange"), hosts.join(", ")));
        }
    }
    for FailedCalls { host, calls, cause } in &diagnosis.failures {
        line('✗', &format!("failed: {host}, {}\n    {cause}", show::count(*calls as u64, "call")));
    }
    for RejectedHost { host, client, connections, advice, pinned } in &diagnosis.rejections {
        let what = if *pinned { "certificate rejected, perhaps pinned" } else { "certificate rejected" };
        let connections = show::count(*connections as u64, "connection");
        line('✗', &format!("{what}: {host} by {client}, {connections}\n    {advice}"));
    }
    for place in &diagnosis.panics {
        line('✗', &place.to_string());
    }
    for Bypass { connections, expected, advice } in &diagnosis.bypasses {
        let (what, mark) = if *expected { ("not proxied, as configured", '–') } else { ("bypassed", '✗') };
        let (program, pid, remote) = (&connections.program, connections.pid, connections.remote);
        let count = show::count(connections.connections, "connection");
        line(mark, &format!("{what}: {program} (pid {pid}) to {remote}, {count}\n    {advice}"));
    }
    for host in &diagnosis.unopened {
        line('–', &format!("tunnelled without decryption: {host} (proxy.passthrough, or not HTTP)"));
    }
    for note in &diagnosis.notes {
        line('–', note);
    }
    let has_finding =
        !(diagnosis.failures.is_empty() && diagnosis.rejections.is_empty() && diagnosis.bypasses.is_empty());
    if diagnosis.exchanges == 0 && !has_finding {
        line('–', "no connections were observed; connections shorter than about 1 ms can be missed");
    }
    text
}

/// Prints a line on the terminal that the next one replaces.
fn show_progress(format: OutputFormat, text: &str) {
    if format == OutputFormat::Text && std::io::stderr().is_terminal() {
        show::replace_line(text);
    }
}

const HOST: &str = "doctor.tracewire.test";
/// Includes the time in which Go and Java compile.
const TIMEOUT: Duration = Duration::from_secs(120);
const VERSION_TIMEOUT: Duration = Duration::from_secs(30);
